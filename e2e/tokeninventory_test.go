package e2e

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
)

// expectTokenMetric waits until a metric of tokens begins with text.
func expectTokenMetric(t *testing.T, s *controlplane.Sakeeper, text string) {
	t.Helper()
	eventually(t, text, func(ctx context.Context) error {
		_, metrics, err := s.Get(ctx, "/metrics")
		if err == nil && !strings.Contains(metrics, "\n"+text) {
			_, found, _ := strings.Cut(metrics, "# HELP sakeeper_long_lived_tokens ")
			found, _, _ = strings.Cut(found, "# HELP")
			err = errors.New("the metrics are " + found)
		}
		return err
	})
}

// TestTokensThatCanBecomeClusterAdminAreCounted, with the rights of the component; without them their
// reach is unknown, and readiness and an event say why.
func TestTokensThatCanBecomeClusterAdminAreCounted(t *testing.T) {
	p := newControlPlane(t)
	const namespace = "team"
	_, err := p.client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{})
	must(t, err)
	account := mustCreateAccount(t, p.client, namespace, "root")
	_, err = p.client.RbacV1().ClusterRoleBindings().Create(t.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "root"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cluster-admin"},
		Subjects: []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: namespace, Name: "root"}},
	}, metav1.CreateOptions{})
	must(t, err)
	secret := tokenSecret("token", "root")
	secret.Annotations[corev1.ServiceAccountUIDKey] = string(account.UID)
	secret.Data = map[string][]byte{corev1.ServiceAccountTokenKey: []byte("made up")} // so that a token is there at the first pass
	_, err = p.client.CoreV1().Secrets(namespace).Create(t.Context(), secret, metav1.CreateOptions{})
	must(t, err)

	s := startSakeeper(t, p.sakeeperArgs(t, "--inventory-interval=1h"))
	expectTokenMetric(t, s, `sakeeper_long_lived_tokens{kind="legacy",reach="unknown",verdict="`)
	expectReadyz(t, s, http.StatusServiceUnavailable, "has no right to list clusterroles.rbac.authorization.k8s.io, which the role in manifests/rbac/token-inventory-controller has")
	expectEventIn(t, p.client, controlplane.Namespace, "sakeeper-controllers", api.ReasonMissingRight)
	must(t, s.Stop())

	must(t, p.Install(t.Context(), "token-inventory"))
	must(t, p.client.CoreV1().Secrets(namespace).Delete(t.Context(), "token", metav1.DeleteOptions{}))
	_, err = p.client.CoreV1().Secrets(namespace).Create(t.Context(), tokenSecret("token", "root"), metav1.CreateOptions{})
	must(t, err)
	again := startSakeeper(t, p.sakeeperArgs(t, "--inventory-interval=1s"))
	expectTokenMetric(t, again, `sakeeper_long_lived_tokens{kind="legacy",reach="cluster-admin",verdict="never expires"} 1`)
	expectTokenMetric(t, again, "sakeeper_token_inventory_last_pass_timestamp_seconds ")
	expectReadyz(t, again, http.StatusOK)
	must(t, p.client.RbacV1().ClusterRoleBindings().Delete(t.Context(), "root", metav1.DeleteOptions{}))
	expectTokenMetric(t, again, `sakeeper_long_lived_tokens{kind="legacy",reach="nothing",verdict="never expires"} 1`)
}
