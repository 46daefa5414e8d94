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

// hangingClient never responds to one method while it is on.
type hangingClient struct {
	Client
	method string
	on     atomic.Bool
}

func (c *hangingClient) ServiceAccounts(namespace string) typedcorev1.ServiceAccountInterface {
	return hangingAccounts{c.Client.ServiceAccounts(namespace), c}
}

func (c *hangingClient) Secrets(namespace string) typedcorev1.SecretInterface {
	return hangingSecrets{c.Client.Secrets(namespace), c}
}

func (c *hangingClient) wait(ctx context.Context, what string) error {
	if !c.on.Load() || c.method != what {
		return nil
	}
	<-ctx.Done()
	return ctx.Err()
}

type hangingAccounts struct {
	typedcorev1.ServiceAccountInterface
	client *hangingClient
}

func (a hangingAccounts) Get(ctx context.Context, name string, opts metav1.GetOptions) (*corev1.ServiceAccount, error) {
	if err := a.client.wait(ctx, "get account"); err != nil {
		return nil, err
	}
	return a.ServiceAccountInterface.Get(ctx, name, opts)
}

func (a hangingAccounts) CreateToken(ctx context.Context, name string, request *authenticationv1.TokenRequest, opts metav1.CreateOptions) (*authenticationv1.TokenRequest, error) {
	if err := a.client.wait(ctx, "create token"); err != nil {
		return nil, err
	}
	return a.ServiceAccountInterface.CreateToken(ctx, name, request, opts)
}

type hangingSecrets struct {
	typedcorev1.SecretInterface
	client *hangingClient
}

func (a hangingSecrets) Patch(ctx context.Context, name string, kind types.PatchType, data []byte, opts metav1.PatchOptions, sub ...string) (*corev1.Secret, error) {
	if err := a.client.wait(ctx, "patch secret"); err != nil {
		return nil, err
	}
	return a.SecretInterface.Patch(ctx, name, kind, data, opts, sub...)
}

// TestARequestWithoutAResponseBlocksNoWorker has a connection without responses; the next
// one works.
func TestARequestWithoutAResponseBlocksNoWorker(t *testing.T) {
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
				r := newRunningController(t, tc.in...)
				client := &hangingClient{Client: r.CoreV1(), method: name}
				client.on.Store(true)
				r.client = client
				r.start()
				time.Sleep(time.Second)
				client.on.Store(false)
				time.Sleep(requestTimeout)
				r.expectRequests("after a request without a response", tc.want...)
				r.stop()
			})
		})
	}
}
