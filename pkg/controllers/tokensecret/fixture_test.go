package tokensecret

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/ktesting"
	"k8s.io/utils/clock"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/sakeeper/sakeeper/pkg/cabundle"
	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/internal/tokenreview"
	"github.com/sakeeper/sakeeper/pkg/keys"
	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/testkit/leaks"
	"github.com/sakeeper/sakeeper/pkg/token"
)

func TestMain(m *testing.M) { leaks.Main(m) }

var errBoom = errors.New("boom")

// secretBytes is in every token of these tests and nowhere else.
const secretBytes = "eyJ-must-not-be-seen"

// tokens makes tokens that consist of their claims, or fails with err.
type tokens struct {
	err error
	set *keys.Set // the known keys
	// incomplete: the API server was not asked yet which keys it publishes.
	incomplete bool
	refreshed  *int
}

func (s tokens) Known() (*keys.Set, bool) { return s.set, !s.incomplete }

func (s tokens) Refresh() { *s.refreshed++ }

func (s tokens) Sign(_ context.Context, c token.LegacyClaims) (string, time.Duration, error) {
	if s.err != nil {
		return "", 0, s.err
	}
	return tokenFor(c.Namespace+"/"+c.SecretName, c.ServiceAccountName, c.ServiceAccountUID), 0, nil
}

// fakeReviewer gives the same answer to all reviews, and records the tokens.
type fakeReviewer struct {
	answer   tokenreview.Result
	err      error
	reviewed []string
}

func (r *fakeReviewer) Review(_ context.Context, compact string) (tokenreview.Result, error) {
	r.reviewed = append(r.reviewed, compact)
	return r.answer, r.err
}

func tokenFor(secret, account, uid string) string {
	return strings.Join([]string{secretBytes, secret, account, uid}, " ")
}

// apiServer is what a fake API server holds and how it answers.
type apiServer struct {
	accounts []*corev1.ServiceAccount
	reads    error // the answer to all reads
	writes   error // the answer to all writes
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
	return true, nil, testkit.NotFound()
}

// fixture is a controller whose caches are filled by the test.
type fixture struct {
	*Controller
	client   *fake.Clientset
	recorder *record.FakeRecorder
	clock    *clocktesting.FakePassiveClock
	logger   klog.Logger
	reviewer *fakeReviewer
}

func newFixture(t testing.TB, s apiServer, cached ...metav1.Object) fixture {
	t.Helper()
	f := fixture{
		client:   &fake.Clientset{},
		recorder: record.NewFakeRecorder(100),
		clock:    clocktesting.NewFakePassiveClock(testkit.Instant()),
		logger:   ktesting.NewLogger(t, ktesting.NewConfig(ktesting.Verbosity(10), ktesting.BufferLogs(true))),
	}
	f.recorder.IncludeObject = true
	f.client.AddReactor("*", "*", s.react)
	f.reviewer = &fakeReviewer{}
	f.Controller = newController(t, f.client, f.recorder, f.clock, testkit.Bundle, f.reviewer)
	for _, obj := range cached {
		f.cache(t, obj)
	}
	t.Cleanup(func() {
		if strings.Contains(f.logs(), secretBytes) {
			t.Error("the log holds a token")
		}
	})
	return f
}

func newController(t testing.TB, client *fake.Clientset, recorder record.EventRecorder, clock clock.PassiveClock, ca func() cabundle.Bundle, reviewer tokenReviewer) *Controller {
	t.Helper()
	set := testkit.Keys("p256", "rsa2048")
	cfg := Config{
		Client: client.CoreV1(), Tokens: tokens{set: set, refreshed: new(int)}, CA: ca, Recorder: recorder, Clock: clock, Workers: 2,
		TokenReviews: client.AuthenticationV1().TokenReviews(), Resign: ResignDead,
	}
	var errNamespaces, errSecrets, errAccounts error
	cfg.Namespaces, errNamespaces = cache.Namespaces(client)
	cfg.Secrets, errSecrets = cache.TokenSecrets(client, nil)
	cfg.ServiceAccounts, errAccounts = cache.ServiceAccounts(client)
	c, err := New(cfg)
	if err := errors.Join(errNamespaces, errSecrets, errAccounts, err); err != nil {
		t.Fatal(err)
	}
	c.reviewer = reviewer
	t.Cleanup(func() { // ends the queue if no test ran it
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = c.Run(ctx)
	})
	return c
}

// cache puts obj into the cache of its kind.
func (f fixture) cache(t testing.TB, obj metav1.Object) {
	t.Helper()
	var err error
	switch obj := obj.(type) {
	case *corev1.Secret:
		inspect := token.NewVerifier(f.known).Inspect
		err = f.cfg.Secrets.GetStore().Add(cache.NewTokenSecret(obj.DeepCopy(), inspect))
	case *corev1.Namespace:
		err = f.cfg.Namespaces.GetStore().Add(obj)
	default:
		err = f.cfg.ServiceAccounts.GetStore().Add(obj)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (f fixture) context(t *testing.T) context.Context {
	t.Helper()
	return klog.NewContext(t.Context(), f.logger)
}

// runQueue runs the queue without waiting for the informers, which no test of a fixture starts.
func (f fixture) runQueue(ctx context.Context) error { return f.queue.Run(ctx) }

func (f fixture) logs() string {
	return f.logger.GetSink().(ktesting.Underlier).GetBuffer().String()
}

// advance sets the clock forward.
func (f fixture) advance(d time.Duration) { f.clock.SetTime(f.clock.Now().Add(d)) }

func objectName(name string) toolscache.ObjectName {
	parsed, _ := toolscache.ParseObjectName(name)
	return parsed
}

// robot is team/robot.
func robot() *corev1.ServiceAccount { return testkit.ServiceAccount("team/robot") }

// getAccount is the live GET of team/robot.
func getAccount() testkit.Request {
	return testkit.Request{Verb: "get", Resource: "serviceaccounts", Name: "team/robot"}
}
