package e2e

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
)

// The figures of a truce.
const (
	undoneWrites     = 5
	contendedObjects = 20
)

// TestLongTwinWithAnotherCAIsNotFought runs in steps, each on what the one before
// left. The in-tree token controller undoes each change of ca.crt too.
func TestLongTwinWithAnotherCAIsNotFought(t *testing.T) {
	const few, many = 3, 30
	p := newPlane(t)
	s := startReadySakeeper(t, p.sakeeperArgs(t))
	populate(t, p, 0, few, few)
	before := withoutCA(t, tokenSecrets(t, p))
	theirs := append(mustCACertificate(t, "theirs"), p.Admin.CAData...)
	mustStartTwin(t, p, theirs)

	t.Run("each object is left alone after five writes", func(t *testing.T) {
		expectMetric(t, s, contended("configmaps", few+namespacesAtFirst))
		expectMetric(t, s, contended("secrets", few))
		expectLeftAlone(t, p, "ConfigMap", "This object is", few+namespacesAtFirst)
		expectLeftAlone(t, p, "Secret", "This object is", few)
		expectEverywhere(t, p, theirs)
		// The first write of a config map was the one that created it.
		want := map[string]int{"create configmaps": few + namespacesAtFirst, "update configmaps": (undoneWrites - 1) * (few + namespacesAtFirst), "patch secrets": undoneWrites * few}
		if diff := cmp.Diff(want, controlplane.Count(contents(t, p))); diff != "" {
			t.Errorf("writes (-want +got):\n%s", diff)
		}
	})

	t.Run("the kind is left alone after twenty objects", func(t *testing.T) {
		populate(t, p, few, many-few, many-few)
		expectLeftAlone(t, p, "ConfigMap", "All objects of this kind are", 1)
		expectLeftAlone(t, p, "Secret", "All objects of this kind are", 1)
		expectEverywhere(t, p, theirs)
	})

	t.Run("everything else is still done", func(t *testing.T) {
		const namespace = "newcomer"
		_, err := p.client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{})
		must(t, err)
		account := expectAccount(t, p.client, namespace, "default")
		expectRootCA(t, p.client, namespace, theirs)
		mustCreateSecret(t, p.client, namespace, tokenSecret("token", "default"))
		filled := expectFilled(t, p.client, namespace, "token", account, theirs)
		expectUser(t, p.ControlPlane, filled, "system:serviceaccount:"+namespace+":default")

		must(t, p.client.CoreV1().ServiceAccounts(namespace).Delete(t.Context(), "default", metav1.DeleteOptions{}))
		expectGone(t, p.client, namespace, "token")
		again := expectAccount(t, p.client, namespace, "default")
		if again.UID == account.UID {
			t.Error("the account was never gone")
		}
		got := controlplane.Count(requests(t, p.ControlPlane, 0, namespace))
		if got["create serviceaccounts"] != 2 || got["create configmaps"] != 0 || got["update configmaps"] != 0 || got["patch configmaps"] != 0 || got["update secrets"] != 0 || got["patch secrets"] != 0 {
			t.Errorf("requests for a new namespace: %v", got)
		}
	})

	expectFewWrites(t, p)
	after := withoutCA(t, tokenSecrets(t, p))
	for name, secret := range before {
		if diff := cmp.Diff(secret, after[name]); diff != "" {
			t.Errorf("more than ca.crt of secret %s changed (-want +got):\n%s", name, diff)
		}
	}
}

// mustStartTwin runs the in-tree controllers with the same key and another CA.
func mustStartTwin(t *testing.T, p plane, ca []byte) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "theirs.crt")
	must(t, os.WriteFile(file, ca, 0o600))
	mustStartManager(t, p, controlplane.ControllerManager{
		Controllers: []string{"root-ca-certificate-publisher-controller"}, SigningKey: true, RootCAFile: file,
	})
}

func contended(kind string, n int) string {
	return fmt.Sprintf("sakeeper_contended_objects{kind=%q} %d", kind, n)
}

// expectLeftAlone waits for warnings on n objects of the kind that say that, and
// fails on an object that has more than one.
func expectLeftAlone(t *testing.T, p plane, kind, what string, n int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d events on a %s: %s left alone", n, kind, what), func(ctx context.Context) error {
		events, err := p.client.CoreV1().Events("").List(ctx, metav1.ListOptions{FieldSelector: "reason=" + api.ReasonLeftAlone + ",involvedObject.kind=" + kind})
		if err != nil {
			return err
		}
		objects := map[string]int{}
		for _, event := range events.Items {
			if event.Type == corev1.EventTypeWarning && strings.Contains(event.Message, what+" left alone") {
				objects[event.InvolvedObject.Namespace+"/"+event.InvolvedObject.Name] += int(event.Count)
			}
		}
		for object, told := range objects {
			if told > 1 {
				t.Errorf("%s %s: told %d times", kind, object, told)
			}
		}
		if len(objects) != n {
			return fmt.Errorf("%d objects have one", len(objects))
		}
		return nil
	})
}

// contents are sakeeper's writes, since ever, of what the twin writes too, but for
// those that fill a Secret.
func contents(t *testing.T, p plane) []controlplane.Request {
	t.Helper()
	var found []controlplane.Request
	for _, r := range requests(t, p.ControlPlane, 0, "") {
		what := r.Verb + " " + r.Object.Resource
		if slices.Contains([]string{"create configmaps", "update configmaps", "patch configmaps", "patch secrets"}, what) && r.Response.Code < http.StatusMultipleChoices {
			found = append(found, r)
		}
	}
	return found
}

// expectFewWrites looks at the whole life of the plane.
func expectFewWrites(t *testing.T, p plane) {
	t.Helper()
	writes := map[string]map[string]int{"configmaps": {}, "secrets": {}}
	for _, r := range contents(t, p) {
		writes[r.Object.Resource][r.Object.Namespace+"/"+r.Object.Name]++
	}
	for kind, objects := range writes {
		full, total := 0, 0
		for object, n := range objects {
			total += n
			if n > undoneWrites {
				t.Errorf("%d writes of %s %s", n, kind, object)
			}
			if n == undoneWrites {
				full++
			}
		}
		t.Logf("%d writes of %d %s, of which %d were written %d times", total, len(objects), kind, full, undoneWrites)
		if full < contendedObjects {
			t.Errorf("%d %s were contended, want %d at least", full, kind, contendedObjects)
		}
	}
}
