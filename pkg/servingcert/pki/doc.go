// Package pki makes and parses the certificates of a webhook: its CA, and the serving certificates
// that the CA signs.
//
// It guarantees:
//
//   - A [Pair] always holds the private key of its certificate, and prints only its name and
//     serial number. No error contains a key.
//   - The time is an argument. Certificates become valid an hour before it, for clients whose
//     clocks are behind.
//   - A certificate expires no later than the CA that signs it.
//   - A CA signs serving certificates only, no other CAs.
//
// It also has the metric of when certificates expire. The helpers of k8s.io/client-go/util/cert
// read the clock themselves and fix the lifetimes, so crypto/x509 is used here.
package pki
