// Package certfiles serves a certificate from two files that another tool writes.
//
// It guarantees:
//
//   - There is always a certificate: [New] returns an error if the files cannot be used.
//   - A change is read however it is made, also by the symlink swap of a mounted Secret. If the
//     new files cannot be used, the last good certificate stays in use, and the failure is
//     reported.
//   - A certificate that has expired is still served, because there is no better one, but
//     [Files.Ready] returns an error.
//
// The tool that writes the files also keeps the caBundle of the webhook configurations.
//
// pkg/internal/filewatch is used instead of controller-runtime's certwatcher, because all other
// files are reloaded with it, and because it reports failures.
package certfiles
