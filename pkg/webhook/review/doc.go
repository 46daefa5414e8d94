// Package review answers AdmissionReviews of the version v1 over HTTP. It knows no object: a
// [Func] decides what is admitted. [NewHandler] makes a handler for any server; pkg/webhook is
// an HTTPS server around the same code.
//
// It guarantees:
//
//   - Nothing is allowed unless the function allowed it. A request that is not a readable review
//     is refused with an HTTP status. A function that fails, panics, runs out of time or returns
//     no response is a denial with an internal or retryable status.
//   - The answer to a review has the uid, apiVersion and kind of the review.
//   - A request costs a bounded amount of memory and time: its body, all bodies together, and
//     the time to decide have limits.
//   - A panic is logged without its value, which may quote an object.
package review
