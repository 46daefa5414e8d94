// Package pki makes and reads the certificates of a webhook: a CA of its own and
// what it signs.
//
// It keeps true:
//
//   - A [Pair] always holds a private key that belongs to its certificate, and
//     prints as its name and serial number only. No error quotes a key.
//   - The clock is an argument. Certificates begin an hour before it, for readers
//     whose clocks are behind.
//   - What is signed ends no later than the CA that signs it.
//   - A CA signs servers only, no other CAs.
//
// It also shows when certificates expire. The helpers of k8s.io/client-go/util/cert read the clock themselves and fix the
// lifetimes, so certificates are made with crypto/x509 here.
package pki
