// Package signer is an ExternalJWTSigner v1 (k8s.io/externaljwt, KEP-740): a server that
// signs the tokens of kube-apiserver (--service-account-signing-endpoint), and a client for
// legacy tokens, which sakeeper's controllers use.
//
//   - There are two sockets, because a process that can open a socket can have every payload
//     signed that the socket accepts. The socket for kube-apiserver signs claims with exp that
//     are not of the legacy issuer. The legacy socket signs exactly the claims of legacy
//     tokens, byte for byte.
//   - Requests are answered from memory. The API server waits without a timeout: a slow answer
//     would delay every TokenRequest of the cluster.
//   - The signing key is always in the JWKS ([keys.Set]).
//   - The first key in the response of FetchKeys is the one that signs. The protocol does not
//     define the order, but a [Client] needs it.
//   - A socket has one server. A new process replaces the socket of one that has ended, by a
//     rename, so that the socket always exists.
//   - No part of a payload or a key is in a log or an error.
package signer
