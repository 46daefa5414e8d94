package probe

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sakeeper/sakeeper/cmd/sakeeper/options"
	"github.com/sakeeper/sakeeper/cmd/sakeeper/process"
	"github.com/sakeeper/sakeeper/pkg/kube"
)

func TestProbe(t *testing.T) {
	var errNotYet error
	handler := process.ProbesHandler([]kube.Check{process.Ping()}, []kube.Check{{Name: "caches", Probe: func(*http.Request) error { return errNotYet }}})
	socket := options.UnixPrefix + filepath.Join(t.TempDir(), "health.sock")
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 2)
	addresses := []string{socket}
	for _, address := range []string{socket, "127.0.0.1:0"} {
		listener, err := process.ListenForProbes(ctx, address)
		if err != nil {
			t.Fatal(err)
		}
		if address != socket {
			addresses = append(addresses, listener.Addr().String())
		}
		go func() { served <- kube.Serve(ctx, listener, handler) }()
	}
	ask := func(args ...string) (string, error) {
		var stdout bytes.Buffer
		cmd := NewCommand()
		cmd.SilenceErrors, cmd.SilenceUsage = true, true
		cmd.SetArgs(args)
		cmd.SetOut(&stdout)
		cmd.SetErr(&stdout)
		err := cmd.ExecuteContext(t.Context())
		return stdout.String(), err
	}
	for _, address := range addresses {
		errNotYet = nil
		if out, err := ask("--address=" + address); err != nil || out != "[+] caches: ok\n" {
			t.Errorf("%s: ready: %q, %v", address, out, err)
		}
		errNotYet = errors.New("not yet")
		if out, err := ask("readyz", "--address="+address); err == nil || err.Error() != "/readyz: 503 Service Unavailable" || out != "[-] caches: not yet\n" {
			t.Errorf("%s: unready: %q, %v", address, out, err)
		}
		if out, err := ask("livez", "--address="+address); err != nil || out != "[+] ping: ok\n" {
			t.Errorf("%s: alive: %q, %v", address, out, err)
		}
	}
	stop()
	if err := errors.Join(<-served, <-served); err != nil {
		t.Error(err)
	}
	for _, address := range addresses {
		if _, err := ask("--address=" + address); err == nil || !strings.HasPrefix(err.Error(), "no answer at "+address) {
			t.Errorf("no server: %v", err)
		}
	}
	if _, err := ask("healthz"); err == nil || !strings.Contains(err.Error(), `invalid argument "healthz"`) {
		t.Errorf("another path: %v", err)
	}
}
