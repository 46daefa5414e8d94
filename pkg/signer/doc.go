// Package signer is an ExternalJWTSigner v1 (k8s.io/externaljwt, KEP-740): the server
// that kube-apiserver asks to sign its tokens (--service-account-signing-endpoint), and
// the client by which sakeeper's controllers ask for legacy tokens.
//
// It keeps true:
//
//   - There are two sockets, because whoever may open a socket may have anything signed
//     there. The one for kube-apiserver signs any claims that end, and none of the legacy
//     issuer; the legacy one signs exactly the claims of legacy tokens, to the byte.
//   - Requests are answered from memory. The API server waits for an answer without a
//     timeout of its own: what takes long here holds up every TokenRequest of a cluster.
//   - What signs is in discovery: [keys.Set] cannot hold it otherwise.
//   - The first key of FetchKeys is the one that signs. The protocol leaves the order
//     open; a [Client] needs to know.
//   - A socket has one server. It is taken over only from a process that is gone, and by
//     a rename, so that there is one at each moment.
//   - Nothing of a payload or a key is logged or goes into an error.
package signer
