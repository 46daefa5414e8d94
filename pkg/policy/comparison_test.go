package policy_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/yaml"

	"github.com/sakeeper/sakeeper/pkg/podadmission"
	"github.com/sakeeper/sakeeper/pkg/podadmission/rules"
	"github.com/sakeeper/sakeeper/pkg/policy"
	"github.com/sakeeper/sakeeper/pkg/testkit"
)

// contest is a namespace in which one choice of settings is compared with the webhook of the same settings.
type contest struct {
	namespace string
	webhook   *podadmission.Reviewer
}

// newContests prepares one namespace, with generated accounts, for each choice of settings.
func newContests(t *testing.T, g generator) []contest {
	t.Helper()
	accounts, err := podadmission.Accounts(server.client)
	must(t, err)
	var all []contest
	for _, scope := range []rules.Scope{rules.InTreeScope, rules.AllScope} {
		for _, limit := range []bool{false, true} {
			c := contest{namespace: fmt.Sprintf("compared-%s-%v", scope, limit)}
			_, err := server.client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: c.namespace}}, metav1.CreateOptions{})
			must(t, err)
			for _, name := range accountNames[:len(accountNames)-1] {
				_, err := server.client.CoreV1().ServiceAccounts(c.namespace).Create(t.Context(), g.account(name), metav1.CreateOptions{})
				must(t, err)
			}
			c.webhook, err = podadmission.New(podadmission.Config{
				Accounts: accounts, Client: server.client.CoreV1(),
				Settings: rules.Settings{LimitSecretReferences: limit, SecretReferenceScope: scope},
			})
			must(t, err)
			s := policy.Defaults()
			s.SecretReferences.Limit, s.SecretReferences.Scope = limit, scope
			installSecretReferences(t, c.namespace, s)
			all = append(all, c)
		}
	}
	testkit.Start(t.Context(), t, func(ctx context.Context) error { accounts.RunWithContext(ctx); return nil })
	if !toolscache.WaitForCacheSync(t.Context().Done(), accounts.HasSynced) {
		t.Fatal("the cache of ServiceAccounts did not sync")
	}
	return all
}

// verdict is what the client gets.
type verdict struct {
	Code    int32
	Message string
}

func (c contest) ofPolicy(ctx context.Context, pod *corev1.Pod) verdict {
	_, err := server.client.CoreV1().Pods(c.namespace).Create(ctx, pod, dryRun)
	code, message := refusal(err)
	return verdict{code, message}
}

// ofWebhook asks the validating webhook, after the mutating one has named the account.
func (c contest) ofWebhook(ctx context.Context, pod *corev1.Pod) (verdict, error) {
	pod = pod.DeepCopy()
	pod.Namespace = c.namespace
	rules.Default(pod)
	return c.review(ctx, pod, "", admissionv1.Create)
}

func (c contest) review(ctx context.Context, pod *corev1.Pod, subresource string, operation admissionv1.Operation) (verdict, error) {
	pod.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}
	raw, err := json.Marshal(pod)
	if err != nil {
		return verdict{}, err
	}
	response, err := c.webhook.Validate(ctx, &admissionv1.AdmissionRequest{
		UID: "70000000-0000-4000-8000-000000000001", Operation: operation, SubResource: subresource,
		Kind: metav1.GroupVersionKind{Version: "v1", Kind: "Pod"}, Resource: metav1.GroupVersionResource{Version: "v1", Resource: "pods"},
		Namespace: c.namespace, Name: pod.Name, Object: runtime.RawExtension{Raw: raw},
	})
	if err != nil || response.Allowed {
		return verdict{}, err
	}
	return verdict{response.Result.Code, strings.TrimPrefix(response.Result.Message, `pods "pod" is forbidden: `)}, nil
}

func number(t *testing.T, variable string, otherwise uint64) uint64 {
	t.Helper()
	text := os.Getenv(variable)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 64)
	must(t, err)
	return n
}

// TestPodsAreJudgedAsByTheWebhook compares the policy with pkg/podadmission: generated pods, of generated accounts
// and with all settings, get the same code and message. POLICY_CASES is the number of pods, POLICY_SEED makes others.
func TestPodsAreJudgedAsByTheWebhook(t *testing.T) {
	seed, cases := number(t, "POLICY_SEED", 1), number(t, "POLICY_CASES", 200)
	fmt.Printf("POLICY_SEED=%d\n", seed)
	contests := newContests(t, generator{rand.New(rand.NewPCG(seed, 0))})
	var refused, missing atomic.Uint64
	var workers sync.WaitGroup
	for worker := range uint64(4) {
		workers.Go(func() {
			for i := worker; i < cases && !t.Failed() && t.Context().Err() == nil; i += 4 {
				g := generator{rand.New(rand.NewPCG(seed, i+1))}
				c, pod := contests[i%4], g.pod()
				want, err := c.ofWebhook(t.Context(), pod)
				if err != nil {
					t.Errorf("case %d: %v", i, err)
				}
				if rules.AccountName(pod) == "missing" { // the policy cannot see this
					if missing.Add(1); want.Code != 403 {
						t.Errorf("case %d: the webhook allows a pod without an account", i)
					}
					want = verdict{}
				}
				if want.Code != 0 {
					refused.Add(1)
				}
				if got := c.ofPolicy(t.Context(), pod); got != want {
					text, _ := yaml.Marshal(pod)
					t.Errorf("POLICY_SEED=%d case %d in %s: policy %+v, webhook %+v:\n%s", seed, i, c.namespace, got, want, text)
				}
			}
		})
	}
	workers.Wait()
	t.Logf("%d pods: %d refused by both, %d of an account that does not exist", cases, refused.Load(), missing.Load())
	if refused.Load() < cases/8 || refused.Load() > cases*7/8 {
		t.Errorf("%d of %d pods were refused", refused.Load(), cases)
	}
}
