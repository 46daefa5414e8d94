package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
)

func TestEverythingThatIsWrongIsNamedAtOnceAndEndsTheStart(t *testing.T) {
	t.Parallel()
	garbage := filepath.Join(t.TempDir(), "garbage")
	must(t, os.WriteFile(garbage, []byte("no PEM here"), 0o600))
	tests := map[string]struct {
		args []string
		want []string
	}{
		"bad files": {
			args: []string{
				"--service-account-private-key-file=" + garbage, "--service-account-key-file=" + t.TempDir(),
				"--service-account-key-file=/does/not/exist", "--root-ca-file=" + garbage,
			},
			want: []string{
				"--service-account-private-key-file: " + garbage, "--service-account-key-file: read ",
				"--service-account-key-file: open /does/not/exist", "--root-ca-file: " + garbage,
			},
		},
		"neither key nor CA": {
			want: []string{"--controllers=*,-serviceaccount-token-controller", "--root-ca-file is required"},
		},
		"unknown controller": {
			args: []string{"--controllers=*,-token-controller"},
			want: []string{`--controllers: "-token-controller" is not a controller`},
		},
		"no way to the API server": {
			args: []string{"--controllers=serviceaccount-controller"},
			want: []string{"--kubeconfig is required outside a cluster"},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			args := append([]string{"controllers", "--metrics-bind-address=0", "--health-probe-bind-address=0"}, tt.args...)
			out, err := exec.CommandContext(t.Context(), shared.binary, args...).CombinedOutput()
			if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 1 {
				t.Errorf("exit: %v, want 1", err)
			}
			for _, want := range tt.want {
				if !strings.Contains(string(out), want) {
					t.Errorf("output has no %q:\n%s", want, out)
				}
			}
		})
	}
}

func TestServerThatCannotBeReachedIsWaitedFor(t *testing.T) {
	p := newControlPlane(t)
	must(t, p.KillServer())
	s := startSakeeper(t, p.sakeeperArgs(t))
	eventually(t, "the log says that it waits", func(context.Context) error {
		if strings.Contains(s.Logs(), "Waiting for the API server") {
			return nil
		}
		return errors.New("nothing yet")
	})
	eventually(t, "alive and not ready", func(ctx context.Context) error {
		live, _, err1 := s.Get(ctx, "/livez")
		ready, why, err2 := s.Get(ctx, "/readyz")
		if live != http.StatusOK || ready != http.StatusServiceUnavailable || !strings.Contains(why, "API server has not answered") {
			return errors.Join(err1, err2, fmt.Errorf("livez %d, readyz %d: %s", live, ready, why))
		}
		return nil
	})
	must(t, p.StartServer(t.Context()))
	must(t, s.WaitReady(t.Context()))
	expectAccount(t, p.client, "default", "default")
}

func TestOneOfTwoLeadsAndTheOtherTakesOverWhenItStops(t *testing.T) {
	p := newControlPlane(t)
	first := startReadySakeeper(t, p.sakeeperArgs(t))
	expectMetric(t, first, `leader_election_master_status{name="sakeeper-controllers"} 1`)
	second := startReadySakeeper(t, p.sakeeperArgs(t)) // a standby is ready too
	mark := mustMark(t, p.ControlPlane)
	namespace := newNamespace(t, p.client)
	expectRootCA(t, p.client, namespace, p.Admin.CAData)
	want := map[string]int{"create serviceaccounts": 1, "create configmaps": 1}
	if diff := cmp.Diff(want, controlplane.Count(requests(t, p.ControlPlane, mark, namespace))); diff != "" {
		t.Errorf("requests of both (-want +got):\n%s", diff)
	}

	holder := func() string {
		lease, err := p.client.CoordinationV1().Leases(controlplane.Namespace).Get(t.Context(), "sakeeper-controllers", metav1.GetOptions{})
		must(t, err)
		return ptr.Deref(lease.Spec.HolderIdentity, "")
	}
	stopped, before := time.Now(), holder()
	must(t, first.Signal(syscall.SIGTERM))
	if err := first.Wait(); err != nil {
		t.Errorf("graceful stop: %v", err)
	}
	if after := holder(); after == before {
		t.Errorf("the lease is still held by %q, who has stopped", after)
	}
	newNamespace(t, p.client)
	t.Logf("the next default service account appeared %v after the stop", time.Since(stopped))

	must(t, second.Signal(syscall.SIGTERM))
	if err := second.Wait(); err != nil {
		t.Errorf("graceful stop: %v", err)
	}
	if last := holder(); last != "" {
		t.Errorf("the lease is still held by %q", last)
	}
}

func TestMetricsAndProbes(t *testing.T) {
	t.Parallel()
	newNamespace(t, shared.client)
	_, metrics, err := shared.sakeeper.Get(t.Context(), "/metrics")
	must(t, err)
	for _, want := range []string{
		"sakeeper_build_info{", "sakeeper_key_info{", "sakeeper_sync_duration_seconds_count{", "sakeeper_failing_keys{",
		`workqueue_adds_total{name="serviceaccount-controller"}`, "rest_client_requests_total{", "leader_election_master_status{",
		"go_goroutines", "process_resident_memory_bytes",
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("/metrics has no %s", want)
		}
	}
	for _, path := range []string{"/livez", "/readyz"} {
		if code, body, err := shared.sakeeper.Get(t.Context(), path); code != http.StatusOK || err != nil {
			t.Errorf("%s: %d %s %v", path, code, body, err)
		}
	}
}
