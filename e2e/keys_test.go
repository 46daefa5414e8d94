package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sakeeper/sakeeper/pkg/keys"
	keyrotation "github.com/sakeeper/sakeeper/pkg/keys/rotation"
)

// TestKeysInASecret rotates the keys in a Secret. Verifiers mount the public keys, here as a
// directory.
func TestKeysInASecret(t *testing.T) {
	namespace := newNamespace(t, shared.client)
	kubeconfig, err := shared.cp.Kubeconfig("keys.kubeconfig", shared.cp.Admin)
	must(t, err)
	run := func(command, want string, more ...string) {
		t.Helper()
		must(t, runKeys(append([]string{command, "--secret", namespace + "/" + keyrotation.SecretName, "--kubeconfig", kubeconfig, "--max-token-expiration=1h"}, more...), want))
	}
	ring := func() *keys.Keyring {
		t.Helper()
		secret, err := shared.client.CoreV1().Secrets(namespace).Get(t.Context(), keyrotation.SecretName, metav1.GetOptions{})
		must(t, err)
		found, err := keys.ParseKeyring(secret.Data)
		must(t, err)
		return found
	}
	run("status", "there is no key")
	run("rotate", "made the first key", "--algorithm=ES256")
	first, _ := ring().Signing()
	run("rotate", "published")
	run("rotate", "nothing to do before")
	run("rotate", "signs now", "--publish-for=0s", "--refresh-hint=0s", "--discovery-max-age=0s")
	run("prune", "stays until")
	second, _ := ring().Signing()
	if second.ID() == first.ID() || len(ring().InState(keys.StateRetired)) != 1 || len(ring().Entries()) != 2 {
		t.Fatalf("key %s signs after %s, and there are %d", second.ID(), first.ID(), len(ring().Entries()))
	}

	mirror, err := shared.client.CoreV1().ConfigMaps(namespace).Get(t.Context(), keyrotation.PublicConfigMapName, metav1.GetOptions{})
	must(t, err)
	mount, bucket := t.TempDir(), t.TempDir()
	for name, content := range mirror.Data {
		must(t, os.WriteFile(filepath.Join(mount, name), []byte(content), 0o600))
	}
	must(t, exec.CommandContext(t.Context(), shared.binary, "authenticator", "--key-dir", mount, "--service-account-issuer", planeIssuer, "--export-discovery", bucket).Run())
	jwks, err := os.ReadFile(filepath.Join(bucket, "openid", "v1", "jwks"))
	must(t, err)
	if !strings.Contains(string(jwks), first.ID()) || !strings.Contains(string(jwks), second.ID()) {
		t.Errorf("discovery of the mirror: %s", jwks)
	}
	run("prune", "removed (forced)", "--force", "--key", first.ID())
	if got := ring().Entries(); len(got) != 1 || got[0].ID() != second.ID() {
		t.Errorf("%d keys are left", len(got))
	}
}
