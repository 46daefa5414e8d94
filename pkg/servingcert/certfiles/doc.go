// Package certfiles serves a certificate that somebody else keeps in two files.
//
// It keeps true:
//
//   - There is a certificate from the start on: without one, or with one that its
//     private key does not belong to, there is no [Files].
//   - A change is seen however it is made, also the symlink swap of a mounted Secret. A
//     bad new file leaves the last good certificate in place, and is told of.
//   - A certificate that has expired is served all the same, because nothing better is
//     there, but is not ready.
//
// Whoever keeps the files also keeps the caBundle of the webhook configurations.
//
// pkg/reload is used rather than controller-runtime's certwatcher, because everything
// else here is reloaded with it, and it tells of failures.
package certfiles
