// Package boundtoken knows what tokens from the TokenRequest API (KEP-1205) say of
// themselves, and when they are to be renewed, so that nothing that can be renewed
// expires. It makes no token, and checks no signature: who calls it has the token right
// from the API server, or only wants to know what it claims.
//
// Tokens are credentials: no error of this package holds a token or a part of one.
package boundtoken
