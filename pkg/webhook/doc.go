// Package webhook is an HTTPS server for admission reviews. It knows no object: a
// [review.Func] per path decides what is admitted.
//
// It guarantees what [github.com/sakeeper/sakeeper/pkg/webhook/review] does, and:
//
//   - A connection costs a bounded amount of memory and time: the header, the time to read and
//     the time to write have limits, for every client.
//   - A panic is counted and logged without its value, which may quote an object.
//   - When the context ends, no request is refused: the server goes on for the time of
//     Config.Drain, asks clients to close their connections, and then finishes the requests
//     that it has.
//   - With Config.ClientCAs, no handler is called, and no body is read, for a client that may
//     not call: the client gets the status 403 and a text that says why.
//   - The certificate is asked for at every handshake, so it may change at any time.
package webhook
