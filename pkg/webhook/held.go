package webhook

import (
	"errors"
	"io"
	"sync/atomic"
)

// maxHeld bounds the bodies of all requests that are being read and answered. Anybody
// who reaches the port may send some, so what is over it is refused, rather than the
// process killed for its memory. Decoded, a body takes some five times its size. The
// API servers of a large cluster together have a thousand pods of 20 KB under way at
// worst, and the largest body may come nine times at once.
const maxHeld = 64 << 20

var errHeld = errors.New("too much is being answered at once")

// held is a body that counts, from its first byte until it is released. Only what has
// come counts: who announces much and sends nothing takes nothing from others.
type held struct {
	io.Reader

	all  *atomic.Int64
	size int64
}

func (h *held) Read(p []byte) (int, error) {
	n, err := h.Reader.Read(p)
	h.size += int64(n)
	if h.all.Add(int64(n)) > maxHeld {
		return n, errHeld
	}
	return n, err
}

func (h *held) release() {
	h.all.Add(-h.size)
	h.size = 0
}
