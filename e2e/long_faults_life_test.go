package e2e

import (
	"context"
	"fmt"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/keys"
	"github.com/sakeeper/sakeeper/pkg/token"
)

// cleanUpInterval is that of lifeArgs.
const cleanUpInterval = 2 * time.Second

// lifeArgs enable the generation of tokens, their repair and their clean-up.
func lifeArgs() []string {
	return []string{
		"--auto-generate-token-secrets=labelled", "--resign-tokens=all",
		"--legacy-service-account-token-clean-up-period=24h", "--legacy-service-account-token-clean-up-interval=" + cleanUpInterval.String(),
	}
}

// lifeAccounts is the number of accounts and Secrets of each kind that liveOn creates.
const lifeAccounts = 3

// liveOn creates, in a new namespace, accounts that request a token, tokens of a former key,
// and unused tokens, of which half were marked long ago.
func liveOn(ctx context.Context, client kubernetes.Interface, namespace string, former keys.PrivateKey) error {
	core := client.CoreV1()
	if _, err := core.Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{}); err != nil {
		return err
	}
	account, err := core.ServiceAccounts(namespace).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "robot"}}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	set := keys.NewSet(former)
	signer := token.NewSigner(func() *keys.Set { return set })
	var work errgroup.Group
	for i := range lifeAccounts {
		work.Go(func() error {
			_, err := core.ServiceAccounts(namespace).Create(ctx, &corev1.ServiceAccount{
				ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("asks-", i), Labels: map[string]string{api.AutoTokenLabel: "true"}},
			}, metav1.CreateOptions{})
			return err
		})
		for _, kind := range []string{"former", "unused", "marked"} {
			work.Go(func() error {
				secret := tokenSecret(fmt.Sprint(kind, "-", i), "robot")
				secret.Labels = map[string]string{token.LastUsedLabel: day(3)}
				// It must be older than the period of a second, and creationTimestamp cannot be set.
				switch kind {
				case "unused":
					secret.Annotations[api.CleanUpUnusedAnnotation] = "1s"
				case "marked":
					secret.Annotations[api.CleanUpUnusedAnnotation] = "1s"
					secret.Labels[token.InvalidSinceLabel] = day(3)
				}
				compact, err := signer.SignLegacy(ctx, token.LegacyClaims{
					Namespace: namespace, SecretName: secret.Name, ServiceAccountName: account.Name, ServiceAccountUID: string(account.UID),
				})
				if err != nil {
					return err
				}
				secret.Data = map[string][]byte{corev1.ServiceAccountTokenKey: []byte(compact)}
				_, err = core.Secrets(namespace).Create(ctx, secret, metav1.CreateOptions{})
				return err
			})
		}
	}
	return work.Wait()
}

// expectLifeWentOn waits until each account that requested a token has one, tokens of the
// former key are replaced, and unused ones are marked or deleted.
func expectLifeWentOn(t *testing.T, p controlPlane, namespace string, signing keys.PrivateKey) {
	t.Helper()
	for i := range lifeAccounts {
		expectOneToken(t, p, namespace, fmt.Sprint("asks-", i))
		former := fmt.Sprint("former-", i)
		eventually(t, "secret "+former+" is of the key that signs", func(ctx context.Context) error {
			secret, err := p.client.CoreV1().Secrets(namespace).Get(ctx, former, metav1.GetOptions{})
			if err != nil {
				return err
			}
			if id := token.UnverifiedKeyID(string(secret.Data[corev1.ServiceAccountTokenKey])); id != signing.PublicKey().ID() {
				return fmt.Errorf("of key %s", id)
			}
			return nil
		})
		expectMarked(t, p.client, namespace, fmt.Sprint("unused-", i))
		expectGone(t, p.client, namespace, fmt.Sprint("marked-", i))
	}
}
