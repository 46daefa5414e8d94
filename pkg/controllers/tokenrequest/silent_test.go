package tokenrequest

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
)

// silent does not answer requests of one kind while it is on.
type silent struct {
	Client
	about string
	on    atomic.Bool
}

func (s *silent) ServiceAccounts(namespace string) typedcorev1.ServiceAccountInterface {
	return silentAccounts{s.Client.ServiceAccounts(namespace), s}
}

func (s *silent) Secrets(namespace string) typedcorev1.SecretInterface {
	return silentSecrets{s.Client.Secrets(namespace), s}
}

func (s *silent) wait(ctx context.Context, what string) error {
	if !s.on.Load() || s.about != what {
		return nil
	}
	<-ctx.Done()
	return ctx.Err()
}

type silentAccounts struct {
	typedcorev1.ServiceAccountInterface
	silent *silent
}

func (a silentAccounts) Get(ctx context.Context, name string, opts metav1.GetOptions) (*corev1.ServiceAccount, error) {
	if err := a.silent.wait(ctx, "get account"); err != nil {
		return nil, err
	}
	return a.ServiceAccountInterface.Get(ctx, name, opts)
}

func (a silentAccounts) CreateToken(ctx context.Context, name string, request *authenticationv1.TokenRequest, opts metav1.CreateOptions) (*authenticationv1.TokenRequest, error) {
	if err := a.silent.wait(ctx, "create token"); err != nil {
		return nil, err
	}
	return a.ServiceAccountInterface.CreateToken(ctx, name, request, opts)
}

type silentSecrets struct {
	typedcorev1.SecretInterface
	silent *silent
}

func (a silentSecrets) Patch(ctx context.Context, name string, kind types.PatchType, data []byte, opts metav1.PatchOptions, sub ...string) (*corev1.Secret, error) {
	if err := a.silent.wait(ctx, "patch secret"); err != nil {
		return nil, err
	}
	return a.SecretInterface.Patch(ctx, name, kind, data, opts, sub...)
}

// TestARequestThatIsNeverAnsweredHoldsNoWorker: the connection is one that no answer will
// come on; the next one works.
func TestARequestThatIsNeverAnsweredHoldsNoWorker(t *testing.T) {
	cases := map[string]struct {
		in   []runtime.Object
		want []string
	}{
		"create token": {in: []runtime.Object{served(), robot(), managed()}, want: oneToken()},
		"patch secret": {in: []runtime.Object{served(), robot(), managed()}, want: []string{"create serviceaccounts/token team/robot", "create serviceaccounts/token team/robot", "patch secrets team/s"}},
		"get account":  {in: []runtime.Object{served(), filled()}, want: []string{"patch secrets team/s"}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, tc.in...)
				client := &silent{Client: w.CoreV1(), about: name}
				client.on.Store(true)
				w.client = client
				w.start()
				time.Sleep(time.Second)
				client.on.Store(false)
				time.Sleep(slowest)
				w.expectRequests("after a request without an answer", tc.want...)
				w.stop()
			})
		})
	}
}
