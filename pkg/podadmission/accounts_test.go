package podadmission

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"

	"github.com/sakeeper/sakeeper/pkg/podadmission/rules"
	"github.com/sakeeper/sakeeper/pkg/testkit"
)

var errBoom = errors.New("boom")

func podOf(account string) *admissionv1.AdmissionRequest {
	return creationOf(plain(`"serviceAccountName":"` + account + `","automountServiceAccountToken":false,` + mainContainer))
}

// TestAccountsAreReadFromTheCacheFirst, and then live. The test alone fills the cache.
func TestAccountsAreReadFromTheCacheFirst(t *testing.T) {
	const end = `pods "web" is forbidden: error looking up service account team/`
	cases := map[string]struct {
		in               string
		inCached, inLive []*corev1.ServiceAccount
		inError          error
		inTimeout        time.Duration // zero: none
		wantRefused      string
		wantReads        int
		wantWaited       time.Duration
	}{
		"the cache has it": {in: "robot", inCached: []*corev1.ServiceAccount{robot()}},
		"the cache lags": {
			in: "robot", inLive: []*corev1.ServiceAccount{robot()}, wantReads: 1,
		},
		"it does not exist, and no controller creates it": {
			in: "absent", wantReads: 1, wantRefused: end + `absent: serviceaccount "absent" not found`,
		},
		"it does not exist, and a controller creates it": {
			in: "default", wantReads: 1, wantWaited: 2 * time.Second, wantRefused: end + `default: serviceaccount "default" not found`,
		},
		"it does not exist, and the configuration says that it is created": {
			in: "robot", wantReads: 1, wantWaited: 2 * time.Second, wantRefused: end + `robot: serviceaccount "robot" not found`,
		},
		"a long timeout": {
			in: "default", inTimeout: 10 * time.Second, wantReads: 1, wantWaited: 2 * time.Second, wantRefused: end + `default: serviceaccount "default" not found`,
		},
		"a timeout shorter than the longest wait": {
			in: "default", inTimeout: 2 * time.Second, wantReads: 1, wantWaited: 1500 * time.Millisecond, wantRefused: end + `default: serviceaccount "default" not found`,
		},
		"a timeout without time to wait": {
			in: "default", inTimeout: 400 * time.Millisecond, wantReads: 1, wantRefused: end + `default: serviceaccount "default" not found`,
		},
		"it exists in another namespace": {
			in: "absent", inCached: []*corev1.ServiceAccount{testkit.ServiceAccount("theirs/absent")}, inLive: []*corev1.ServiceAccount{testkit.ServiceAccount("theirs/absent")},
			wantReads: 1, wantRefused: end + `absent: serviceaccount "absent" not found`,
		},
		"the API server fails": {
			in: "default", inError: errBoom, wantReads: 1, wantRefused: end + "default: boom",
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t, rules.Settings{}, objects(tc.inLive)...)
				if tc.inError != nil {
					f.client.PrependReactor("get", "serviceaccounts", func(clienttesting.Action) (bool, runtime.Object, error) {
						return true, nil, tc.inError
					})
				}
				f.cache(t, tc.inCached...)
				for name, handler := range map[string]func(context.Context, *admissionv1.AdmissionRequest) (*admissionv1.AdmissionResponse, error){
					"mutate": f.Mutate, "validate": f.Validate,
				} {
					f.client.ClearActions()
					began := time.Now()
					response, err := handler(within(t, tc.inTimeout), podOf(tc.in))
					if waited := time.Since(began); waited != tc.wantWaited {
						t.Errorf("%s: waited %v", name, waited)
					}
					if tc.wantRefused == "" {
						expectPatch(t, response, err, "")
					} else {
						expectRefused(t, response, err, 403, tc.wantRefused)
					}
					if got := f.requests(); len(got) != tc.wantReads {
						t.Errorf("%s: requests %v", name, got)
					}
				}
				if len(f.accounts.waiting) != 0 {
					t.Errorf("requests still waiting: %v", f.accounts.waiting)
				}
			})
		})
	}
}

func robot(opts ...testkit.Option) *corev1.ServiceAccount {
	return testkit.ServiceAccount("team/robot", opts...)
}

func objects(accounts []*corev1.ServiceAccount) []runtime.Object {
	var all []runtime.Object
	for _, account := range accounts {
		all = append(all, account)
	}
	return all
}

// started runs the informer until the returned function is called.
func started(ctx context.Context, t *testing.T, f fixture) (stop func()) {
	t.Helper()
	stop = testkit.Start(ctx, t, testkit.Informer(f.accounts.informer))
	synctest.Wait()
	if !f.Ready() {
		t.Error("not ready with a filled cache")
	}
	return stop
}

// TestPodsWaitForTheirAccount: many pods are created before their accounts, and one of the accounts
// is never created.
func TestPodsWaitForTheirAccount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, rules.Settings{})
		if f.Ready() {
			t.Error("ready without a cache")
		}
		ctx := newContext(t)
		defer started(ctx, t, f)()
		began := time.Now()
		type result struct {
			response *admissionv1.AdmissionResponse
			err      error
			took     time.Duration
		}
		const pods = 20
		results := make(chan result, 2*pods)
		for range pods {
			for _, name := range []string{"default", "robot"} {
				go func() {
					response, err := f.Mutate(ctx, podOf(name))
					results <- result{response, err, time.Since(began)}
				}()
			}
		}
		time.Sleep(700 * time.Millisecond)
		synctest.Wait()
		if len(results) != 0 {
			t.Fatal("a response before the account exists")
		}
		f.create(t, testkit.ServiceAccount("theirs/default"))
		f.create(t, testkit.ServiceAccount("team/other"))
		synctest.Wait()
		if len(results) != 0 {
			t.Fatal("a response for another account")
		}
		f.create(t, defaultAccount())
		for range pods {
			r := <-results
			expectPatch(t, r.response, r.err, "")
			if r.took != 700*time.Millisecond { // the event wakes it, there is no polling
				t.Errorf("allowed after %v", r.took)
			}
		}
		for range pods {
			r := <-results
			expectRefused(t, r.response, r.err, 403, `pods "web" is forbidden: error looking up service account team/robot: serviceaccount "robot" not found`)
			if r.took != 2*time.Second {
				t.Errorf("refused after %v", r.took)
			}
		}
		if len(f.accounts.waiting) != 0 {
			t.Errorf("requests still waiting: %v", f.accounts.waiting)
		}
	})
}

func (f fixture) create(t *testing.T, account *corev1.ServiceAccount) {
	t.Helper()
	if _, err := f.client.CoreV1().ServiceAccounts(account.Namespace).Create(t.Context(), account, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// TestAnAccountThatIsDeletedAgain: an event without an object in the cache ends no wait.
func TestAnAccountThatIsDeletedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, rules.Settings{})
		done := make(chan *admissionv1.AdmissionResponse)
		go func() {
			response, err := f.Mutate(newContext(t), podOf("default"))
			if err != nil {
				t.Error(err)
			}
			done <- response
		}()
		synctest.Wait()
		f.accounts.wake(reduce(defaultAccount())) // and the cache does not have it
		f.accounts.wake(reduce(defaultAccount()))
		time.Sleep(time.Second)
		f.cache(t, defaultAccount())
		f.accounts.wake(reduce(defaultAccount()))
		if response := <-done; !response.Allowed {
			t.Errorf("refused: %v", response.Result)
		}
	})
}

// TestAnAccountThatIsCreatedDuringTheRead is in the cache before the wait begins.
func TestAnAccountThatIsCreatedDuringTheRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, rules.Settings{})
		f.client.PrependReactor("get", "serviceaccounts", func(clienttesting.Action) (bool, runtime.Object, error) {
			f.cache(t, defaultAccount())
			f.accounts.wake(reduce(defaultAccount()))
			return true, nil, testkit.NotFound()
		})
		began := time.Now()
		response, err := f.Mutate(newContext(t), podOf("default"))
		expectPatch(t, response, err, "")
		if took := time.Since(began); took != 0 {
			t.Errorf("waited %v", took)
		}
	})
}

func TestTheWaitEndsWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, rules.Settings{})
		ctx, cancel := context.WithCancel(newContext(t))
		began := time.Now()
		time.AfterFunc(time.Second, cancel)
		response, err := f.Mutate(ctx, podOf("default"))
		if took := time.Since(began); took != time.Second || err != nil || response.Allowed {
			t.Errorf("after %v: response %v, error %v", took, response, err)
		}
	})
}

// TestAReadThatTakesTooLong leaves time to answer.
func TestAReadThatTakesTooLong(t *testing.T) {
	cases := map[string]struct{ in, want time.Duration }{
		"much time":   {in: 10 * time.Second, want: 9500 * time.Millisecond},
		"little time": {in: 600 * time.Millisecond, want: 300 * time.Millisecond},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t, rules.Settings{})
				f.accounts.client = silent{f.accounts.client}
				began := time.Now()
				response, err := f.Mutate(within(t, tc.in), podOf("default"))
				expectRefused(t, response, err, 403, `pods "web" is forbidden: error looking up service account team/default: context deadline exceeded`)
				if took := time.Since(began); took != tc.want {
					t.Errorf("took %v", took)
				}
			})
		})
	}
}
