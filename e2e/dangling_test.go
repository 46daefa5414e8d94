package e2e

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
)

// TestReferencesAtTheStart: references with generated names whose Secret does not exist are
// removed with one write. Other ones are kept, and counted until their Secret exists or the
// reference is removed.
func TestReferencesAtTheStart(t *testing.T) {
	p := newControlPlane(t)
	const namespace = "default"
	mustCreateAccount(t, p.client, namespace, "keeper", "keeper-token-bcdfg", "keeper-token-hjklm", "named", "opaque", "alive")
	mustCreateAccount(t, p.client, namespace, "other", "named")
	mustCreateSecret(t, p.client, namespace, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "opaque"}})
	mustCreateSecret(t, p.client, namespace, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "keeper-token-hjklm"}})
	mustCreateSecret(t, p.client, namespace, tokenSecret("alive", "keeper"))

	mark := mustMark(t, p.ControlPlane)
	s := startReadySakeeper(t, p.sakeeperArgs(t))
	expectReferences(t, p.client, namespace, "keeper", "keeper-token-hjklm", "named", "opaque", "alive")
	expectReferences(t, p.client, namespace, "other", "named")
	expectMetric(t, s, "sakeeper_dangling_references 2")
	// An API server that has just started does not have all roles at once.
	if got := controlplane.Count(slices.DeleteFunc(requests(t, p.ControlPlane, mark, namespace), isForbidden)); got["patch serviceaccounts"] != 1 {
		t.Errorf("requests: %v, want one patch of an account", got)
	}

	must(t, p.client.CoreV1().ServiceAccounts(namespace).Delete(t.Context(), "other", metav1.DeleteOptions{}))
	expectMetric(t, s, "sakeeper_dangling_references 1")
	account := expectAccount(t, p.client, namespace, "keeper")
	account.Secrets = []corev1.ObjectReference{{Name: "alive"}}
	_, err := p.client.CoreV1().ServiceAccounts(namespace).Update(t.Context(), account, metav1.UpdateOptions{})
	must(t, err)
	expectMetric(t, s, "sakeeper_dangling_references 0")
	expectReferences(t, p.client, namespace, "keeper", "alive")
}
