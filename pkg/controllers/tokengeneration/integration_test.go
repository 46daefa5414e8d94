package tokengeneration

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane/controlplanetest"
)

func TestWithARealAPIServer(t *testing.T) {
	p := newControlPlane(t)
	t.Run("each account gets a token with three requests", p.testAll)
	t.Run("labelled accounts get a token, others none", p.testLabelled)
	t.Run("a token that was deleted is replaced under another name", p.testDeleted)
	t.Run("a process that is killed between its two writes causes no second token", p.testKilled)
	t.Run("a token that was deleted after such a kill does not come back", p.testKilledAndDeleted)
	t.Run("a rejected reference leaves no secret", p.testRejected)
}

func (p controlPlane) testAll(t *testing.T) {
	defer p.start(t, ModeAll, unchanged)()
	mark, err := p.Audit.Mark(t.Context())
	must(t, err)
	var want []string
	for range 5 {
		namespace := p.newNamespace(t, nil)
		p.expectToken(t, namespace, "default")
		want = append(want, namespace+" list secrets", namespace+" create secrets", namespace+" patch serviceaccounts")
	}
	requests, err := p.Audit.Since(t.Context(), mark, func(r controlplane.Request) bool {
		return r.User.Username == generator && r.Object.Namespace != "" && r.Verb != "watch"
	})
	must(t, err)
	var got []string
	for _, r := range requests {
		got = append(got, r.Object.Namespace+" "+r.Verb+" "+r.Object.Resource)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}

func (p controlPlane) testLabelled(t *testing.T) {
	defer p.start(t, ModeLabelled, unchanged)()
	yes, no := map[string]string{api.AutoTokenLabel: "true"}, map[string]string{api.AutoTokenLabel: "false"}
	unlabelled, enabled := p.newNamespace(t, nil), p.newNamespace(t, yes)
	p.newAccount(t, unlabelled, "enabled", yes)
	p.newAccount(t, enabled, "disabled", no)
	p.newAccount(t, enabled, "last", nil)
	p.expectToken(t, unlabelled, "enabled")
	p.expectToken(t, enabled, "default")
	p.expectToken(t, enabled, "last")
	for _, account := range [][2]string{{unlabelled, "default"}, {enabled, "disabled"}} {
		if secrets, err := p.tokens(t.Context(), account[0], account[1]); err != nil || len(secrets) > 0 {
			t.Errorf("%v has %d tokens, %v", account, len(secrets), err)
		}
	}
}

func (p controlPlane) testDeleted(t *testing.T) {
	stop := p.start(t, ModeAll, unchanged)
	namespace := p.newNamespace(t, nil)
	first := p.expectToken(t, namespace, "default")
	p.delete(t, first)
	second := p.expectToken(t, namespace, "default")
	stop()
	p.delete(t, second) // while no controller runs
	defer p.start(t, ModeAll, unchanged)()
	third := p.expectToken(t, namespace, "default")
	if first.Name == second.Name || second.Name == third.Name || first.Name == third.Name {
		t.Errorf("names %s, %s, %s", first.Name, second.Name, third.Name)
	}
	p.expectUser(t, first, "")
	p.expectUser(t, second, "")
}

// patchless fails every patch of a ServiceAccount.
type patchless struct{ http.RoundTripper }

func (r patchless) RoundTrip(request *http.Request) (*http.Response, error) {
	if request.Method == http.MethodPatch && strings.Contains(request.URL.Path, "/serviceaccounts/") {
		return nil, errBoom
	}
	return r.RoundTripper.RoundTrip(request)
}

// kill runs a process that ends before its second write, and returns the Secret that it
// leaves.
func (p controlPlane) kill(t *testing.T) corev1.Secret {
	t.Helper()
	stop := p.start(t, ModeAll, func(config *rest.Config) {
		config.Wrap(func(rt http.RoundTripper) http.RoundTripper { return patchless{rt} })
	})
	defer stop()
	namespace := p.newNamespace(t, nil)
	var created []corev1.Secret
	controlplanetest.Eventually(t, "the first write", func(ctx context.Context) (err error) {
		if created, err = p.tokens(ctx, namespace, "default"); len(created) == 0 {
			return errors.Join(err, errors.New("no secret yet"))
		}
		return err
	})
	return created[0]
}

func (p controlPlane) testKilled(t *testing.T) {
	left := p.kill(t)
	defer p.start(t, ModeAll, unchanged)()
	if secret := p.expectToken(t, left.Namespace, "default"); secret.UID != left.UID {
		t.Errorf("%s is not the secret %s that was created first", secret.Name, left.Name)
	}
}

func (p controlPlane) testKilledAndDeleted(t *testing.T) {
	left := p.kill(t)
	p.delete(t, &left)
	defer p.start(t, ModeAll, unchanged)()
	if secret := p.expectToken(t, left.Namespace, "default"); secret.Name == left.Name || string(secret.Data["token"]) == string(left.Data["token"]) {
		t.Errorf("%s is back", secret.Name)
	}
}

// testRejected removes the permission to patch for a while.
func (p controlPlane) testRejected(t *testing.T) {
	roles := p.Client.RbacV1().ClusterRoles()
	role, err := roles.Get(t.Context(), generator, metav1.GetOptions{})
	must(t, err)
	with, without := role.Rules, []rbacv1.PolicyRule{}
	for _, rule := range with {
		rule.Verbs = slices.DeleteFunc(slices.Clone(rule.Verbs), func(verb string) bool { return verb == "patch" })
		without = append(without, rule)
	}
	setRules := func(rules []rbacv1.PolicyRule) {
		t.Helper()
		role.Rules = rules
		role, err = roles.Update(t.Context(), role, metav1.UpdateOptions{})
		must(t, err)
	}
	setRules(without)
	defer p.start(t, ModeAll, unchanged)()
	mark, err := p.Audit.Mark(t.Context())
	must(t, err)
	namespace := p.newNamespace(t, nil)
	controlplanetest.Eventually(t, "rejections", func(ctx context.Context) error {
		rejected, err := p.Audit.Since(ctx, mark, func(r controlplane.Request) bool {
			return r.User.Username == generator && r.Object.Namespace == namespace && r.Verb == "patch" && r.Response.Code == http.StatusForbidden
		})
		if len(rejected) < 3 {
			return errors.Join(err, fmt.Errorf("%d so far", len(rejected)))
		}
		return err
	})
	requests, err := p.Audit.Since(t.Context(), mark, func(r controlplane.Request) bool {
		return r.User.Username == generator && r.Object.Namespace == namespace && r.Object.Resource == "secrets" && r.Verb != "list"
	})
	must(t, err)
	if diff := cmp.Diff(map[string]int{"create secrets": 1, "delete secrets": 1}, controlplane.Count(requests)); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
	if secrets, err := p.tokens(t.Context(), namespace, "default"); err != nil || len(secrets) > 0 {
		t.Errorf("there are %d secrets, %v", len(secrets), err)
	}
	setRules(with)
	p.expectToken(t, namespace, "default")
}
