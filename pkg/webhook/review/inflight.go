package review

import (
	"errors"
	"io"
	"sync/atomic"
)

// maxInFlight bounds the bodies of all requests in flight. Any client that reaches the port may
// send some, so a request above the bound is refused, before the kernel kills the process for
// its memory. Decoded, a body takes about five times its size. The API servers of a large
// cluster together send a thousand pods of 20 KB at once at worst, and nine bodies of the
// largest size fit.
const maxInFlight = 64 << 20

var errInFlight = errors.New("too many requests in flight")

// InFlight counts the bytes of request bodies that are being read and answered. The zero value
// is ready for use. It may be shared by several handlers, which then share one limit of 64 MiB,
// and is safe for concurrent use.
type InFlight struct{ bytes atomic.Int64 }

// countedBody adds what was read of a body to the bytes in flight, until it is released. A
// Content-Length without a body counts nothing, so it takes no room from other requests.
type countedBody struct {
	io.Reader

	inFlight *InFlight
	size     int64
}

func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	b.size += int64(n)
	if b.inFlight.bytes.Add(int64(n)) > maxInFlight {
		return n, errInFlight
	}
	return n, err
}

func (b *countedBody) release() {
	b.inFlight.bytes.Add(-b.size)
	b.size = 0
}
