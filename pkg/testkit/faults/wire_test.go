package faults

import (
	"io"
	"net"
	"testing"
	"time"
)

// echo returns the address of a server that sends back what it gets, and prefixes it with the IP
// address of its client.
func echo(t *testing.T) string {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = conn.Close() }()
				host, _, _ := net.SplitHostPort(conn.RemoteAddr().String())
				_, _ = io.WriteString(conn, host+"\n")
				_, _ = io.Copy(conn, conn)
			}()
		}
	}()
	return listener.Addr().String()
}

func newWire(t *testing.T, targets ...string) *Wire {
	t.Helper()
	w, err := NewWire("127.0.0.1:0", net.IPv4(127, 0, 9, 9), targets...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w
}

func (w *Wire) mustDial(t *testing.T) net.Conn {
	t.Helper()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", w.Address())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func expectRead(t *testing.T, conn net.Conn, want string) {
	t.Helper()
	_ = conn.SetReadDeadline(time.Now().Add(time.Minute))
	got := make([]byte, len(want))
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != want {
		t.Fatalf("read %q, %v; want %q", got, err, want)
	}
}

func expectClosed(t *testing.T, conn net.Conn) {
	t.Helper()
	_ = conn.SetReadDeadline(time.Now().Add(time.Minute))
	got, err := io.ReadAll(conn)
	if timeout, ok := err.(net.Error); len(got) > 0 || ok && timeout.Timeout() { //nolint:errorlint // of the connection itself
		t.Fatalf("read %q, %v; want a closed connection", got, err)
	}
}

func TestAWireIsTransparentAndHasAnAddressOfItsOwn(t *testing.T) {
	gone, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = gone.Close()
	w := newWire(t, gone.Addr().String(), echo(t))
	for range 2 { // of the targets one is the first each time
		conn := w.mustDial(t)
		expectRead(t, conn, "127.0.9.9\n")
		_, _ = io.WriteString(conn, "hello")
		expectRead(t, conn, "hello")
	}
}

func TestACutWireEndsConnectionsUntilItIsHealed(t *testing.T) {
	w := newWire(t, echo(t))
	conn := w.mustDial(t)
	expectRead(t, conn, "127.0.9.9\n")
	w.Cut()
	expectClosed(t, conn)
	expectClosed(t, w.mustDial(t))
	w.Heal()
	expectRead(t, w.mustDial(t), "127.0.9.9\n")
}

func TestASilentWireLosesWhatIsSent(t *testing.T) {
	w := newWire(t, echo(t))
	conn := w.mustDial(t)
	expectRead(t, conn, "127.0.9.9\n")
	w.Silence()
	_, _ = io.WriteString(conn, "lost")
	late := w.mustDial(t)
	for _, silent := range []net.Conn{conn, late} {
		_ = silent.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		n, err := silent.Read(make([]byte, 1))
		if timeout, ok := err.(net.Error); n > 0 || !ok || !timeout.Timeout() { //nolint:errorlint // of the connection itself
			t.Errorf("read %d bytes, %v; want a timeout", n, err)
		}
	}
	w.Heal()
	expectClosed(t, conn)
	expectClosed(t, late)
	expectRead(t, w.mustDial(t), "127.0.9.9\n")
}
