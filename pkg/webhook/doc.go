// Package webhook is an HTTPS server for AdmissionReview v1. It knows nothing of
// what is admitted: that is a [Handler] per path.
//
// It keeps true:
//
//   - Nothing is allowed but by a handler that said so. What cannot be read is
//     refused by an HTTP status; a handler that fails, panics, runs out of time or
//     says nothing is a denial with an internal or retryable status.
//   - The answer to a review has its uid, apiVersion and kind.
//   - One request costs a bounded amount of memory and time, whoever sends it: its
//     header, its body and the time to read, to decide and to write have limits.
//   - A panic is counted and logged without its value, which may quote an object.
//   - The end of the context refuses nobody: the server goes on while Drain lasts,
//     asks clients to take their connections elsewhere, and then finishes the
//     requests that it has.
//   - The certificate is asked for at every handshake, so that it may change at any
//     time.
package webhook
