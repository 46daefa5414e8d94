// Package issuer publishes and reads the verification keys of an issuer of ServiceAccount tokens,
// as in OpenID Connect Discovery 1.0.
//
// [Discovery] makes the discovery document and the JWKS of an issuer, byte for byte as
// kube-apiserver does, and serves them or writes them to files. [RemoteKeys] reads the keys of
// another issuer from its discovery document.
package issuer
