package controllers

import (
	"context"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/sakeeper/sakeeper/cmd/sakeeper/internal/cmdtest"
)

// goodConfig is that of a good command line, with an API server that does not answer.
func goodConfig(t *testing.T, f cmdtest.Files, args ...string) *Config {
	t.Helper()
	cmdtest.MustNil(t, os.WriteFile(f.Path("kubeconfig"), []byte(cmdtest.Kubeconfig), 0o600))
	cfg, err := configOf(t, f, append([]string{
		"--kubeconfig=%/kubeconfig", "--service-account-private-key-file=%/good.key", "--service-account-key-file=%/public.key", "--root-ca-file=%/good.crt",
		"--metrics-bind-address=127.0.0.1:0", "--health-probe-bind-address=127.0.0.1:0",
	}, args...)...)
	cmdtest.MustNil(t, err)
	return cfg
}

func newProcess(t *testing.T, args ...string) *Process {
	t.Helper()
	p, err := New(t.Context(), goodConfig(t, cmdtest.NewFiles(t), args...))
	cmdtest.MustNil(t, err)
	t.Cleanup(p.Close)
	return p
}

func TestProbesBeforeTheAPIServerAnswers(t *testing.T) {
	cases := map[string]struct {
		in        []string
		wantLive  string
		wantReady string
	}{
		"with an election":    {wantLive: "[+] ping: ok\n[+] leader election: ok\n", wantReady: "[-] controllers: no leader was observed yet"},
		"without an election": {in: []string{"--leader-elect=false", "--controllers=serviceaccount"}, wantLive: "[+] ping: ok\n", wantReady: "[-] controllers: the controllers are not started yet"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			probes := newProcess(t, tc.in...).probesHandler()
			if code, body := cmdtest.Get(probes, "/livez"); code != http.StatusOK || body != tc.wantLive {
				t.Errorf("livez: %d %q", code, body)
			}
			if code, body := cmdtest.Get(probes, "/readyz"); code != http.StatusServiceUnavailable || !strings.HasPrefix(body, tc.wantReady) {
				t.Errorf("readyz: %d %q", code, body)
			}
			if code, _ := cmdtest.Get(probes, "/metrics"); code != http.StatusNotFound {
				t.Errorf("metrics: %d", code)
			}
		})
	}
}

func TestAStopWhileTheAPIServerIsAwayIsNoError(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Run(ctx, goodConfig(t, cmdtest.NewFiles(t))); err != nil {
		t.Error(err)
	}
}
