package e2e

import (
	"context"
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
)

// TestLongAThousandCopies counts what a change of a source costs, and prints how long its copies take
// to follow.
func TestLongAThousandCopies(t *testing.T) {
	const n = 1000
	p := newControlPlane(t)
	must(t, p.Install(t.Context(), "account-templates", "pull-secret-copies"))
	makePullSecretSource(t, p, "first")
	for i := range n {
		mustCreateNamespace(t, p, fmt.Sprint("n-", i), nil)
	}
	applyPullSecretExample(t, p)
	start := time.Now()
	startReadySakeeper(t, pullSecretArgs(t, p))
	took := expectCopies(t, p, n, "first", start)
	t.Logf("%d copies were made within %v of the start", n, took)

	mark, start := mustMark(t, p.ControlPlane), time.Now()
	changePullSecretSource(t, p, "second")
	took = expectCopies(t, p, n, "second", start)
	got := controlplane.Count(requests(t, p.ControlPlane, mark, ""))
	t.Logf("%d copies followed their source within %v: %v", n, took, got)
	if copies := got["patch secrets"]; copies < n || copies > n+n/10 || got["get secrets"] > n/10 || got["create secrets"]+got["delete secrets"] > 0 {
		t.Errorf("requests after a change of the source: %v", got)
	}
}

// expectCopies waits until n namespaces and more have the password.
func expectCopies(t *testing.T, p controlPlane, n int, password string, start time.Time) time.Duration {
	t.Helper()
	eventually(t, "copies with "+password, func(ctx context.Context) error {
		list, err := p.client.CoreV1().Secrets("").List(ctx, metav1.ListOptions{LabelSelector: "sakeeper.io/pull-secret=copy", ResourceVersion: "0"})
		if err != nil {
			return err
		}
		done, want := 0, string(dockerConfig(password)[corev1.DockerConfigJsonKey])
		for _, secret := range list.Items {
			if string(secret.Data[corev1.DockerConfigJsonKey]) == want {
				done++
			}
		}
		if done < n {
			return fmt.Errorf("%d of %d", done, len(list.Items))
		}
		return nil
	})
	return time.Since(start)
}
