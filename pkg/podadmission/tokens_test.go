package podadmission

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	clienttesting "k8s.io/client-go/testing"
	toolscache "k8s.io/client-go/tools/cache"

	"github.com/sakeeper/sakeeper/pkg/podadmission/rules"
	"github.com/sakeeper/sakeeper/pkg/testkit"
)

// silent is a client whose reads never return before their context ends.
type silent struct {
	typedcorev1.ServiceAccountsGetter
}

func (s silent) ServiceAccounts(namespace string) typedcorev1.ServiceAccountInterface {
	return silentAccounts{s.ServiceAccountsGetter.ServiceAccounts(namespace)}
}

type silentAccounts struct {
	typedcorev1.ServiceAccountInterface
}

func (silentAccounts) Get(ctx context.Context, _ string, _ metav1.GetOptions) (*corev1.ServiceAccount, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// silentSecrets does not return a Secret named "silent" before the context ends.
type silentSecrets struct {
	typedcorev1.SecretsGetter
}

func (s silentSecrets) Secrets(namespace string) typedcorev1.SecretInterface {
	return silentSecretReads{s.SecretsGetter.Secrets(namespace)}
}

type silentSecretReads struct {
	typedcorev1.SecretInterface
}

func (s silentSecretReads) Get(ctx context.Context, name string, options metav1.GetOptions) (*corev1.Secret, error) {
	if name != "silent" {
		time.Sleep(time.Second) // a slow read
		return s.SecretInterface.Get(ctx, name, options)
	}
	<-ctx.Done()
	return nil, ctx.Err()
}

// TestTokenSecretsThatTakeTooLong: all reads together leave time to answer.
func TestTokenSecretsThatTakeTooLong(t *testing.T) {
	cases := map[string]struct {
		in       time.Duration
		inListed []string
		want     time.Duration
	}{
		"much time":       {in: 5 * time.Second, inListed: []string{"silent"}, want: 4500 * time.Millisecond},
		"after two reads": {in: 5 * time.Second, inListed: []string{"gone", "lost", "silent"}, want: 4500 * time.Millisecond},
		"little time":     {in: 600 * time.Millisecond, inListed: []string{"silent"}, want: 300 * time.Millisecond},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t, rules.Settings{TokenVolumeSource: rules.SecretTokens})
				f.cache(t, defaultAccount(testkit.WithReferences(tc.inListed...)))
				f.secrets = silentSecrets{f.secrets}
				began := time.Now()
				response, err := f.Mutate(within(t, tc.in), creationOf(plain(mainContainer)))
				expectRefused(t, response, err, 403, `pods "web" is forbidden: error looking up service account token for team/default: context deadline exceeded`)
				if took := time.Since(began); took != tc.want {
					t.Errorf("took %v", took)
				}
			})
		})
	}
}

func nameOf(namespace, name string) toolscache.ObjectName {
	return toolscache.ObjectName{Namespace: namespace, Name: name}
}

func TestTokenSecrets(t *testing.T) {
	token := func(name string, opts ...testkit.Option) *corev1.Secret {
		return testkit.Secret("team/"+name, append([]testkit.Option{
			testkit.WithAccount("default"), testkit.WithData(corev1.ServiceAccountTokenKey, "token"),
		}, opts...)...)
	}
	const (
		none = `No API token found for service account "default": it lists no token Secret that exists. Unless a controller makes one (sakeeper controllers --auto-generate-token-secrets), create a Secret of type kubernetes.io/service-account-token for it and add it to the secrets of the service account`
		pod  = `"serviceAccountName":"default",` + mainContainer
	)
	patched := func(secret string) string {
		return `[{"op":"add","path":"/spec/volumes","value":[{"name":"` + secret + `","secret":{"secretName":"` + secret + `","defaultMode":420}}]},
			{"op":"add","path":"/spec/containers/0/volumeMounts","value":[{"name":"` + secret + `","readOnly":true,"mountPath":"/var/run/secrets/kubernetes.io/serviceaccount"}]}]`
	}
	cases := map[string]struct {
		in          string
		inListed    []string
		inLive      []runtime.Object
		inError     error
		want        string
		wantRefused string
		wantCode    int32
		wantReads   []string
	}{
		"the first usable one": {
			in: pod, inListed: []string{"gone", "opaque", "good", "better"},
			inLive:    []runtime.Object{token("opaque", testkit.WithAccount("other")), token("good"), token("better")},
			wantReads: []string{"team/gone", "team/opaque", "team/good"}, want: patched("good"),
		},
		"a token Secret that is not listed": {
			in: pod, inListed: []string{"gone"}, inLive: []runtime.Object{token("good")},
			wantReads: []string{"team/gone"}, wantCode: 500, wantRefused: none,
		},
		"nothing is listed": {in: pod, wantCode: 500, wantRefused: none},
		"the listed one is not filled yet": {
			in: pod, inListed: []string{"gone", "new", "newer"}, inLive: []runtime.Object{token("new", testkit.WithData(corev1.ServiceAccountTokenKey, "")), token("newer", testkit.WithData(corev1.ServiceAccountTokenKey, ""))},
			wantReads: []string{"team/gone", "team/new", "team/newer"}, wantCode: 500,
			wantRefused: `No API token found for service account "default": its Secret "new" is not filled yet, retry after a controller has written a token to it`,
		},
		"one is filled after one that is not": {
			in: pod, inListed: []string{"new", "good"}, inLive: []runtime.Object{token("new", testkit.WithData(corev1.ServiceAccountTokenKey, "")), token("good")},
			wantReads: []string{"team/new", "team/good"}, want: patched("good"),
		},
		"the pod opted out": {
			in: `"automountServiceAccountToken":false,` + pod, inListed: []string{"good"}, inLive: []runtime.Object{token("good")},
		},
		"the plugin has mounted a token": {
			in: `"serviceAccountName":"default","volumes":[{"name":"kube-api-access-x2v4z","projected":{}}],"containers":[{"name":"main",
				"volumeMounts":[{"name":"kube-api-access-x2v4z","mountPath":"/var/run/secrets/kubernetes.io/serviceaccount"}]}]`,
		},
		"the API server fails": {
			in: pod, inListed: []string{"good"}, inError: errBoom, wantReads: []string{"team/good"},
			wantCode: 403, wantRefused: `pods "web" is forbidden: error looking up service account token for team/default: boom`,
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, rules.Settings{TokenVolumeSource: rules.SecretTokens}, tc.inLive...)
			f.cache(t, defaultAccount(testkit.WithReferences(tc.inListed...)))
			if tc.inError != nil {
				f.client.PrependReactor("get", "secrets", func(clienttesting.Action) (bool, runtime.Object, error) { return true, nil, tc.inError })
			}
			response, err := f.Mutate(newContext(t), creationOf(plain(tc.in)))
			var reads []string
			for _, request := range f.requests() {
				reads = append(reads, request.Name)
			}
			if diff := cmp.Diff(tc.wantReads, reads); diff != "" {
				t.Errorf("reads (-want +got):\n%s", diff)
			}
			if tc.wantRefused == "" {
				expectPatch(t, response, err, tc.want)
				return
			}
			expectRefused(t, response, err, tc.wantCode, tc.wantRefused)
			if retry := response.Result.Details.RetryAfterSeconds; (tc.wantCode == 500) != (retry == 1) {
				t.Errorf("retry after %d s", retry)
			}
		})
	}
}
