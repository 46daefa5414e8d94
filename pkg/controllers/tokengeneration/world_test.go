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

// world is a fake API server with the controller and its informers running. What the
// test itself changes goes through the tracker, which the list of requests does not
// show.
type world struct {
	*Controller
	t        *testing.T
	client   *fake.Clientset
	recorder *record.FakeRecorder
	gate     *gate
	// revision is the last version of anything.
	revision atomic.Int64
	// refusing makes it refuse references; rehearsals counts questions whether it does.
	refusing   atomic.Bool
	rehearsals atomic.Int32
	stop       func()
}

func newWorld(t *testing.T, mode Mode, objects ...runtime.Object) *world {
	t.Helper()
	ctx := klog.NewContext(t.Context(), ktesting.NewLogger(t, ktesting.NewConfig()))
	w := &world{t: t, client: fake.NewClientset(objects...), recorder: record.NewFakeRecorder(100), gate: &gate{}}
	w.revision.Store(1000)
	w.client.PrependReactor("create", "secrets", func(action clienttesting.Action) (bool, runtime.Object, error) {
		secret := action.(clienttesting.CreateActionImpl).Object.(*corev1.Secret)
		secret.UID = types.UID(fmt.Sprint("life-", w.revision.Add(1)))
		return true, secret, w.client.Tracker().Create(secretsResource, secret, secret.Namespace)
	})
	w.client.PrependReactor("patch", "serviceaccounts", w.refer)
	meta := &metadatafake.FakeMetadataClient{}
	meta.AddReactor("list", "secrets", w.list)
	w.Controller = newController(t, w.client, func(cfg *Config) {
		cfg.Mode, cfg.Metadata, cfg.Tokens, cfg.Recorder, cfg.Clock = mode, meta, w.gate, w.recorder, clock.RealClock{}
	})
	w.stop = testkit.Start(ctx, t, w.Run, testkit.Informer(w.cfg.Namespaces), testkit.Informer(w.cfg.Secrets), testkit.Informer(w.cfg.ServiceAccounts))
	return w
}

// refer carries out a patch as an API server does, with versions.
func (w *world) refer(action clienttesting.Action) (bool, runtime.Object, error) {
	a := action.(clienttesting.PatchActionImpl)
	rehearsal := len(a.PatchOptions.DryRun) > 0
	if rehearsal {
		w.rehearsals.Add(1)
	}
	if w.refusing.Load() {
		return true, nil, testkit.QuotaExceeded()
	}
	obj, err := w.client.Tracker().Get(accountsResource, a.Namespace, a.Name)
	if err != nil {
		return true, nil, err
	}
	account, err := newModel(obj.(*corev1.ServiceAccount)).refer(a)
	if err != nil || rehearsal {
		return true, account, err
	}
	account.ResourceVersion = fmt.Sprint(w.revision.Add(1))
	return true, account, w.client.Tracker().Update(accountsResource, account, a.Namespace)
}

// update replaces an account.
func (w *world) update(account *corev1.ServiceAccount) {
	w.t.Helper()
	account.ResourceVersion = fmt.Sprint(w.revision.Add(1))
	w.must(w.client.Tracker().Update(accountsResource, account, account.Namespace))
}

// list answers the metadata client from the other client's tracker.
func (w *world) list(action clienttesting.Action) (bool, runtime.Object, error) {
	obj, err := w.client.Tracker().List(secretsResource, corev1.SchemeGroupVersion.WithKind("Secret"), action.GetNamespace())
	if err != nil {
		return true, nil, err
	}
	m := newModel()
	for _, secret := range obj.(*corev1.SecretList).Items {
		m.secrets[secret.Namespace+"/"+secret.Name] = &secret
	}
	return true, m.list(action.GetNamespace(), action.(clienttesting.ListActionImpl).ListRestrictions.Fields), nil
}

// gate lets tokens wait while it is shut.
type gate struct {
	mu      sync.Mutex
	shut    bool
	waiting []func()
}

func (g *gate) Write(ctx context.Context, c token.LegacyClaims, wake func(), write func(context.Context, string) error) error {
	g.mu.Lock()
	if g.shut {
		g.waiting = append(g.waiting, wake)
		g.mu.Unlock()
		return signingkey.ErrWaiting
	}
	g.mu.Unlock()
	return write(ctx, secretBytes+c.SecretName)
}

func (g *gate) set(shut bool) {
	g.mu.Lock()
	g.shut = shut
	waiting := g.waiting
	g.waiting = nil
	g.mu.Unlock()
	for _, wake := range waiting {
		wake()
	}
}

var generatedSuffix = regexp.MustCompile(`-token-[a-z0-9]{5}$`)

// expectWrites names what the controller wrote since the last time, sorted, with the
// random part of names left out.
func (w *world) expectWrites(step string, want ...string) {
	w.t.Helper()
	time.Sleep(15 * time.Second)
	synctest.Wait()
	var got []string
	for _, r := range testkit.Requests(w.client.Actions()) {
		if r.Verb != "list" && r.Verb != "watch" {
			got = append(got, r.Verb+" "+generatedSuffix.ReplaceAllString(r.Name, "-token-*"))
		}
	}
	w.client.ClearActions()
	slices.Sort(got)
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		w.t.Errorf("%s (-want +got):\n%s", step, diff)
	}
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
	synctest.Wait() // so that changes are seen in this order
}

// references are those of the account.
func (w *world) references(namespace, name string) []string {
	w.t.Helper()
	obj, err := w.client.Tracker().Get(accountsResource, namespace, name)
	w.must(err)
	var names []string
	for _, ref := range obj.(*corev1.ServiceAccount).Secrets {
		names = append(names, ref.Name)
	}
	return names
}

func ofLongAgo() testkit.Option {
	return func(o metav1.Object) {
		o.SetCreationTimestamp(metav1.NewTime(time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC)))
	}
}

func (w *world) secretsOf(namespace string) []string {
	w.t.Helper()
	obj, err := w.client.Tracker().List(secretsResource, corev1.SchemeGroupVersion.WithKind("Secret"), namespace)
	w.must(err)
	var names []string
	for _, secret := range obj.(*corev1.SecretList).Items {
		names = append(names, secret.Name)
	}
	return names
}
