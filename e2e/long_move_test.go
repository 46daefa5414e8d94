package e2e

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
	"github.com/sakeeper/sakeeper/pkg/token"
)

// TestLongMoveToASigner moves a cluster with kubeadm's key to a signer. Legacy and bound tokens
// from before stay valid, and no Secret is written again.
func TestLongMoveToASigner(t *testing.T) {
	p := newControlPlane(t)
	before := startReadySakeeper(t, p.sakeeperArgs(t))
	namespace := newNamespace(t, p.client)
	mustCreateAccount(t, p.client, namespace, "robot")
	_, err := p.client.CoreV1().Secrets(namespace).Create(t.Context(), tokenSecret("old", "robot"), metav1.CreateOptions{})
	must(t, err)
	old := mustFillToken(t, p, namespace, "old")
	request := func() string {
		t.Helper()
		granted, err := p.client.CoreV1().ServiceAccounts(namespace).CreateToken(t.Context(), "robot", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
		must(t, err)
		return granted.Status.Token
	}
	bound := request()
	must(t, before.Stop())

	dir, err := os.MkdirTemp("", "move-")
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	keyDir, socket := filepath.Join(dir, "keys"), filepath.Join(dir, "s")
	must(t, runKeys([]string{"import", "--key-dir", keyDir, "--max-token-expiration=8760h", "--file", p.SigningKeyFile}, "imported as signing"))
	startReadySakeeper(t, []string{"signer", "--key-dir", keyDir, "--socket", socket})
	must(t, p.UseSigner(t.Context(), socket))
	mark := mustMark(t, p.ControlPlane)
	startReadySakeeper(t, slices.DeleteFunc(p.sakeeperArgs(t, "--key-dir", keyDir), func(arg string) bool {
		return arg == "--service-account-private-key-file" || arg == p.SigningKeyFile
	}))
	if writes := requests(t, p.ControlPlane, mark, namespace); len(writes) > 0 {
		t.Errorf("written anew: %v", controlplane.Count(writes))
	}
	_, err = p.client.CoreV1().Secrets(namespace).Create(t.Context(), tokenSecret("new", "robot"), metav1.CreateOptions{})
	must(t, err)
	for what, compact := range map[string]string{
		"legacy, from before": old, "bound, from before": bound, "bound, by the signer": request(), "legacy, from the same directory": mustFillToken(t, p, namespace, "new"),
	} {
		// The API server's own cache may have a Secret without its token still.
		eventually(t, what+" is accepted", func(ctx context.Context) error {
			if !isAccepted(ctx, p, compact) {
				return errors.New("refused")
			}
			return nil
		})
		if got, want := token.UnverifiedKeyID(compact), token.UnverifiedKeyID(old); got != want {
			t.Errorf("%s: of key %s, want %s", what, got, want)
		}
	}
}

func mustFillToken(t *testing.T, p controlPlane, namespace, name string) string {
	t.Helper()
	var compact string
	eventually(t, "token of secret "+name, func(ctx context.Context) error {
		secret, err := p.client.CoreV1().Secrets(namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if compact = string(secret.Data[corev1.ServiceAccountTokenKey]); compact == "" {
			return errors.New("it has none")
		}
		return nil
	})
	return compact
}
