package tokenreferences

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/metadata"
	metadatafake "k8s.io/client-go/metadata/fake"
	clienttesting "k8s.io/client-go/testing"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/clock"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/testkit/leaks"
)

func TestMain(m *testing.M) { leaks.Main(m) }

var errBoom = errors.New("boom")

// apiServer is what a fake API server holds and how it answers.
type apiServer struct {
	accounts []*corev1.ServiceAccount
	secrets  []string // "namespace/name"
	reads    error    // the answer to all reads
	writes   error    // the answer to all writes
}

func (s apiServer) react(action clienttesting.Action) (bool, runtime.Object, error) {
	get, ok := action.(clienttesting.GetActionImpl)
	if !ok {
		return true, nil, s.writes
	}
	if s.reads != nil {
		return true, nil, s.reads
	}
	name := get.GetNamespace() + "/" + get.GetName()
	for _, account := range s.accounts {
		if get.GetResource().Resource == "serviceaccounts" && account.Namespace+"/"+account.Name == name {
			return true, account, nil
		}
	}
	for _, secret := range s.secrets {
		if get.GetResource().Resource == "secrets" && secret == name {
			return true, &metav1.PartialObjectMetadata{}, nil
		}
	}
	return true, nil, testkit.NotFound()
}

// fixture is a controller whose caches are filled by the test.
type fixture struct {
	*Controller
	client   *fake.Clientset
	metadata *metadatafake.FakeMetadataClient
	recorder *record.FakeRecorder
	clock    *clocktesting.FakePassiveClock
}

func newFixture(t testing.TB, s apiServer, cached ...metav1.Object) fixture {
	t.Helper()
	f := fixture{
		client:   &fake.Clientset{},
		metadata: &metadatafake.FakeMetadataClient{},
		recorder: record.NewFakeRecorder(100),
		clock:    clocktesting.NewFakePassiveClock(testkit.Instant()),
	}
	f.client.AddReactor("*", "*", s.react)
	f.metadata.AddReactor("*", "*", s.react)
	f.Controller = newController(t, f.client, f.metadata, f.recorder, f.clock)
	for _, obj := range cached {
		f.cache(t, obj)
	}
	return f
}

func newController(t testing.TB, client *fake.Clientset, meta metadata.Interface, recorder record.EventRecorder, clock clock.PassiveClock) *Controller {
	t.Helper()
	secrets, errSecrets := cache.TokenSecrets(client, nil)
	accounts, errAccounts := cache.ServiceAccounts(client)
	c, err := New(Config{
		Client: client.CoreV1(), Metadata: meta, Secrets: secrets, ServiceAccounts: accounts,
		Recorder: recorder, Clock: clock, Workers: 2,
	})
	if err := errors.Join(errSecrets, errAccounts, err); err != nil {
		t.Fatal(err)
	}
	testkit.EndQueue(t, c)
	return c
}

// cache puts obj into the cache of its kind.
func (f fixture) cache(t testing.TB, obj metav1.Object) {
	t.Helper()
	var err error
	switch obj := obj.(type) {
	case *corev1.Secret:
		err = f.cfg.Secrets.GetStore().Add(cache.NewTokenSecret(obj.DeepCopy(), nil))
	default:
		err = f.cfg.ServiceAccounts.GetStore().Add(obj)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// runQueue runs the queue without waiting for the informers, which no test of a fixture starts.
func (f fixture) runQueue(ctx context.Context) error { return f.queue.Run(ctx) }

// syncRobot syncs team/robot.
func (f fixture) syncRobot(t *testing.T) (time.Duration, error) {
	t.Helper()
	return f.sync(testkit.Context(t), objectName("team/robot"))
}

// lookedUp are the Secrets that were read through the metadata client.
func (f fixture) lookedUp() []string {
	var names []string
	for _, r := range testkit.Requests(f.metadata.Actions()) {
		names = append(names, r.Verb+" "+r.Resource+" "+r.Name)
	}
	return names
}

// expectRequests compares the requests about accounts and the lookups of Secrets.
func (f fixture) expectRequests(t *testing.T, want []testkit.Request, wantLookups []string) {
	t.Helper()
	if diff := cmp.Diff(want, testkit.Requests(f.client.Actions())); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(wantLookups, f.lookedUp()); diff != "" {
		t.Errorf("lookups (-want +got):\n%s", diff)
	}
}

// expectDangling compares how many references of team/robot dangle. If any do, they must be counted
// again later.
func (f fixture) expectDangling(t *testing.T, want int, requeueAfter time.Duration) {
	t.Helper()
	if got := f.dangling.get(objectName("team/robot")); got != want {
		t.Errorf("%d references dangle, want %d", got, want)
	}
	if want > 0 && requeueAfter != time.Hour {
		t.Errorf("counted again after %v", requeueAfter)
	}
}

// advance sets the clock forward.
func (f fixture) advance(d time.Duration) { f.clock.SetTime(f.clock.Now().Add(d)) }

func objectName(name string) toolscache.ObjectName {
	parsed, _ := toolscache.ParseObjectName(name)
	return parsed
}

// robot is team/robot with references.
func robot(names ...string) *corev1.ServiceAccount {
	return testkit.ServiceAccount("team/robot", testkit.WithReferences(names...))
}

// secretOfRobot is a cached Secret of team/robot, whose UID is account.
func secretOfRobot(name string, account types.UID) *cache.TokenSecret {
	return cache.NewTokenSecret(testkit.Secret("team/"+name, testkit.WithAccount("robot"), testkit.WithAccountUID(account)), nil)
}

// getAccount is the live GET of team/robot.
func getAccount() testkit.Request {
	return testkit.Request{Verb: "get", Resource: "serviceaccounts", Name: "team/robot"}
}

// patchTo is the one patch that leaves these references.
func patchTo(version string, left ...string) testkit.Request {
	var refs any // null if none is left
	if len(left) > 0 {
		var list []any
		for _, name := range left {
			list = append(list, map[string]any{"name": name})
		}
		refs = list
	}
	return testkit.Request{Verb: "patch", Resource: "serviceaccounts", Name: "team/robot", Body: map[string]any{
		"metadata": map[string]any{"uid": string(testkit.AccountUID), "resourceVersion": version},
		"secrets":  refs,
	}}
}
