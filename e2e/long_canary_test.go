package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/keys"
	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
	"github.com/sakeeper/sakeeper/pkg/testkit/faults"
	"github.com/sakeeper/sakeeper/pkg/token"
)

// doubtful is a control plane with token Secrets, while it is not known whether the API server
// accepts the signing key.
type doubtful struct {
	controlPlane

	key     keys.PrivateKey // the key that the API server accepts
	secrets int             // number of Secrets so far
}

// want creates n more Secrets.
func (d *doubtful) want(t *testing.T, n int) {
	t.Helper()
	forEach(t, n, func(ctx context.Context, i int) error {
		_, err := d.client.CoreV1().Secrets("default").Create(ctx, tokenSecret(fmt.Sprintf("s%03d", d.secrets+i), "builder"), metav1.CreateOptions{})
		return err
	})
	d.secrets += n
}

// expectOneMore waits until one Secret that is not in had has a token, and returns its name.
// More than one is an error.
func (d *doubtful) expectOneMore(t *testing.T, had map[string]bool) string {
	t.Helper()
	name := ""
	eventually(t, "one token", func(context.Context) error {
		more := 0
		for _, secret := range tokenSecrets(t, d.controlPlane) {
			if len(secret.Data[corev1.ServiceAccountTokenKey]) > 0 && !had[secret.Name] {
				more++
				name = secret.Name
			}
		}
		if more > 1 {
			t.Fatalf("%d tokens were written", more)
		}
		if more == 0 {
			return errors.New("none")
		}
		return nil
	})
	return name
}

func (d *doubtful) haveTokens(t *testing.T) map[string]bool {
	t.Helper()
	have := map[string]bool{}
	for _, secret := range tokenSecrets(t, d.controlPlane) {
		have[secret.Name] = len(secret.Data[corev1.ServiceAccountTokenKey]) > 0
	}
	return have
}

// expectAllGood waits until every Secret has a token of d.key, and the process is ready.
func (d *doubtful) expectAllGood(t *testing.T, s *controlplane.Sakeeper) {
	t.Helper()
	set := keys.NewSet(d.key)
	verifier := token.NewVerifier(func() *keys.Set { return set })
	eventuallyIn(t, time.Minute, "every secret", func(context.Context) error {
		for _, secret := range tokenSecrets(t, d.controlPlane) {
			if _, err := verifier.VerifyLegacy(string(secret.Data[corev1.ServiceAccountTokenKey])); err != nil {
				return fmt.Errorf("secret %s: %w", secret.Name, err)
			}
		}
		return nil
	})
	must(t, s.WaitReady(t.Context()))
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

// TestLongOneTokenIsWrittenBeforeTheAPIServerAcceptsTheKey has subtests that build on each
// other.
func TestLongOneTokenIsWrittenBeforeTheAPIServerAcceptsTheKey(t *testing.T) {
	t.Parallel()
	d := &doubtful{controlPlane: newControlPlane(t)}
	d.key = mustReadKey(t, d.SigningKeyFile)
	mustCreateAccount(t, d.client, "default", "builder")

	t.Run("the API server does not know the key", d.testUnknownKey)
	t.Run("reviews are forbidden", d.testForbidden)
	t.Run("reviews fail", func(t *testing.T) {
		d.testUnanswered(t, faults.InternalError(), "no tokens are written", d.key.String(), "injected: InternalError")
	})
	t.Run("reviews get no response", func(t *testing.T) { d.testUnanswered(t, faults.Silence(), "waiting for the API server to accept") })
}

func (d *doubtful) testUnknownKey(t *testing.T) {
	const n = 20
	file := filepath.Join(t.TempDir(), "signing.key")
	unknown := mustWriteECKey(t, file)
	d.want(t, n)
	mark := mustMark(t, d.ControlPlane)
	s := startSakeeper(t, d.sakeeperArgs(t, "--leader-elect=false", "--service-account-private-key-file", file))
	name := d.expectOneMore(t, nil)
	written := time.Now()
	expectUnready(t, s, 2*time.Minute, "no tokens are written: the API server refuses signing key "+unknown.String(), "invalid bearer token")
	t.Logf("the key was reported as refused %v after the first token", time.Since(written).Round(time.Second))
	newNamespace(t, d.client) // other controllers still work
	if got := d.expectOneMore(t, nil); got != name {
		t.Errorf("the token moved from secret %s to %s", name, got)
	}
	eventually(t, "event on the secret", func(ctx context.Context) error {
		events, err := d.client.CoreV1().Events("default").List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.name=" + name + ",reason=" + api.ReasonSigningKeyRefused})
		if err == nil && len(events.Items) != 1 {
			return fmt.Errorf("%d events", len(events.Items))
		}
		return err
	})
	// The delay of the next review is the time since the first refusal, at least 50 ms and at
	// most 30 s: reviews are at 0, 50, 100, 200 ms and so on, about thirteen until the first
	// one after a minute.
	counts := controlplane.Count(requests(t, d.ControlPlane, mark, ""))
	t.Logf("requests while the key was refused: %v", counts)
	if counts["update secrets"] != 1 || counts["create tokenreviews"] > 15 {
		t.Errorf("requests: %v, want one token and fifteen reviews at most", counts)
	}

	data, err := os.ReadFile(d.SigningKeyFile)
	must(t, err)
	mustReplace(t, file, data)
	d.expectAllGood(t, s)
	if got := controlplane.Count(requests(t, d.ControlPlane, mark, ""))["update secrets"]; got != n+1 {
		t.Errorf("%d tokens were written, want one per secret and that of the unknown key", got)
	}
	must(t, s.Stop())
}

func (d *doubtful) testForbidden(t *testing.T) {
	roles := d.client.RbacV1().ClusterRoles()
	role, err := roles.Get(t.Context(), "sakeeper:serviceaccount-token-controller", metav1.GetOptions{})
	must(t, err)
	complete := role.DeepCopy()
	role.Rules = nil
	for _, rule := range complete.Rules {
		if rule.Resources[0] != "tokenreviews" {
			role.Rules = append(role.Rules, rule)
		}
	}
	if len(role.Rules) != len(complete.Rules)-1 {
		t.Fatalf("the role has no rule for reviews: %v", complete.Rules)
	}
	role, err = roles.Update(t.Context(), role, metav1.UpdateOptions{})
	must(t, err)

	had := d.haveTokens(t)
	d.want(t, 5)
	s := startSakeeper(t, d.sakeeperArgs(t, "--leader-elect=false"))
	d.expectOneMore(t, had)
	expectUnready(t, s, patience, d.key.String(), "tokenreviews", "forbidden")
	d.expectOneMore(t, had)
	role.Rules = complete.Rules
	_, err = roles.Update(t.Context(), role, metav1.UpdateOptions{})
	must(t, err)
	d.expectAllGood(t, s)
	must(t, s.Stop())
}

// testUnanswered injects fault into reviews; why are the texts that /readyz must have.
func (d *doubtful) testUnanswered(t *testing.T, fault faults.Fault, why ...string) {
	t.Helper()
	had := d.haveTokens(t)
	d.want(t, 5)
	proxy := mustProxy(t, d.controlPlane)
	injection := proxy.Inject(fault, func(r faults.Request) bool { return r.Resource == "tokenreviews" })
	began := time.Now()
	s := startSakeeper(t, d.argsThrough(t, proxy))
	d.expectOneMore(t, had)
	eventually(t, "a review", func(context.Context) error {
		if injection.Hits() == 0 {
			return errors.New("none")
		}
		return nil
	})
	eventuallyIn(t, patience, "some time", func(context.Context) error { return passed(3 * time.Second)(troubled{began: began}) })
	expectUnready(t, s, patience, why...)
	d.expectOneMore(t, had)
	lasted := time.Since(began)
	injection.Lift()
	d.expectAllGood(t, s)
	expectFewRequests(t, proxy.Requests(), lasted, 0)
	must(t, s.Stop())
}
