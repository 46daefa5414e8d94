package kube

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"
)

// Listen opens a TCP address. Address "0" means off: the listener is nil then. Errors begin
// with flag.
func Listen(ctx context.Context, flag, address string) (net.Listener, error) {
	if address == "0" {
		return nil, nil //nolint:nilnil // off is not an error
	}
	return listen(ctx, net.ListenConfig{}, flag, address)
}

// ListenShared is Listen with SO_REUSEPORT: several processes of this machine may listen on
// the port at once, and each new connection goes to one of them. When one closes its listener, the
// kernel resets the connections that this one has not accepted yet.
func ListenShared(ctx context.Context, flag, address string) (net.Listener, error) {
	if address == "0" {
		return nil, nil //nolint:nilnil // off is not an error
	}
	return listen(ctx, net.ListenConfig{Control: setReusePort}, flag, address)
}

func listen(ctx context.Context, config net.ListenConfig, flag, address string) (net.Listener, error) {
	listener, err := config.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", flag, err)
	}
	return listener, nil
}

// Serve serves HTTP on listener until ctx ends, and then returns nil after at most two
// seconds for requests that are running. If listener is nil, it returns nil at once.
func Serve(ctx context.Context, listener net.Listener, handler http.Handler) error {
	if listener == nil {
		return nil
	}
	server := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
	}
	stopped := make(chan struct{})
	defer context.AfterFunc(ctx, func() {
		defer close(stopped)
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		if server.Shutdown(grace) != nil {
			_ = server.Close()
		}
	})()
	if err := server.Serve(listener); ctx.Err() == nil {
		return fmt.Errorf("serve on %s: %w", listener.Addr(), err)
	}
	<-stopped
	return nil
}

// Check is one check of a probe.
type Check struct {
	Name string
	// Probe returns nil if the check passes. The text of its error is shown to the client.
	Probe func(*http.Request) error
	// Warn shows the error without failing the probe.
	Warn bool
}

// Probe returns a handler that answers 200 if all checks pass and 503 otherwise, with a line
// per check.
func Probe(checks ...Check) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var lines strings.Builder
		code := http.StatusOK
		for _, check := range checks {
			switch err := check.Probe(r); {
			case err == nil:
				fmt.Fprintf(&lines, "[+] %s: ok\n", check.Name)
			case check.Warn:
				fmt.Fprintf(&lines, "[!] %s: %v\n", check.Name, err)
			default:
				code = http.StatusServiceUnavailable
				fmt.Fprintf(&lines, "[-] %s: %v\n", check.Name, err)
			}
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.WriteHeader(code)
		_, _ = w.Write([]byte(lines.String()))
	})
}
