package faults

import (
	"io"
	"net"
	"sync"
	"time"
)

// Wire forwards TCP connections to the first of several addresses that accepts them, byte by byte.
// It can be cut, so that connections are refused, and be silent, so that nothing passes. Its methods
// may be called concurrently.
type Wire struct {
	listener net.Listener
	source   net.IP
	targets  []string

	mu     sync.Mutex
	state  wireState
	next   int // of targets
	conns  map[net.Conn]struct{}
	closed bool
}

type wireState int

const (
	whole wireState = iota
	cut
	silent
)

// NewWire listens on address, which may have port 0. Connections to targets come from the IP address
// source; nil: the kernel chooses.
func NewWire(address string, source net.IP, targets ...string) (*Wire, error) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	w := &Wire{listener: listener, source: source, targets: targets, conns: map[net.Conn]struct{}{}}
	go w.accept()
	return w, nil
}

// Address is the host:port on which it listens.
func (w *Wire) Address() string { return w.listener.Addr().String() }

// Cut closes every connection, and each new one at once, until Heal.
func (w *Wire) Cut() { w.set(cut) }

// Silence lets nothing pass until Heal, which then closes the connections: what was sent meanwhile
// never arrives.
func (w *Wire) Silence() { w.set(silent) }

// Heal ends Cut and Silence.
func (w *Wire) Heal() { w.set(whole) }

// Close closes it with all connections.
func (w *Wire) Close() {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	_ = w.listener.Close()
	w.set(cut)
}

func (w *Wire) set(state wireState) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if state == w.state {
		return
	}
	w.state = state
	if state != silent {
		for conn := range w.conns {
			_ = conn.Close()
		}
	}
}

func (w *Wire) accept() {
	for {
		conn, err := w.listener.Accept()
		if err != nil {
			return // closed
		}
		go w.serve(conn)
	}
}

// hold registers a connection, and returns false if it must be closed at once.
func (w *Wire) hold(conn net.Conn) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed || w.state == cut {
		return false
	}
	w.conns[conn] = struct{}{}
	return true
}

func (w *Wire) release(conn net.Conn) {
	_ = conn.Close()
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.conns, conn)
}

func (w *Wire) isSilent() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.state == silent
}

func (w *Wire) serve(client net.Conn) {
	defer w.release(client)
	if !w.hold(client) {
		return
	}
	if w.isSilent() {
		_, _ = io.Copy(io.Discard, client)
		return
	}
	server, err := w.dial()
	if err != nil {
		return
	}
	defer w.release(server)
	if !w.hold(server) {
		return
	}
	done := make(chan struct{}, 2)
	go func() { w.pass(server, client); done <- struct{}{} }()
	go func() { w.pass(client, server); done <- struct{}{} }()
	<-done
}

// dial tries each target once, beginning with the next in turn.
func (w *Wire) dial() (conn net.Conn, err error) {
	dialer := net.Dialer{Timeout: 5 * time.Second}
	if w.source != nil {
		dialer.LocalAddr = &net.TCPAddr{IP: w.source}
	}
	w.mu.Lock()
	first := w.next
	w.next++
	w.mu.Unlock()
	for i := range w.targets {
		conn, err = dialer.Dial("tcp", w.targets[(first+i)%len(w.targets)])
		if err == nil {
			return conn, nil
		}
	}
	return nil, err
}

// pass copies from one connection to the other. What comes during a silence is dropped.
func (w *Wire) pass(to, from net.Conn) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if n > 0 && !w.isSilent() {
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
