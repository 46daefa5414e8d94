package options

import (
	"fmt"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// progress shows a number in one line of a terminal. It is safe for concurrent use.
type progress struct {
	streams Streams

	mu    sync.Mutex
	last  time.Time
	shown bool
}

// progressInterval is the least time between two numbers.
const progressInterval = 100 * time.Millisecond

func newProgress(streams Streams) *progress { return &progress{streams: streams} }

func (p *progress) show(objects int64) {
	if !p.streams.Progress {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.shown && time.Since(p.last) < progressInterval {
		return
	}
	p.last, p.shown = time.Now(), true
	fmt.Fprintf(p.streams.ErrOut, "\r%d objects read", objects)
}

func (p *progress) clear() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.shown {
		fmt.Fprint(p.streams.ErrOut, "\r\x1b[K")
	}
}

// coreResource returns a resource of the core API.
func coreResource(resource string) schema.GroupVersionResource {
	return schema.GroupVersionResource{Version: "v1", Resource: resource}
}
