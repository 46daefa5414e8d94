package e2e

import (
	"context"
	"fmt"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/utils/ptr"

	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
)

// TestAStandbyTakesOver stops and kills leaders, with Leases that last 3 s. A warm standby has its
// caches filled: it reads nothing again.
func TestAStandbyTakesOver(t *testing.T) {
	t.Parallel()
	p := newControlPlane(t)
	replica := func() *controlplane.Sakeeper {
		return startReadySakeeper(t, p.sakeeperArgs(t, "--leader-elect-lease-duration=3s", "--leader-elect-renew-deadline=2s", "--leader-elect-retry-period=1s"))
	}
	leader := replica()
	newNamespace(t, p.client)
	for i, how := range []struct {
		name string
		end  func(*controlplane.Sakeeper) error
	}{
		{"a stop", (*controlplane.Sakeeper).Stop},
		{"a kill", func(s *controlplane.Sakeeper) error {
			err := s.Signal(syscall.SIGKILL)
			_ = s.Wait() // it ends with the signal
			return err
		}},
	} {
		holder := ptr.Deref(mustLease(t, p).Spec.HolderIdentity, "")
		standby := replica()
		expectWatches(t, p, "serviceaccounts", i+2)
		mark := mustMark(t, p.ControlPlane)
		must(t, how.end(leader))
		began := time.Now()
		namespace, err := p.client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "t-" + rand.String(8)}}, metav1.CreateOptions{})
		must(t, err)
		expectAccount(t, p.client, namespace.Name, "default")
		t.Logf("after %s, the next namespace has its account in %v", how.name, time.Since(began).Round(time.Millisecond))
		if got := ptr.Deref(mustLease(t, p).Spec.HolderIdentity, ""); got == holder || got == "" {
			t.Errorf("after %s, the holder is %q", how.name, got)
		}
		for _, r := range sakeeperReads(t, p, mark) {
			t.Errorf("after %s: %s %s", how.name, r.Verb, r.URI)
		}
		leader = standby
	}
}

// sakeeperReads are the lists and new watches of what a standby has cached.
func sakeeperReads(t *testing.T, p controlPlane, mark controlplane.Mark) []controlplane.Request {
	t.Helper()
	found, err := p.Audit.Since(t.Context(), mark, func(r controlplane.Request) bool {
		cached := r.Object.Resource == "namespaces" || r.Object.Resource == "serviceaccounts"
		return r.User.Username == controlplane.Username && cached && (r.Verb == "list" || r.Verb == "watch") && r.Stage != "ResponseComplete"
	})
	must(t, err)
	return found
}

// expectWatches waits until as many watches of a resource have begun since the control plane started.
func expectWatches(t *testing.T, p controlPlane, resource string, want int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d watches of %s", want, resource), func(context.Context) error {
		got := 0
		for _, r := range sakeeperReads(t, p, 0) {
			if r.Verb == "watch" && r.Object.Resource == resource {
				got++
			}
		}
		if got < want {
			return fmt.Errorf("there are %d", got)
		}
		return nil
	})
}
