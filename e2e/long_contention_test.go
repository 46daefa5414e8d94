package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
)

// freeWrites is how often a content is written to an object before writes are delayed: once, and
// five times again.
const freeWrites = 6

// TestLongTwinWithAnotherCACostsFewWrites runs in steps, each on what the one before left. The
// in-tree token controller reverts each change of ca.crt too.
func TestLongTwinWithAnotherCACostsFewWrites(t *testing.T) {
	const few, many = 3, 30
	p := newControlPlane(t)
	s := startReadySakeeper(t, p.sakeeperArgs(t))
	populate(t, p, 0, few, few)
	before := withoutCA(t, tokenSecrets(t, p))
	began := time.Now()
	mustStartTwin(t, p, append(mustCACertificate(t, "theirs"), p.Admin.CAData...))

	t.Run("each object is written ever more slowly", func(t *testing.T) {
		expectMetric(t, s, contended("configmaps", few+namespacesAtFirst))
		expectMetric(t, s, contended("secrets", few))
		expectLeftAlone(t, p, "ConfigMap", few+namespacesAtFirst)
		expectLeftAlone(t, p, "Secret", few)
	})

	t.Run("other objects are written at once, however many are contended", func(t *testing.T) {
		populate(t, p, few, many-few, many-few)
		expectLeftAlone(t, p, "ConfigMap", many+namespacesAtFirst)
		expectLeftAlone(t, p, "Secret", many)
	})

	t.Run("everything else is still done", func(t *testing.T) {
		const namespace = "newcomer"
		_, err := p.client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{})
		must(t, err)
		account := expectAccount(t, p.client, namespace, "default")
		mustCreateSecret(t, p.client, namespace, tokenSecret("token", "default"))
		eventually(t, "a token", func(ctx context.Context) error {
			secret, err := p.client.CoreV1().Secrets(namespace).Get(ctx, "token", metav1.GetOptions{})
			if err == nil && len(secret.Data[corev1.ServiceAccountTokenKey]) == 0 {
				err = errors.New("there is none")
			}
			return err
		})

		must(t, p.client.CoreV1().ServiceAccounts(namespace).Delete(t.Context(), "default", metav1.DeleteOptions{}))
		expectGone(t, p.client, namespace, "token")
		again := expectAccount(t, p.client, namespace, "default")
		if again.UID == account.UID {
			t.Error("the account was never gone")
		}
		if got := controlplane.Count(requests(t, p.ControlPlane, 0, namespace))["create serviceaccounts"]; got != 2 {
			t.Errorf("%d accounts were created, want 2", got)
		}
	})

	expectFewWrites(t, p, time.Since(began))
	after := withoutCA(t, tokenSecrets(t, p))
	for name, secret := range before {
		if diff := cmp.Diff(secret, after[name]); diff != "" {
			t.Errorf("more than ca.crt of secret %s changed (-want +got):\n%s", name, diff)
		}
	}
}

// mustStartTwin runs the in-tree controllers with the same key and another CA.
func mustStartTwin(t *testing.T, p controlPlane, ca []byte) {
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

// expectLeftAlone waits for a warning on each of n objects of the kind, and fails on an object that
// has more than one.
func expectLeftAlone(t *testing.T, p controlPlane, kind string, n int) {
	t.Helper()
	eventually(t, fmt.Sprintf("events on %d objects of kind %s", n, kind), func(ctx context.Context) error {
		events, err := p.client.CoreV1().Events("").List(ctx, metav1.ListOptions{FieldSelector: "reason=" + api.ReasonLeftAlone + ",involvedObject.kind=" + kind})
		if err != nil {
			return err
		}
		objects := map[string]int{}
		for _, event := range events.Items {
			objects[event.InvolvedObject.Namespace+"/"+event.InvolvedObject.Name] += int(event.Count)
		}
		for object, count := range objects {
			if count > 1 {
				t.Errorf("%s %s has %d events", kind, object, count)
			}
		}
		if len(objects) < n {
			return fmt.Errorf("%d objects have one", len(objects))
		}
		return nil
	})
}

// contents are all successful writes of sakeeper that the twin may revert: not those that fill
// a Secret.
func contents(t *testing.T, p controlPlane) []controlplane.Request {
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

// expectFewWrites compares the writes of each object with what the write backoff allows since the twin
// began.
func expectFewWrites(t *testing.T, p controlPlane, since time.Duration) {
	t.Helper()
	most := freeWrites + 1 // the first one that is delayed may be allowed by what came before
	for delay, left := time.Second, since; left >= delay; delay, left = min(2*delay, 5*time.Minute), left-delay {
		most++
	}
	writes := map[string]map[string]int{"configmaps": {}, "secrets": {}}
	for _, r := range contents(t, p) {
		writes[r.Object.Resource][r.Object.Namespace+"/"+r.Object.Name]++
	}
	for kind, objects := range writes {
		contended, total := 0, 0
		for object, n := range objects {
			total += n
			if n > most {
				t.Errorf("%d writes of %s %s in %v, want at most %d", n, kind, object, since, most)
			}
			if n >= freeWrites {
				contended++
			}
		}
		t.Logf("%d writes of %d %s in %v, of which %d were contended", total, len(objects), kind, since.Round(time.Second), contended)
		if contended == 0 {
			t.Errorf("no %s were contended", kind)
		}
	}
}
