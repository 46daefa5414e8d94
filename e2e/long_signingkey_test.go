package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/controllers/tokensecret"
	"github.com/sakeeper/sakeeper/pkg/keys"
	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
	"github.com/sakeeper/sakeeper/pkg/testkit/faults"
	"github.com/sakeeper/sakeeper/pkg/token"
)

// keyCheck is a control plane with token Secrets of the ServiceAccount default/builder, which are
// filled only while the API server publishes the signing key.
type keyCheck struct {
	controlPlane

	key keys.PrivateKey // one that the API server publishes
	// moreKeys is another key file of the API server.
	moreKeys string
	secrets  int // number of Secrets so far
}

// want creates n more Secrets.
func (k *keyCheck) want(t *testing.T, n int) {
	t.Helper()
	forEach(t, n, func(ctx context.Context, i int) error {
		_, err := k.client.CoreV1().Secrets("default").Create(ctx, tokenSecret(fmt.Sprintf("s%03d", k.secrets+i), "builder"), metav1.CreateOptions{})
		return err
	})
	k.secrets += n
}

// expectAllGood waits until every Secret has a token of key, or of the keys from before, and the
// process is ready.
func (k *keyCheck) expectAllGood(t *testing.T, s *controlplane.Sakeeper, more ...keys.PrivateKey) {
	t.Helper()
	var verification []keys.PublicKey
	for _, key := range more {
		verification = append(verification, key.PublicKey())
	}
	set := keys.NewSet(k.key, verification...)
	verifier := token.NewVerifier(func() *keys.Set { return set })
	eventually(t, "every secret", func(context.Context) error {
		for name, secret := range tokenSecrets(t, k.controlPlane) {
			if _, err := verifier.VerifyLegacy(string(secret.Data[corev1.ServiceAccountTokenKey])); err != nil {
				return fmt.Errorf("secret %s: %w", name, err)
			}
		}
		return nil
	})
	must(t, s.WaitReady(t.Context()))
}

// expectNothingSpent: since mark, written Secrets were filled, and no token was reviewed or signed
// anew. An API server that has just started refuses writes.
func (k *keyCheck) expectNothingSpent(t *testing.T, mark controlplane.Mark, written int) {
	t.Helper()
	counts := controlplane.Count(slices.DeleteFunc(requests(t, k.ControlPlane, mark, ""), func(r controlplane.Request) bool {
		return r.Response.Code >= http.StatusBadRequest
	}))
	if counts["update secrets"] != written || counts["patch secrets"] != 0 || counts["create tokenreviews"] != 0 {
		t.Errorf("requests: %v, want %d tokens and no review", counts, written)
	}
}

// expectUnready waits until /readyz returns 503 with every text of why.
func expectUnready(t *testing.T, s *controlplane.Sakeeper, within time.Duration, why ...string) {
	t.Helper()
	eventuallyIn(t, within, "not ready, with the reason", func(ctx context.Context) error {
		code, body, err := s.Get(ctx, "/readyz")
		if err != nil {
			return err
		}
		for _, words := range why {
			if code != http.StatusServiceUnavailable || !strings.Contains(body, words) {
				return fmt.Errorf("%d without %q: %s", code, words, body)
			}
		}
		return nil
	})
}

func expectKeyCheck(t *testing.T, s *controlplane.Sakeeper, result string) {
	t.Helper()
	expectMetric(t, s, fmt.Sprintf(`sakeeper_signing_key_check{result=%q} 1`, result))
}

// expectOneEvent waits until there is an event of that reason on the Lease, that contains text.
func (k *keyCheck) expectOneEvent(t *testing.T, reason, text string) {
	t.Helper()
	eventually(t, "one event "+reason+" that names "+text, func(ctx context.Context) error {
		events, err := k.client.CoreV1().Events("").List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.kind=Lease,reason=" + reason})
		if err != nil {
			return err
		}
		found := 0
		for _, event := range events.Items {
			if strings.Contains(event.Message, text) {
				found += int(max(event.Count, 1))
			}
		}
		if found != 1 {
			return fmt.Errorf("there are %d", found)
		}
		return nil
	})
}

// TestLongTokensAreWrittenOnlyWithAPublishedKey has subtests that build on each other.
func TestLongTokensAreWrittenOnlyWithAPublishedKey(t *testing.T) {
	t.Parallel()
	k := &keyCheck{moreKeys: filepath.Join(t.TempDir(), "more.key")}
	mustWriteECKey(t, k.moreKeys)
	k.controlPlane = newControlPlaneWith(t, controlplane.Options{MoreKeyFiles: []string{k.moreKeys}})
	k.key = mustReadKey(t, k.SigningKeyFile)
	mustCreateAccount(t, k.client, "default", "builder")

	t.Run("until the controllers get a key that is published", k.testOtherKeyFile)
	t.Run("until the API server publishes the key", k.testRestartedServer)
	t.Run("an unverified key is used", k.testUnverified)
	t.Run("not while the API server fails", func(t *testing.T) {
		k.testUnanswered(t, faults.InternalError(), 5, "the API server does not say whether it knows signing key "+k.key.String(), "an error on the server")
	})
	t.Run("not while the API server is frozen", func(t *testing.T) {
		k.testUnanswered(t, faults.Silence(), 1, "the API server was not yet asked whether it knows signing key "+k.key.String())
	})
	t.Run("where keys are not served, unchecked", k.testNotServed)
	t.Run("as a user with the role", k.testUser)
}

func (k *keyCheck) testOtherKeyFile(t *testing.T) {
	const n = 20
	file := filepath.Join(t.TempDir(), "signing.key")
	unknown := mustWriteECKey(t, file)
	k.want(t, n)
	mark := mustMark(t, k.ControlPlane)
	s := startSakeeper(t, k.sakeeperArgs(t, "--leader-elect=false", "--service-account-private-key-file", file))
	expectUnready(t, s, patience, "no tokens are written: signing key "+unknown.String()+" is not among the 2 keys that the API server publishes")
	k.expectOneEvent(t, api.ReasonSigningKeyNotPublished, unknown.String())
	expectKeyCheck(t, s, "not_published")
	newNamespace(t, k.client) // other controllers still work
	k.expectNothingSpent(t, mark, 0)

	data, err := os.ReadFile(k.SigningKeyFile)
	must(t, err)
	mustReplace(t, file, data)
	k.expectAllGood(t, s)
	expectKeyCheck(t, s, "published")
	k.expectNothingSpent(t, mark, n)
	must(t, s.Stop())
}

func (k *keyCheck) testRestartedServer(t *testing.T) {
	file := filepath.Join(t.TempDir(), "signing.key")
	next := mustWriteECKey(t, file)
	s := startSakeeper(t, k.sakeeperArgs(t, "--leader-elect=false", "--service-account-private-key-file", file, "--service-account-key-file", k.SigningKeyFile))
	expectUnready(t, s, patience, next.String())
	mark := mustMark(t, k.ControlPlane)
	k.want(t, 5)
	data, err := os.ReadFile(file)
	must(t, err)
	must(t, k.KillServer())
	mustReplace(t, k.moreKeys, data)
	must(t, k.StartServer(t.Context()))
	k.expectAllGood(t, s, next)
	k.expectNothingSpent(t, mark, 5)
	must(t, s.Stop())
}

func (k *keyCheck) testUnverified(t *testing.T) {
	file := filepath.Join(t.TempDir(), "signing.key")
	unknown := mustWriteECKey(t, file)
	mustCreateAccount(t, k.client, "default", "unverified")
	s := startReadySakeeper(t, k.sakeeperArgs(t, "--leader-elect=false", "--resign-tokens=never", "--signing-key-unverified", "--service-account-private-key-file", file))
	mustCreateSecret(t, k.client, "default", tokenSecret("unverified", "unverified"))
	eventually(t, "a token of the key", func(ctx context.Context) error {
		secret, err := k.client.CoreV1().Secrets("default").Get(ctx, "unverified", metav1.GetOptions{})
		if err == nil && token.UnverifiedKeyID(string(secret.Data[corev1.ServiceAccountTokenKey])) != unknown.String() {
			err = errors.New("there is none")
		}
		return err
	})
	expectKeyCheck(t, s, "not_published")
	must(t, s.WaitReady(t.Context()))
	must(t, s.Stop())
	must(t, k.client.CoreV1().Secrets("default").Delete(t.Context(), "unverified", metav1.DeleteOptions{}))
}

func readsKeys(r faults.Request) bool { return r.Resource == "/openid/v1/jwks" }

// testUnanswered injects fault into reads of the keys, and waits for so many of them; why are the
// texts that /readyz must have.
func (k *keyCheck) testUnanswered(t *testing.T, fault faults.Fault, hits int, why ...string) {
	t.Helper()
	const n = 5
	k.want(t, n)
	mark := mustMark(t, k.ControlPlane)
	proxy := mustProxy(t, k.controlPlane)
	injection := proxy.Inject(fault, readsKeys)
	began := time.Now()
	s := startSakeeper(t, k.argsThrough(t, proxy, "--service-account-key-file", k.moreKeys))
	eventually(t, "reads of the keys", func(context.Context) error {
		if got := injection.Hits(); got < hits {
			return fmt.Errorf("%d of %d", got, hits)
		}
		return nil
	})
	expectUnready(t, s, patience, why...)
	k.expectNothingSpent(t, mark, 0)
	injection.Lift()
	k.expectAllGood(t, s, mustReadKey(t, k.moreKeys))
	expectFewRequests(t, proxy.Requests(), time.Since(began), 0)
	k.expectNothingSpent(t, mark, n)
	must(t, s.Stop())
}

func (k *keyCheck) testNotServed(t *testing.T) {
	k.want(t, 5)
	mark := mustMark(t, k.ControlPlane)
	proxy := mustProxy(t, k.controlPlane)
	proxy.Inject(faults.NotFound(), readsKeys)
	s := startReadySakeeper(t, k.argsThrough(t, proxy, "--service-account-key-file", k.moreKeys))
	k.expectAllGood(t, s, mustReadKey(t, k.moreKeys))
	expectKeyCheck(t, s, "not_served")
	k.expectOneEvent(t, api.ReasonSigningKeyUnchecked, "/openid/v1/jwks")
	k.expectNothingSpent(t, mark, 5)
	must(t, s.Stop())
}

// testUser runs the controller as a user, who may read the keys by its role alone, and then without
// that rule.
func (k *keyCheck) testUser(t *testing.T) {
	const role = "sakeeper:" + tokensecret.Name
	user, err := k.User("operator")
	must(t, err)
	kubeconfig, err := k.Kubeconfig("operator.kubeconfig", user)
	must(t, err)
	for _, name := range []string{"sakeeper:controllers", role} {
		_, err := k.client.RbacV1().ClusterRoleBindings().Create(t.Context(), &rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: "operator:" + name},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name},
			Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: "operator"}},
		}, metav1.CreateOptions{})
		must(t, err)
	}
	args := k.sakeeperArgs(t, "--leader-elect=false", "--kubeconfig", kubeconfig, "--controllers", tokensecret.Name, "--service-account-key-file", k.moreKeys)
	s := startReadySakeeper(t, args)
	expectKeyCheck(t, s, "published")
	must(t, s.Stop())

	found, err := k.client.RbacV1().ClusterRoles().Get(t.Context(), role, metav1.GetOptions{})
	must(t, err)
	rules := len(found.Rules)
	found.Rules = slices.DeleteFunc(found.Rules, func(rule rbacv1.PolicyRule) bool { return len(rule.NonResourceURLs) > 0 })
	if len(found.Rules) != rules-1 {
		t.Fatalf("the role has no rule for the keys: %v", found.Rules)
	}
	_, err = k.client.RbacV1().ClusterRoles().Update(t.Context(), found, metav1.UpdateOptions{})
	must(t, err)
	k.want(t, 1)
	s = startReadySakeeper(t, args)
	k.expectAllGood(t, s, mustReadKey(t, k.moreKeys))
	expectKeyCheck(t, s, "not_served")
	must(t, s.Stop())
}
