package load

import (
	"context"
	"fmt"
	"os"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sakeeper/sakeeper/pkg/keys"
	"github.com/sakeeper/sakeeper/pkg/token"
)

// Workers is the number of workers for token Secrets of every contestant. It is the default
// of sakeeper; that of kube-controller-manager is 5.
const Workers = 10

// BareUserAgent is the user agent of [Bare].
const BareUserAgent = "bench-bare"

// Bare fills token Secrets without checks and without signing: all get the same token. It
// shows the minimal cost of filling. It ends with ctx.
func Bare(ctx context.Context, kubeconfig, keyFile, caFile string) error {
	client, err := Client(kubeconfig, BareUserAgent)
	if err != nil {
		return err
	}
	ca, err := os.ReadFile(caFile)
	if err != nil {
		return err
	}
	set, err := keys.Files{PrivateKeyFile: keyFile}.Load()
	if err != nil {
		return err
	}
	// The token is as long as those of the Secrets of these benchmarks.
	signed, err := token.NewSigner(func() *keys.Set { return set }).SignLegacy(ctx, token.LegacyClaims{
		Namespace: "fill-0000", SecretName: "fill-00000", ServiceAccountName: "fill", ServiceAccountUID: "00000000-0000-4000-8000-000000000000",
	})
	if err != nil {
		return err
	}
	unfilled := make(chan *corev1.Secret, 1<<16) // large enough for all Secrets
	err = watch(ctx, worker{client: client}, "secrets", tokenSecrets, &corev1.Secret{}, func(s *corev1.Secret) {
		if len(s.Data[corev1.ServiceAccountTokenKey]) == 0 {
			unfilled <- s
		}
	}, nil)
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	for range Workers {
		group.Go(func() error {
			for {
				select {
				case <-ctx.Done():
					return nil
				case s := <-unfilled:
					secret := s.DeepCopy()
					secret.Annotations[corev1.ServiceAccountUIDKey] = "00000000-0000-4000-8000-000000000000"
					secret.Data = map[string][]byte{
						corev1.ServiceAccountTokenKey: []byte(signed), corev1.ServiceAccountRootCAKey: ca, corev1.ServiceAccountNamespaceKey: []byte(s.Namespace),
					}
					_, err := client.CoreV1().Secrets(s.Namespace).Update(ctx, secret, metav1.UpdateOptions{})
					if err != nil && !apierrors.IsConflict(err) && ctx.Err() == nil {
						return fmt.Errorf("fill secret %s/%s: %w", s.Namespace, s.Name, err)
					}
				}
			}
		})
	}
	return group.Wait()
}
