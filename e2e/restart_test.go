package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
)

func TestRestartOnThousandRightNamespacesAndSecretsWritesNothing(t *testing.T) {
	// The namespaces that the API server creates, and that of sakeeper.
	const n, others = 1000, 5
	p := newControlPlane(t)
	s := startReadySakeeper(t, p.sakeeperArgs(t))
	namespace := func(i int) string { return fmt.Sprintf("n%04d", i) }
	forEach(t, n, func(ctx context.Context, i int) error {
		_, err := p.client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace(i)}}, metav1.CreateOptions{})
		return err
	})
	expectAccount(t, p.client, namespace(n-1), "default")
	eventually(t, "every default service account", func(ctx context.Context) error {
		accounts, err := p.client.CoreV1().ServiceAccounts("").List(ctx, metav1.ListOptions{})
		if err == nil && len(accounts.Items) < n+others {
			return fmt.Errorf("%d of %d", len(accounts.Items), n+others)
		}
		return err
	})
	forEach(t, n, func(ctx context.Context, i int) error {
		_, err := p.client.CoreV1().Secrets(namespace(i)).Create(ctx, tokenSecret("token", "default"), metav1.CreateOptions{})
		return err
	})
	eventually(t, "every secret and config map", func(ctx context.Context) error {
		secrets, err1 := p.client.CoreV1().Secrets("").List(ctx, metav1.ListOptions{})
		configMaps, err2 := p.client.CoreV1().ConfigMaps("").List(ctx, metav1.ListOptions{FieldSelector: "metadata.name=kube-root-ca.crt"})
		if err := errors.Join(err1, err2); err != nil {
			return err
		}
		filled := 0
		for _, secret := range secrets.Items {
			if len(secret.Data["token"]) > 0 {
				filled++
			}
		}
		if filled < n || len(configMaps.Items) < n+others {
			return fmt.Errorf("%d secrets are filled, %d config maps exist", filled, len(configMaps.Items))
		}
		return nil
	})
	// An API server that has just started does not have all roles at once.
	got := controlplane.Count(slices.DeleteFunc(requests(t, p.ControlPlane, 0, ""), isForbidden))
	t.Logf("requests for %d namespaces with a secret each, and %d without: %v", n, others, got)
	if got["create serviceaccounts"] != n+others || got["create configmaps"] != n+others || got["update secrets"] != n || got["patch secrets"] != 0 {
		t.Errorf("requests = %v, want exactly one per object", got)
	}
	must(t, s.Stop())

	mark := mustMark(t, p.ControlPlane)
	startReadySakeeper(t, p.sakeeperArgs(t))
	for request, count := range controlplane.Count(requests(t, p.ControlPlane, mark, "")) {
		if verb, _, _ := strings.Cut(request, " "); verb != "get" && verb != "list" {
			t.Errorf("%d times %q after a restart on objects that are right", count, request)
		}
	}
}

func isForbidden(r controlplane.Request) bool { return r.Response.Code == http.StatusForbidden }

// forEach runs f for 0 to n-1, some of them concurrently.
func forEach(t *testing.T, n int, f func(ctx context.Context, i int) error) {
	t.Helper()
	group, ctx := errgroup.WithContext(t.Context())
	group.SetLimit(20)
	for i := range n {
		group.Go(func() error { return f(ctx, i) })
	}
	must(t, group.Wait())
}

// past are the changes of a cluster while sakeeper does not run or is cut off.
type past struct {
	p         controlPlane
	namespace string
	keeper    *corev1.ServiceAccount
}

// newPast creates a namespace with all objects that happen changes.
func newPast(t *testing.T, p controlPlane) past {
	t.Helper()
	h := past{p: p, namespace: newNamespace(t, p.client)}
	expectRootCA(t, p.client, h.namespace, p.Admin.CAData)
	for _, name := range []string{"leaver", "twin"} {
		account := mustCreateAccount(t, p.client, h.namespace, name)
		mustCreateSecret(t, p.client, h.namespace, tokenSecret("of-"+name, name))
		expectFilled(t, p.client, h.namespace, "of-"+name, account, p.Admin.CAData)
	}
	h.keeper = mustCreateAccount(t, p.client, h.namespace, "keeper")
	for _, name := range []string{"keeper-token-bcdfg", "keeper-token-hjklm", "named", "broken"} {
		mustCreateSecret(t, p.client, h.namespace, tokenSecret(name, "keeper"))
		expectFilled(t, p.client, h.namespace, name, h.keeper, p.Admin.CAData)
	}
	h.keeper.Secrets = []corev1.ObjectReference{{Name: "keeper-token-bcdfg"}, {Name: "keeper-token-hjklm"}, {Name: "named"}}
	_, err := p.client.CoreV1().ServiceAccounts(h.namespace).Update(t.Context(), h.keeper, metav1.UpdateOptions{})
	must(t, err)
	return h
}

// happen makes all changes.
func (h past) happen(t *testing.T) {
	t.Helper()
	core := h.p.client.CoreV1()
	must(t, core.ServiceAccounts(h.namespace).Delete(t.Context(), "leaver", metav1.DeleteOptions{}))
	must(t, core.ServiceAccounts(h.namespace).Delete(t.Context(), "default", metav1.DeleteOptions{}))
	must(t, core.ServiceAccounts(h.namespace).Delete(t.Context(), "twin", metav1.DeleteOptions{}))
	mustCreateAccount(t, h.p.client, h.namespace, "twin")
	must(t, core.ConfigMaps(h.namespace).Delete(t.Context(), "kube-root-ca.crt", metav1.DeleteOptions{}))
	must(t, core.Secrets(h.namespace).Delete(t.Context(), "keeper-token-bcdfg", metav1.DeleteOptions{}))
	must(t, core.Secrets(h.namespace).Delete(t.Context(), "named", metav1.DeleteOptions{}))
	broken, err := core.Secrets(h.namespace).Get(t.Context(), "broken", metav1.GetOptions{})
	must(t, err)
	broken.Data["ca.crt"] = []byte("wrong")
	_, err = core.Secrets(h.namespace).Update(t.Context(), broken, metav1.UpdateOptions{})
	must(t, err)
	mustCreateSecret(t, h.p.client, h.namespace, tokenSecret("late", "keeper"))
}

// expectMended waits until all objects are as expected again; references are those that the
// account keeper must have in the end.
func (h past) expectMended(t *testing.T, references ...string) {
	t.Helper()
	client, ca := h.p.client, h.p.Admin.CAData
	expectAccount(t, client, h.namespace, "default")
	expectRootCA(t, client, h.namespace, ca)
	expectGone(t, client, h.namespace, "of-leaver")
	expectGone(t, client, h.namespace, "of-twin")
	expectFilled(t, client, h.namespace, "broken", h.keeper, ca)
	expectFilled(t, client, h.namespace, "late", h.keeper, ca)
	expectReferences(t, client, h.namespace, "keeper", references...)
}

func TestWhatHappenedWhileNoControllerRanIsMended(t *testing.T) {
	p := newControlPlane(t)
	s := startReadySakeeper(t, p.sakeeperArgs(t))
	h := newPast(t, p)
	must(t, s.Stop())
	h.happen(t)
	startReadySakeeper(t, p.sakeeperArgs(t))
	// "named" may exist later: without an event, only references with generated names are removed.
	h.expectMended(t, "keeper-token-hjklm", "named")
}

func TestDeletionsThatOnlyTombstonesTellAreMended(t *testing.T) {
	p := newControlPlane(t)
	s := startReadySakeeper(t, p.sakeeperArgs(t, "--leader-elect=false", "-v=4"))
	h := newPast(t, p)
	// A restarted API server has no watch events from before its start, so the watches that
	// sakeeper resumes after its pause are refused as too old. The first restart breaks its
	// connections, whose buffers would have events for it.
	must(t, s.Signal(syscall.SIGSTOP))
	must(t, p.KillServer())
	must(t, p.StartServer(t.Context()))
	h.happen(t)
	must(t, p.KillServer())
	must(t, p.StartServer(t.Context()))
	must(t, s.Signal(syscall.SIGCONT))
	h.expectMended(t, "keeper-token-hjklm")
	for _, kind := range []string{"*v1.Secret", "*v1.ServiceAccount"} {
		if logs := s.Logs(); !strings.Contains(logs, "too old resource version") || !strings.Contains(logs, kind) {
			t.Errorf("no watch of %s was refused as too old: the test did not test tombstones", kind)
		}
	}
}
