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

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/keys"
	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
	"github.com/sakeeper/sakeeper/pkg/token"
)

// mustReplace replaces the file by a rename, which is atomic.
func mustReplace(t *testing.T, path string, data []byte) {
	t.Helper()
	must(t, os.WriteFile(path+".new", data, 0o600))
	must(t, os.Rename(path+".new", path))
}

func mustWriteECKey(t *testing.T, path string) keys.PrivateKey {
	t.Helper()
	key, err := testkit.WriteECKey(path)
	must(t, err)
	return key
}

// TestKeyAndCAChangeWithoutARestart has subtests that build on each other.
func TestKeyAndCAChangeWithoutARestart(t *testing.T) {
	dir := t.TempDir()
	nextKeyFile := filepath.Join(dir, "next.key")
	nextKey := mustWriteECKey(t, nextKeyFile)
	planeDir := filepath.Join(dir, "plane")
	must(t, os.Mkdir(planeDir, 0o700))
	cp, err := controlplane.Start(controlplane.Options{Dir: planeDir, MoreKeyFiles: []string{nextKeyFile}})
	must(t, err)
	t.Cleanup(func() { _ = cp.Stop() })
	must(t, cp.Install(t.Context()))
	p := controlPlane{cp, mustClient(t, cp.Admin)}

	s := startReadySakeeper(t, p.sakeeperArgs(t))
	namespace := newNamespace(t, p.client)
	account := mustCreateAccount(t, p.client, namespace, "builder")
	mustCreateSecret(t, p.client, namespace, tokenSecret("before", "builder"))
	before := expectFilled(t, p.client, namespace, "before", account, cp.Admin.CAData)

	t.Run("a new token is signed with the new key, an old one stays", func(t *testing.T) {
		data, err := os.ReadFile(nextKeyFile)
		must(t, err)
		mustReplace(t, cp.SigningKeyFile, data)
		expectMetric(t, s, fmt.Sprintf("sakeeper_key_info{algorithm=\"ES256\",key_id=%q,use=\"signing\"} 1", nextKey.String()))
		mustCreateSecret(t, p.client, namespace, tokenSecret("after", "builder"))
		after := expectFilled(t, p.client, namespace, "after", account, cp.Admin.CAData)
		set := keys.NewSet(nextKey)
		if _, err := token.NewVerifier(func() *keys.Set { return set }).VerifyLegacy(string(after.Data["token"])); err != nil {
			t.Errorf("the new token: %v", err)
		}
		expectUser(t, cp, after, "system:serviceaccount:"+namespace+":builder")
		expectUser(t, cp, before, "system:serviceaccount:"+namespace+":builder")
	})

	t.Run("a bad key is counted and reported, and the last good one stays", func(t *testing.T) {
		mustReplace(t, cp.SigningKeyFile, []byte("oops"))
		expectMetric(t, s, `sakeeper_reload_failures_total{source="keys"} 1`)
		eventually(t, "event on the lease", func(ctx context.Context) error {
			events, err := p.client.CoreV1().Events(controlplane.Namespace).List(ctx, metav1.ListOptions{FieldSelector: "reason=ReloadFailed"})
			if err == nil && len(events.Items) == 0 {
				return errors.New("none yet")
			}
			return err
		})
		mustCreateSecret(t, p.client, namespace, tokenSecret("still", "builder"))
		expectFilled(t, p.client, namespace, "still", account, cp.Admin.CAData)
	})

	t.Run("a new CA goes into every config map and token secret with one request each", func(t *testing.T) {
		bundle := append(append([]byte{}, cp.Admin.CAData...), cp.Admin.CAData...)
		mark := mustMark(t, cp)
		mustReplace(t, cp.CAFile, bundle)
		for _, name := range []string{namespace, "default", "kube-system"} {
			expectRootCA(t, p.client, name, bundle)
		}
		for _, name := range []string{"before", "after", "still"} {
			expectFilled(t, p.client, namespace, name, account, bundle)
		}
		want := map[string]int{"update configmaps": 1, "patch secrets": 3}
		if diff := cmp.Diff(want, controlplane.Count(requests(t, cp, mark, namespace))); diff != "" {
			t.Errorf("requests (-want +got):\n%s", diff)
		}
		kept, err := p.client.CoreV1().Secrets(namespace).Get(t.Context(), "before", metav1.GetOptions{})
		must(t, err)
		if string(kept.Data[corev1.ServiceAccountTokenKey]) != string(before.Data[corev1.ServiceAccountTokenKey]) {
			t.Error("the token changed with the CA")
		}
	})

	good := append(append([]byte{}, cp.Admin.CAData...), cp.Admin.CAData...)
	wrong := mustCACertificate(t, "unrelated")

	t.Run("a CA that does not verify the API server is refused by name and counted, and the last good one stays", func(t *testing.T) {
		mustReplace(t, cp.CAFile, wrong)
		expectRefusedCA(t, p, s)
		expectRootCA(t, p.client, newNamespace(t, p.client), good)
	})

	t.Run("a bad CA is counted, and the last good one stays", func(t *testing.T) {
		mustReplace(t, cp.CAFile, []byte("oops"))
		expectMetric(t, s, `sakeeper_reload_failures_total{source="ca"} 2`)
		other := newNamespace(t, p.client)
		expectRootCA(t, p.client, other, good)
	})
}

// expectRefusedCA waits until s says in all ways that it does not use its root CA.
func expectRefusedCA(t *testing.T, p controlPlane, s *controlplane.Sakeeper) {
	t.Helper()
	expectReadyz(t, s, http.StatusServiceUnavailable, "does not verify the API server, which the published one")
	expectMetric(t, s, `sakeeper_reload_failures_total{source="ca"} 1`)
	expectEventIn(t, p.client, controlplane.Namespace, "sakeeper-controllers", api.ReasonRootCARefused)
}

// TestAWrongRootCAIsRefusedAfterARestart has subtests that build on each other.
func TestAWrongRootCAIsRefusedAfterARestart(t *testing.T) {
	p := newControlPlane(t)
	right, wrong := p.Admin.CAData, mustCACertificate(t, "unrelated")
	must(t, startReadySakeeper(t, p.sakeeperArgs(t)).Stop())
	mustReplace(t, p.CAFile, wrong)
	account := mustCreateAccount(t, p.client, metav1.NamespaceDefault, "builder")

	t.Run("what is published stays until the file is right", func(t *testing.T) {
		s := startSakeeper(t, p.sakeeperArgs(t))
		expectRefusedCA(t, p, s)
		expectRootCA(t, p.client, newNamespace(t, p.client), right)
		expectRootCA(t, p.client, metav1.NamespaceSystem, right)
		mustCreateSecret(t, p.client, metav1.NamespaceDefault, tokenSecret("robot", "builder"))
		expectFilled(t, p.client, metav1.NamespaceDefault, "robot", account, right)
		mustReplace(t, p.CAFile, right)
		expectReadyz(t, s, http.StatusOK)
		must(t, s.Stop())
	})

	t.Run("--root-ca-unverified publishes it", func(t *testing.T) {
		mustReplace(t, p.CAFile, wrong)
		s := startReadySakeeper(t, p.sakeeperArgs(t, "--root-ca-unverified"))
		for _, namespace := range []string{metav1.NamespaceSystem, metav1.NamespaceDefault, newNamespace(t, p.client)} {
			expectRootCA(t, p.client, namespace, wrong)
		}
		expectFilled(t, p.client, metav1.NamespaceDefault, "robot", account, wrong)
		again := mustCACertificate(t, "unrelated too")
		mustReplace(t, p.CAFile, again)
		expectRootCA(t, p.client, metav1.NamespaceSystem, again)
		must(t, s.Stop())
	})

	t.Run("a right one takes the place of a wrong one", func(t *testing.T) {
		mustReplace(t, p.CAFile, right)
		startReadySakeeper(t, p.sakeeperArgs(t))
		expectRootCA(t, p.client, metav1.NamespaceSystem, right)
	})
}

// TestVerificationKeysChangeWithoutARestart: a token counts for its key as soon as the file of
// verification keys has the key, and as unknown again after the key is removed.
func TestVerificationKeysChangeWithoutARestart(t *testing.T) {
	p := newControlPlane(t)
	dir := t.TempDir()
	former, verification := filepath.Join(dir, "former.key"), filepath.Join(dir, "verification.keys")
	formerKey := mustWriteECKey(t, former)
	mustWriteECKey(t, verification) // another one
	other, err := os.ReadFile(verification)
	must(t, err)
	account := mustCreateAccount(t, p.client, metav1.NamespaceDefault, "robot")
	set := keys.NewSet(formerKey)
	compact, err := token.NewSigner(func() *keys.Set { return set }).SignLegacy(t.Context(), token.LegacyClaims{
		Namespace: metav1.NamespaceDefault, SecretName: "old", ServiceAccountName: "robot", ServiceAccountUID: string(account.UID),
	})
	must(t, err)
	secret := tokenSecret("old", "robot")
	secret.Data = map[string][]byte{corev1.ServiceAccountTokenKey: []byte(compact)}
	mustCreateSecret(t, p.client, metav1.NamespaceDefault, secret)

	s := startReadySakeeper(t, p.sakeeperArgs(t, "--service-account-key-file="+verification, "--resign-tokens=never"))
	known := fmt.Sprintf("sakeeper_token_secrets{key_id=%q} ", formerKey.String())
	expectMetric(t, s, `sakeeper_token_secrets{key_id="unknown"} 1`)
	data, err := os.ReadFile(former)
	must(t, err)
	for range 2 { // a key that is added again is used again
		mustReplace(t, verification, data)
		expectMetric(t, s, known+"1")
		expectMetric(t, s, `sakeeper_token_secrets{key_id="unknown"} 0`)
		mustReplace(t, verification, other)
		expectMetric(t, s, `sakeeper_token_secrets{key_id="unknown"} 1`)
	}
	kept, err := p.client.CoreV1().Secrets(metav1.NamespaceDefault).Get(t.Context(), "old", metav1.GetOptions{})
	must(t, err)
	if string(kept.Data[corev1.ServiceAccountTokenKey]) != compact {
		t.Error("the token changed")
	}
}

func expectMetric(t *testing.T, s *controlplane.Sakeeper, line string) {
	t.Helper()
	eventually(t, "metric "+line, func(ctx context.Context) error {
		_, metrics, err := s.Get(ctx, "/metrics")
		if err == nil && !strings.Contains(metrics, line+"\n") {
			return errors.New("not there")
		}
		return err
	})
}
