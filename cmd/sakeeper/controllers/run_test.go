package controllers

import (
	"context"
	"errors"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"k8s.io/client-go/tools/record"

	"github.com/sakeeper/sakeeper/cmd/sakeeper/internal/cmdtest"
	"github.com/sakeeper/sakeeper/cmd/sakeeper/process"
	"github.com/sakeeper/sakeeper/pkg/controllers/serviceaccount"
	"github.com/sakeeper/sakeeper/pkg/controllers/tokensecret"
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
		"without an election": {in: []string{"--leader-elect=false", "--controllers=serviceaccount"}, wantLive: "[+] ping: ok\n", wantReady: "[-] controllers: serviceaccount-controller: the objects that existed at the start are not all handled yet"},
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

func TestMetricsOfAProcess(t *testing.T) {
	metrics := process.MetricsHandler(newProcess(t).registry)
	code, body := cmdtest.Get(metrics, "/metrics")
	if code != http.StatusOK {
		t.Errorf("code %d", code)
	}
	for _, want := range []string{
		"\nsakeeper_build_info{", "\nsakeeper_key_info{", "\ngo_goroutines ", "\nworkqueue_depth{",
		`sakeeper_reload_failures_total{source="keys"} 0`, `sakeeper_reload_failures_total{source="ca"} 0`,
	} {
		if !strings.Contains(body, want) {
			t.Errorf("not among the metrics: %s", want)
		}
	}
	if code, _ := cmdtest.Get(metrics, "/readyz"); code != http.StatusNotFound {
		t.Errorf("readyz: %d", code)
	}
}

// worker is a controller that does nothing.
type worker struct{ ready bool }

func (worker) Run(context.Context) error { return nil }
func (w worker) Ready() bool             { return w.ready }

func TestReadyWithoutElection(t *testing.T) {
	cases := map[string]struct {
		in   map[string]controller
		want error
	}{
		"all controllers are":  {in: map[string]controller{serviceaccount.Name: worker{true}, tokensecret.Name: worker{true}}},
		"one controller isn't": {in: map[string]controller{serviceaccount.Name: worker{true}, tokensecret.Name: worker{false}}, want: errStarting},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			p := &Process{assembly: &assembly{controllers: tc.in}}
			if err := p.ready(nil); !errors.Is(err, tc.want) || (tc.want == nil) != (err == nil) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
		})
	}
}

func TestAFileThatTurnsBadIsCountedAndReported(t *testing.T) {
	f := cmdtest.NewFiles(t)
	cfg := goodConfig(t, f, "--leader-elect-resource-namespace=team")
	recorder := record.NewFakeRecorder(10)
	recorder.IncludeObject = true
	registry := prometheus.NewRegistry()
	p := &Process{cfg: cfg, recorder: recorder, registry: registry}
	p.followReloads()

	cmdtest.MustNil(t, os.WriteFile(f.Path("good.crt"), []byte("garbage"), 0o600))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- cfg.ca.Run(ctx) }() // reads the file at once
	event := <-recorder.Events
	cancel()
	cmdtest.MustNil(t, <-ended)

	want := "Warning ReloadFailed The last good value stays in use: --root-ca-file: " + f.Path("good.crt") + ": holds no usable certificate: data does not contain any valid RSA or ECDSA certificates involvedObject{kind=Lease,apiVersion=coordination.k8s.io/v1}"
	if diff := cmp.Diff(want, event); diff != "" {
		t.Errorf("event (-want +got):\n%s", diff)
	}
	cmdtest.MustNil(t, testutil.GatherAndCompare(registry, strings.NewReader(`
# HELP sakeeper_reload_failures_total Changed files that could not be used, by source (keys, ca); the last good ones stay in use.
# TYPE sakeeper_reload_failures_total counter
sakeeper_reload_failures_total{source="ca"} 1
sakeeper_reload_failures_total{source="keys"} 0
`), "sakeeper_reload_failures_total"))
}

func TestAStopWhileTheAPIServerIsAwayIsNoError(t *testing.T) {
	cmdtest.ResetLogs(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Run(ctx, goodConfig(t, cmdtest.NewFiles(t))); err != nil {
		t.Error(err)
	}
}
