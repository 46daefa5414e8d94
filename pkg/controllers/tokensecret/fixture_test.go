package tokensecret

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/ktesting"
	"k8s.io/utils/clock"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/internal/tokenreview"
	"github.com/sakeeper/sakeeper/pkg/internal/workqueue"
	"github.com/sakeeper/sakeeper/pkg/keys"
	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/testkit/fakeapi"
	"github.com/sakeeper/sakeeper/pkg/testkit/leaks"
	"github.com/sakeeper/sakeeper/pkg/token"
)

func TestMain(m *testing.M) { leaks.Main(m) }

var errBoom = errors.New("boom")

// The keys of the fixture, and one that it does not know. Two signatures of the key that signs are
// equal if their claims are.
const (
	signingKey, olderKey, unknownKey = "rsa2048", "p256", "p384"
	// beginningOfTokens is in no log.
	beginningOfTokens = "eyJ"
	// accountUser is the user name of team/robot.
	accountUser = "system:serviceaccount:team:robot"
)

// robot is the ServiceAccount of most tests.
func robot(opts ...testkit.Option) *corev1.ServiceAccount {
	return testkit.ServiceAccount("team/robot", opts...)
}

// empty is team/s of team/robot before it is filled.
func empty(opts ...testkit.Option) *corev1.Secret {
	return testkit.Secret("team/s", append([]testkit.Option{testkit.WithAccount("robot")}, opts...)...)
}

// secret is team/s of team/robot as it should be, changed by opts.
func secret(opts ...testkit.Option) *corev1.Secret {
	return empty(append([]testkit.Option{
		testkit.WithAccountUID(testkit.AccountUID), withToken(ownToken()),
		testkit.WithData("ca.crt", string(testkit.Bundle().PEM())), testkit.WithData("namespace", "team"),
	}, opts...)...)
}

func withToken(compact string) testkit.Option { return testkit.WithData("token", compact) }
func named(name string) testkit.Option        { return func(o metav1.Object) { o.SetName(name) } }

// The tokens of such Secrets stay as they are.
func neverResign() testkit.Option { return testkit.WithAnnotation(api.ResignAnnotation, "never") }
func invalidated() testkit.Option { return testkit.WithLabel(token.InvalidSinceLabel, "2026-01-02") }

// signed is a token of team/s for team/robot, less what change makes different.
func signed(key string, change ...func(*token.LegacyClaims)) string {
	claims := token.LegacyClaims{Namespace: "team", SecretName: "s", ServiceAccountName: "robot", ServiceAccountUID: string(testkit.AccountUID)}
	for _, c := range change {
		c(&claims)
	}
	compact, err := sign(testkit.Keys(key), claims)
	if err != nil {
		panic(err)
	}
	return compact
}

// ownToken is the token of team/s.
var ownToken = sync.OnceValue(func() string { return signed(signingKey) })

func sign(set *keys.Set, claims token.LegacyClaims) (string, error) {
	return token.NewSigner(func() *keys.Set { return set }).SignLegacy(context.Background(), claims)
}

func ofSecret(name string) func(*token.LegacyClaims) {
	return func(c *token.LegacyClaims) { c.SecretName = name }
}
func ofOtherNamespace(c *token.LegacyClaims) { c.Namespace = "other" }
func ofOtherName(c *token.LegacyClaims)      { c.ServiceAccountName = "other" }
func ofOtherUID(c *token.LegacyClaims)       { c.ServiceAccountUID = string(testkit.OtherUID) }

// tokens are the known keys, of which the first signs. It signs nothing if err is set.
type tokens struct {
	err        error
	set        *keys.Set
	incomplete bool // the API server was not asked yet which keys it publishes
	refreshed  int
}

func (s *tokens) Known() (*keys.Set, bool) { return s.set, !s.incomplete }

func (s *tokens) Refresh() { s.refreshed++ }

func (s *tokens) Sign(_ context.Context, claims token.LegacyClaims) (string, time.Duration, error) {
	if s.err != nil {
		return "", 0, s.err
	}
	compact, err := sign(s.set, claims)
	return compact, 0, err
}

// reviewer accepts all tokens as those of user, or refuses them if that is empty.
type reviewer struct {
	user     string
	err      error
	reviewed []string
}

func (r *reviewer) Review(_ context.Context, compact string) (tokenreview.Result, error) {
	r.reviewed = append(r.reviewed, compact)
	return tokenreview.Result{Username: r.user}, r.err
}

// fixture is a controller and an API server. Tests change the caches of a controller that does not
// run.
type fixture struct {
	*Controller
	server   *fakeapi.Server
	tokens   *tokens
	reviewer *reviewer
	recorder *record.FakeRecorder
	clock    *clocktesting.FakePassiveClock
	logger   klog.Logger
}

// newFixture has objects in the API server and in the caches.
func newFixture(t testing.TB, objects ...runtime.Object) fixture {
	t.Helper()
	clock := clocktesting.NewFakePassiveClock(testkit.Instant())
	f := newFixtureWith(t, clock, objects...)
	f.clock = clock
	for _, obj := range objects {
		f.cache(t, obj)
	}
	return f
}

// newFixtureWith has objects in the API server alone.
func newFixtureWith(t testing.TB, clock clock.PassiveClock, objects ...runtime.Object) fixture {
	t.Helper()
	f := fixture{
		server: fakeapi.New(objects...), tokens: &tokens{set: testkit.Keys(signingKey, olderKey)}, reviewer: &reviewer{}, recorder: record.NewFakeRecorder(100),
		logger: ktesting.NewLogger(t, ktesting.NewConfig(ktesting.Verbosity(10), ktesting.BufferLogs(true))),
	}
	f.recorder.IncludeObject = true
	f.Controller = f.newController(t, clock)
	t.Cleanup(func() {
		if strings.Contains(f.logs(), beginningOfTokens) {
			t.Error("the log holds a token")
		}
	})
	return f
}

func (f fixture) newController(t testing.TB, clock clock.PassiveClock) *Controller {
	t.Helper()
	cfg := Config{
		Client: f.server.CoreV1(), Tokens: f.tokens, CA: testkit.Bundle, Recorder: f.recorder, Clock: clock, Workers: 2,
		TokenReviews: f.server.AuthenticationV1().TokenReviews(), Resign: ResignDead,
	}
	var errNamespaces, errSecrets, errAccounts error
	cfg.Namespaces, errNamespaces = cache.Namespaces(f.server)
	cfg.Secrets, errSecrets = cache.TokenSecrets(f.server, f.inspect)
	cfg.ServiceAccounts, errAccounts = cache.ServiceAccounts(f.server)
	c, err := New(cfg)
	if err := errors.Join(errNamespaces, errSecrets, errAccounts, err); err != nil {
		t.Fatal(err)
	}
	c.reviewer = f.reviewer
	testkit.EndQueue(t, c)
	return c
}

func (f fixture) inspect(compact string) (token.Inspection, error) {
	return token.NewVerifier(func() *keys.Set { return f.tokens.set }).Inspect(compact)
}

// cache puts obj into the cache of its kind.
func (f fixture) cache(t testing.TB, obj runtime.Object) {
	t.Helper()
	var err error
	switch obj := obj.(type) {
	case *corev1.Secret:
		err = f.cfg.Secrets.GetStore().Add(cache.NewTokenSecret(obj.DeepCopy(), f.inspect))
	case *corev1.Namespace:
		err = f.cfg.Namespaces.GetStore().Add(obj)
	default:
		err = f.cfg.ServiceAccounts.GetStore().Add(obj)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// cached is what the cache has of team/s.
func (f fixture) cached() *cache.TokenSecret { return f.cachedSecret("s") }

func (f fixture) cachedSecret(name string) *cache.TokenSecret {
	cached, _ := cache.Get(f.cfg.Secrets, "team/"+name)
	return cached
}

// addToServer adds obj to the API server, with its UID and version.
func (f fixture) addToServer(t testing.TB, obj runtime.Object) {
	t.Helper()
	if err := f.server.Tracker().Add(obj); err != nil {
		t.Fatal(err)
	}
}

// uncache removes an account from the cache.
func (f fixture) uncache(t testing.TB, account *corev1.ServiceAccount) {
	t.Helper()
	if err := f.cfg.ServiceAccounts.GetStore().Delete(account); err != nil {
		t.Fatal(err)
	}
}

// syncOnce syncs a Secret of the namespace team, which may have to wait.
func (f fixture) syncOnce(t testing.TB, name string) (requeueAfter time.Duration) {
	t.Helper()
	requeueAfter, err := f.sync(f.context(t), toolscache.ObjectName{Namespace: "team", Name: name})
	if err != nil && !errors.Is(err, workqueue.ErrRequeueLater) {
		t.Fatal(err)
	}
	return requeueAfter
}

func (f fixture) syncS(t testing.TB) (time.Duration, error) {
	t.Helper()
	return f.sync(f.context(t), toolscache.ObjectName{Namespace: "team", Name: "s"})
}

func (f fixture) context(t testing.TB) context.Context {
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

// undo makes the API server lose all writes, as if another client undid them at once.
func (f fixture) undo() {
	f.server.Inject(func(action clienttesting.Action) *fakeapi.Fault {
		if action.GetVerb() == "get" {
			return nil
		}
		return &fakeapi.Fault{}
	})
}

// requests are the requests since the last call: verb, resource and name. A patch of nothing but the
// note about a review is a "note".
func (f fixture) requests() []string { return lines(f.server.Requests()) }

func lines(actions []clienttesting.Action) []string {
	var list []string
	for _, r := range testkit.Requests(actions) {
		switch {
		case r.Verb == "list":
		case noteOf(r) != "":
			list = append(list, "note "+r.Name)
		default:
			list = append(list, r.Verb+" "+r.Resource+" "+r.Name)
		}
	}
	return list
}

// writes are the requests since the last call without GETs.
func (f fixture) writes() []string {
	return slices.DeleteFunc(f.requests(), func(request string) bool { return strings.HasPrefix(request, "get ") })
}

// noteOf returns the note of a patch that writes nothing but a note.
func noteOf(r testkit.Request) string {
	body, _ := r.Body.(map[string]any)
	metadata, _ := body["metadata"].(map[string]any)
	annotations, _ := metadata["annotations"].(map[string]any)
	note, _ := annotations[api.ReviewedAnnotation].(string)
	if len(body) != 1 || len(annotations) != 1 || len(metadata) != 3 {
		return ""
	}
	return note
}

// expectRequests compares requests of [fixture.requests], [fixture.writes] or [testkit.Requests].
func expectRequests[R any](t testing.TB, got []R, want ...R) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" && len(want)+len(got) > 0 {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}
