package tokenrequest

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"

	"github.com/sakeeper/sakeeper/pkg/testkit"
)

// hanging is a connection without responses.
type hanging struct{}

func (hanging) RoundTrip(request *http.Request) (*http.Response, error) {
	<-request.Context().Done()
	return nil, request.Context().Err()
}

// mixedClient has other connections for Secrets than for ServiceAccounts.
type mixedClient struct {
	typedcorev1.SecretsGetter
	typedcorev1.ServiceAccountsGetter
}

// TestARequestWithoutAResponseBlocksNoWorker has a connection without responses; the next one works.
func TestARequestWithoutAResponseBlocksNoWorker(t *testing.T) {
	cases := map[string]struct {
		in        []runtime.Object
		inSecrets bool // requests about Secrets hang, those about ServiceAccounts if not
		want      []string
	}{
		"create token": {in: []runtime.Object{served(), robot(), managed()}, want: oneToken()},
		"patch secret": {in: []runtime.Object{served(), robot(), managed()}, inSecrets: true, want: oneToken()},
		"get account":  {in: []runtime.Object{served(), filled()}, want: []string{"get serviceaccounts team/robot", "patch secrets team/s"}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t, tc.in...)
				client, err := kubernetes.NewForConfig(&rest.Config{Host: "https://api.example.com", Transport: hanging{}})
				if err != nil {
					t.Fatal(err)
				}
				mixed := mixedClient{SecretsGetter: f.api.CoreV1(), ServiceAccountsGetter: client.CoreV1()}
				if tc.inSecrets {
					mixed = mixedClient{SecretsGetter: client.CoreV1(), ServiceAccountsGetter: f.api.CoreV1()}
				}
				f.cfg.Client = mixed
				began := time.Now()
				f.mustFail(t)
				if took := time.Since(began); took != requestTimeout {
					t.Errorf("it took %v", took)
				}
				f.requests()
				f.cfg.Client = f.api.CoreV1()
				f.pass(maxOutageDelay)
				f.expectSync(t, tc.want...)
				testkit.Events(f.recorder)
			})
		})
	}
}
