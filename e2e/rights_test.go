package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
)

// expectReadyz waits until /readyz has that code, and all of the texts in its body.
func expectReadyz(t *testing.T, s *controlplane.Sakeeper, code int, texts ...string) {
	t.Helper()
	eventually(t, fmt.Sprintf("readyz %d %q", code, texts), func(ctx context.Context) error {
		got, body, err := s.Get(ctx, "/readyz")
		if err == nil && got != code {
			err = fmt.Errorf("code %d: %s", got, body)
		}
		for _, text := range texts {
			if err == nil && !strings.Contains(body, text) {
				err = errors.New(body)
			}
		}
		return err
	})
}

// TestTokenRequestsWithoutTheirRoleAreNotReady: no Secret requests a token, so that the right is not
// used. It may be granted in the served namespaces, or in all.
func TestTokenRequestsWithoutTheirRoleAreNotReady(t *testing.T) {
	p := newControlPlane(t)
	s := startSakeeper(t, p.sakeeperArgs(t, onTokenRequests))
	missing := "the user " + controlplane.Username + " has no right to create serviceaccounts/token"
	const role = "which the role in manifests/rbac/token-request-controller-served has"
	expectReadyz(t, s, http.StatusServiceUnavailable, missing+", "+role)
	expectEventIn(t, p.client, controlplane.Namespace, "sakeeper-controllers", api.ReasonMissingRight)

	namespace := newNamespace(t, p.client)
	serve(t, p, namespace, `"`+api.TokenRequestsAllowed+`"`)
	expectReadyz(t, s, http.StatusServiceUnavailable, missing+" in the namespace "+namespace+", "+role)
	name := metav1.ObjectMeta{Name: "requests"}
	_, err := p.client.RbacV1().ClusterRoles().Create(t.Context(), &rbacv1.ClusterRole{ObjectMeta: name, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"serviceaccounts/token"}, Verbs: []string{"create"}},
	}}, metav1.CreateOptions{})
	must(t, err)
	_, err = p.client.RbacV1().RoleBindings(namespace).Create(t.Context(), &rbacv1.RoleBinding{
		ObjectMeta: name, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name.Name},
		Subjects: []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: controlplane.Namespace, Name: controlplane.Account}},
	}, metav1.CreateOptions{})
	must(t, err)
	expectReadyz(t, s, http.StatusOK)
	must(t, s.Stop())

	must(t, p.client.RbacV1().ClusterRoles().Delete(t.Context(), name.Name, metav1.DeleteOptions{}))
	again := startSakeeper(t, p.sakeeperArgs(t, onTokenRequests))
	expectReadyz(t, again, http.StatusServiceUnavailable, missing)
	must(t, p.Install(t.Context(), "token-requests"))
	expectReadyz(t, again, http.StatusOK)
}

// TestAWebhookWithoutARightSaysSoAndServes: all replicas lack the same right, and no pod could be created
// if all were unready for it.
func TestAWebhookWithoutARightSaysSoAndServes(t *testing.T) {
	p := newControlPlane(t)
	w, err := controlplane.NewWebhook()
	must(t, err)
	must(t, p.InstallWebhook(t.Context(), w))
	roles := p.client.RbacV1().Roles(controlplane.Namespace)
	role, err := roles.Get(t.Context(), "sakeeper:webhook", metav1.GetOptions{})
	must(t, err)
	for i, rule := range role.Rules {
		if rule.Resources[0] == "events" {
			role.Rules[i].Verbs = []string{"patch"}
		}
	}
	_, err = roles.Update(t.Context(), role, metav1.UpdateOptions{})
	must(t, err)
	s := startSakeeper(t, p.webhookArgs(t, w))
	expectReadyz(t, s, http.StatusOK, "[!] rights: missing rights: the user system:serviceaccount:sakeeper-system:sakeeper-webhook has no right to create events in the namespace sakeeper-system, which the role in manifests/rbac/webhook has")
}

// TestControllersThatMayNotRecordEventsAreNotReady: no event can say so.
func TestControllersThatMayNotRecordEventsAreNotReady(t *testing.T) {
	p := newControlPlane(t)
	roles := p.client.RbacV1().ClusterRoles()
	role, err := roles.Get(t.Context(), "sakeeper:controllers", metav1.GetOptions{})
	must(t, err)
	for i, rule := range role.Rules {
		if rule.Resources[0] == "events" {
			role.Rules[i].Verbs = []string{"patch"}
		}
	}
	_, err = roles.Update(t.Context(), role, metav1.UpdateOptions{})
	must(t, err)
	s := startSakeeper(t, p.sakeeperArgs(t)) // it records that it became the leader
	expectReadyz(t, s, http.StatusServiceUnavailable, "has no right to create events", "which the role in manifests/rbac/controllers has")
}
