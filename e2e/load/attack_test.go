package load

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// How many of each kind attack at a time.
const (
	silentConnections = 50 // no byte of a handshake
	halfRequests      = 50 // a handshake, and half of a request's header
	slowReaders       = 20 // they send requests, and read no answer
	hugeBodies        = 3  // closed loops of the largest body that is read
	endlessBodies     = 3  // closed loops of a body without an end
	floods            = 20 // closed loops of requests that must be refused
)

// attack is what attackers did.
type attack struct {
	silent, half, slow, huge, endless, floods atomic.Int64
	accepted                                  atomic.Int64 // requests of the flood that were not refused
}

func (a *attack) String() string {
	return fmt.Sprintf("%d silent connections, %d half requests, %d slow readers, %d huge and %d endless bodies, %d requests of the flood",
		a.silent.Load(), a.half.Load(), a.slow.Load(), a.huge.Load(), a.endless.Load(), a.floods.Load())
}

// run attacks until ctx ends, and then closes all connections. refused judges the answer to a
// request of the flood.
func (a *attack) run(ctx context.Context, t target, refused func(code int, answer []byte) bool) {
	var loops sync.WaitGroup
	again := func(n int, once func(context.Context)) {
		for range n {
			loops.Go(func() {
				for ctx.Err() == nil {
					once(ctx)
				}
			})
		}
	}
	again(silentConnections, func(ctx context.Context) { a.hold(ctx, t, &a.silent, nil) })
	again(halfRequests, func(ctx context.Context) {
		a.hold(ctx, t, &a.half, func(c net.Conn) { _, _ = fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: ", t.path) })
	})
	again(slowReaders, func(ctx context.Context) {
		a.hold(ctx, t, &a.slow, func(c net.Conn) {
			request := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", t.path, len(t.good), t.good)
			for {
				if _, err := io.WriteString(c, request); err != nil {
					return
				}
			}
		})
	})
	a.loops(ctx, &loops, hugeBodies, &a.huge, t, func() io.Reader { return bytes.NewReader(t.huge) }, nil)
	a.loops(ctx, &loops, endlessBodies, &a.endless, t, func() io.Reader { return endless{} }, nil)
	a.loops(ctx, &loops, floods, &a.floods, t, func() io.Reader { return bytes.NewReader(t.flood(a.floods.Load())) }, refused)
	loops.Wait()
}

// loops starts n closed loops, each with a connection of its own.
func (a *attack) loops(ctx context.Context, group *sync.WaitGroup, n int, count *atomic.Int64, t target, body func() io.Reader, refused func(int, []byte) bool) {
	for range n {
		group.Go(func() {
			client := t.newClient()
			defer client.CloseIdleConnections()
			for ctx.Err() == nil {
				count.Add(1)
				code, answer, err := t.post(ctx, client, body())
				if err == nil && refused != nil && !refused(code, answer) {
					a.accepted.Add(1)
				}
			}
		})
	}
}

// endless is a body that has no end.
type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

// least returns an error unless each attacker attacked once.
func (a *attack) least() error {
	for _, kind := range []struct{ count, least int64 }{
		{a.silent.Load(), silentConnections}, {a.half.Load(), halfRequests}, {a.slow.Load(), slowReaders},
		{a.huge.Load(), hugeBodies}, {a.endless.Load(), endlessBodies}, {a.floods.Load(), floods},
	} {
		if kind.count < kind.least {
			return fmt.Errorf("the attack was not whole: %v", a)
		}
	}
	return nil
}

// hold opens a connection, sends something if send is not nil, and waits until the server closes it.
func (a *attack) hold(ctx context.Context, t target, count *atomic.Int64, send func(net.Conn)) {
	raw, err := (&net.Dialer{}).DialContext(ctx, "tcp", t.address)
	if err != nil {
		pause(ctx)
		return
	}
	defer context.AfterFunc(ctx, func() { _ = raw.Close() })()
	defer func() { _ = raw.Close() }()
	if tcp, ok := raw.(*net.TCPConn); ok {
		_ = tcp.SetReadBuffer(4 << 10)
	}
	if send == nil {
		count.Add(1)
	} else {
		config := t.tls.Clone()
		config.ServerName, config.NextProtos = "127.0.0.1", []string{"http/1.1"}
		c := tls.Client(raw, config)
		if err := c.HandshakeContext(ctx); err != nil {
			pause(ctx)
			return
		}
		count.Add(1)
		send(c)
	}
	_, _ = io.Copy(io.Discard, raw) // until the server gives up: it sends session tickets first
	pause(ctx)
}

// pause keeps attackers whose connections are refused from using up the machine.
func pause(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(50 * time.Millisecond):
	}
}

// refusedByCode is for servers that refuse with an HTTP status.
func refusedByCode(code int, _ []byte) bool { return code >= http.StatusBadRequest }
