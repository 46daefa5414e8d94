package tokengeneration

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	metadatafake "k8s.io/client-go/metadata/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/ktesting"
	"k8s.io/utils/clock"

	"github.com/sakeeper/sakeeper/pkg/signingkey"
	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/token"
)

var (
	secretsResource    = corev1.SchemeGroupVersion.WithResource("secrets")
	accountsResource   = corev1.SchemeGroupVersion.WithResource("serviceaccounts")
	namespacesResource = corev1.SchemeGroupVersion.WithResource("namespaces")
)

// runningController is the controller with its informers and a fake API server. Changes
// that the test makes go through the tracker, so that they are not in the list of requests.
type runningController struct {
	*Controller
	t        *testing.T
	client   *fake.Clientset
	recorder *record.FakeRecorder
	tokens   *pausableTokens
	// revision is the last version of anything.
	revision atomic.Int64
	// rejectReferences makes the API server reject references; dryRuns counts dry runs of them.
	rejectReferences atomic.Bool
	dryRuns          atomic.Int32
	stop             func()
}

func startController(t *testing.T, mode Mode, objects ...runtime.Object) *runningController {
	t.Helper()
	ctx := klog.NewContext(t.Context(), ktesting.NewLogger(t, ktesting.NewConfig()))
	r := &runningController{t: t, client: fake.NewClientset(objects...), recorder: record.NewFakeRecorder(100), tokens: &pausableTokens{}}
	r.revision.Store(1000)
	r.client.PrependReactor("create", "secrets", func(action clienttesting.Action) (bool, runtime.Object, error) {
		secret := action.(clienttesting.CreateActionImpl).Object.(*corev1.Secret)
		secret.UID = types.UID(fmt.Sprint("life-", r.revision.Add(1)))
		return true, secret, r.client.Tracker().Create(secretsResource, secret, secret.Namespace)
	})
	r.client.PrependReactor("patch", "serviceaccounts", r.patch)
	meta := &metadatafake.FakeMetadataClient{}
	meta.AddReactor("list", "secrets", r.list)
	r.Controller = newController(t, r.client, func(cfg *Config) {
		cfg.Mode, cfg.Metadata, cfg.Tokens, cfg.Recorder, cfg.Clock = mode, meta, r.tokens, r.recorder, clock.RealClock{}
	})
	r.stop = testkit.Start(ctx, t, r.Run, testkit.Informer(r.cfg.Namespaces), testkit.Informer(r.cfg.Secrets), testkit.Informer(r.cfg.ServiceAccounts))
	return r
}

// patch carries out a patch as an API server does, with versions.
func (r *runningController) patch(action clienttesting.Action) (bool, runtime.Object, error) {
	a := action.(clienttesting.PatchActionImpl)
	dryRun := len(a.PatchOptions.DryRun) > 0
	if dryRun {
		r.dryRuns.Add(1)
	}
	if r.rejectReferences.Load() {
		return true, nil, testkit.QuotaExceeded()
	}
	obj, err := r.client.Tracker().Get(accountsResource, a.Namespace, a.Name)
	if err != nil {
		return true, nil, err
	}
	account, err := newFakeAPIServer(obj.(*corev1.ServiceAccount)).patch(a)
	if err != nil || dryRun {
		return true, account, err
	}
	account.ResourceVersion = fmt.Sprint(r.revision.Add(1))
	return true, account, r.client.Tracker().Update(accountsResource, account, a.Namespace)
}

// update replaces an account.
func (r *runningController) update(account *corev1.ServiceAccount) {
	r.t.Helper()
	account.ResourceVersion = fmt.Sprint(r.revision.Add(1))
	r.must(r.client.Tracker().Update(accountsResource, account, account.Namespace))
}

// list serves the metadata client from the other client's tracker.
func (r *runningController) list(action clienttesting.Action) (bool, runtime.Object, error) {
	obj, err := r.client.Tracker().List(secretsResource, corev1.SchemeGroupVersion.WithKind("Secret"), action.GetNamespace())
	if err != nil {
		return true, nil, err
	}
	m := newFakeAPIServer()
	for _, secret := range obj.(*corev1.SecretList).Items {
		m.secrets[secret.Namespace+"/"+secret.Name] = &secret
	}
	return true, m.list(action.GetNamespace(), action.(clienttesting.ListActionImpl).ListRestrictions.Fields), nil
}

// pausableTokens returns ErrWaiting while it is paused.
type pausableTokens struct {
	mu      sync.Mutex
	paused  bool
	waiting []func()
}

func (t *pausableTokens) Write(ctx context.Context, c token.LegacyClaims, wake func(), write func(context.Context, string) error) error {
	t.mu.Lock()
	if t.paused {
		t.waiting = append(t.waiting, wake)
		t.mu.Unlock()
		return signingkey.ErrWaiting
	}
	t.mu.Unlock()
	return write(ctx, secretBytes+c.SecretName)
}

func (t *pausableTokens) setPaused(paused bool) {
	t.mu.Lock()
	t.paused = paused
	waiting := t.waiting
	t.waiting = nil
	t.mu.Unlock()
	for _, wake := range waiting {
		wake()
	}
}

var generatedSuffix = regexp.MustCompile(`-token-[a-z0-9]{5}$`)

// expectWrites compares the controller's writes since the last call, sorted, with the
// random part of names left out.
func (r *runningController) expectWrites(step string, want ...string) {
	r.t.Helper()
	time.Sleep(15 * time.Second)
	synctest.Wait()
	var got []string
	for _, request := range testkit.Requests(r.client.Actions()) {
		if request.Verb != "list" && request.Verb != "watch" {
			got = append(got, request.Verb+" "+generatedSuffix.ReplaceAllString(request.Name, "-token-*"))
		}
	}
	r.client.ClearActions()
	slices.Sort(got)
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		r.t.Errorf("%s (-want +got):\n%s", step, diff)
	}
}

func (r *runningController) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
	synctest.Wait() // so that changes are seen in this order
}

// references returns the names in the account's secrets.
func (r *runningController) references(namespace, name string) []string {
	r.t.Helper()
	obj, err := r.client.Tracker().Get(accountsResource, namespace, name)
	r.must(err)
	var names []string
	for _, ref := range obj.(*corev1.ServiceAccount).Secrets {
		names = append(names, ref.Name)
	}
	return names
}

func createdLongAgo() testkit.Option {
	return func(o metav1.Object) {
		o.SetCreationTimestamp(metav1.NewTime(time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC)))
	}
}

func (r *runningController) secretsOf(namespace string) []string {
	r.t.Helper()
	obj, err := r.client.Tracker().List(secretsResource, corev1.SchemeGroupVersion.WithKind("Secret"), namespace)
	r.must(err)
	var names []string
	for _, secret := range obj.(*corev1.SecretList).Items {
		names = append(names, secret.Name)
	}
	return names
}
