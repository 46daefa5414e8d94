package e2e

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/sakeeper/sakeeper/pkg/api"
)

func mustLease(t *testing.T, p controlPlane) *coordinationv1.Lease {
	t.Helper()
	lease, err := p.client.CoordinationV1().Leases("sakeeper-system").Get(t.Context(), api.ControllersLease, metav1.GetOptions{})
	must(t, err)
	return lease
}

// TestLongAFrozenLeaderWritesNothing: a leader is frozen until a standby has taken the Lease. When
// it goes on, it has an object to make, and must leave it, and end.
func TestLongAFrozenLeaderWritesNothing(t *testing.T) {
	p := newControlPlane(t)
	first := startReadySakeeper(t, p.sakeeperArgs(t))
	expectMetric(t, first, `leader_election_master_status{name="sakeeper-controllers"} 1`)
	holder := ptr.Deref(mustLease(t, p).Spec.HolderIdentity, "")
	// The standby makes no root CA, so that all of them are the first one's.
	startReadySakeeper(t, p.sakeeperArgs(t, "--controllers=*,-root-ca-certificate-publisher-controller"))
	must(t, first.Signal(syscall.SIGSTOP))
	eventually(t, "another holder", func(context.Context) error {
		if got := ptr.Deref(mustLease(t, p).Spec.HolderIdentity, ""); got == holder {
			return fmt.Errorf("the holder is %q", got)
		}
		return nil
	})
	must(t, p.client.CoreV1().ConfigMaps("default").Delete(t.Context(), api.RootCAConfigMap, metav1.DeleteOptions{}))
	mark := mustMark(t, p.ControlPlane)
	must(t, first.Signal(syscall.SIGCONT))
	if err := first.Wait(); err == nil {
		t.Error("it ended without an error")
	}
	if !strings.Contains(first.Logs(), "lease lost") {
		t.Error("the log does not say why it ended")
	}
	for _, r := range requests(t, p.ControlPlane, mark, "default") {
		if r.Object.Resource == "configmaps" {
			t.Errorf("%s %s", r.Verb, r.URI)
		}
	}
}

// TestLongAnAPIServerThatIsFrozen for longer than a Lease lasts does not end the leader.
func TestLongAnAPIServerThatIsFrozen(t *testing.T) {
	p := newControlPlane(t)
	s := startReadySakeeper(t, p.sakeeperArgs(t))
	expectMetric(t, s, `leader_election_master_status{name="sakeeper-controllers"} 1`)
	holder := ptr.Deref(mustLease(t, p).Spec.HolderIdentity, "")
	must(t, syscall.Kill(p.ServerPID(), syscall.SIGSTOP))
	time.Sleep(40 * time.Second) // longer than a Lease lasts, which is what is tested
	must(t, syscall.Kill(p.ServerPID(), syscall.SIGCONT))
	newNamespace(t, p.client)
	must(t, s.WaitReady(t.Context()))
	if got := ptr.Deref(mustLease(t, p).Spec.HolderIdentity, ""); got != holder {
		t.Errorf("the holder is %q", got)
	}
	must(t, s.Stop())
}
