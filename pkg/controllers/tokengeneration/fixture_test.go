package tokengeneration

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/ktesting"
	"k8s.io/utils/clock"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/internal/workqueue"
	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/testkit/fakeapi"
	"github.com/sakeeper/sakeeper/pkg/testkit/leaks"
	"github.com/sakeeper/sakeeper/pkg/token"
)

func TestMain(m *testing.M) { leaks.Main(m) }

var errBoom = errors.New("boom")

// secretBytes is part of every token of these tests.
const secretBytes = "eyJ-must-not-be-seen"

// robot is the ServiceAccount of most tests.
func robot(opts ...testkit.Option) *corev1.ServiceAccount {
	return testkit.ServiceAccount("team/robot", opts...)
}

func robotKey() toolscache.ObjectName { return toolscache.ObjectName{Namespace: "team", Name: "robot"} }

// tokenSecret is team/<name> of team/robot, complete, less what opts change.
func tokenSecret(name string, opts ...testkit.Option) *corev1.Secret {
	return testkit.Secret("team/"+name, append([]testkit.Option{
		testkit.WithAccount("robot"), testkit.WithAccountUID(testkit.AccountUID), testkit.WithData("token", secretBytes),
		testkit.WithData("ca.crt", string(testkit.Bundle().PEM())), testkit.WithData("namespace", "team"),
	}, opts...)...)
}

// labelled sets the label that enables or disables tokens, unless value is empty.
func labelled(value string) testkit.Option {
	if value == "" {
		return func(metav1.Object) {}
	}
	return testkit.WithLabel("sakeeper.io/auto-token", value)
}

func marked() testkit.Option { return testkit.WithLabel(token.InvalidSinceLabel, "2026-01-01") }

// planned is the Secret in the plan of a fixture.
const planned = "robot-token-ddddd"

// withPlan is the plan of team/robot to create that Secret, modified by changes.
func withPlan(changes ...func(*plan)) plan {
	p := plan{accountUID: testkit.AccountUID, secretName: planned}
	for _, change := range changes {
		change(&p)
	}
	return p
}

// The states of a plan.
func created(p *plan)         { p.secretUID = testkit.SecretUID }
func createdNow(p *plan)      { p.secretUID = "uid-1001" }
func unanswered(p *plan)      { p.createDeadline = testkit.Instant() }
func mayBeReferenced(p *plan) { p.maybeReferenced = true }
func rejected(p *plan)        { p.rejected = true }
func withoutSecret(p *plan)   { p.secretName = "" }

// referencedAt is the state after a reference was written.
func referencedAt(version string) func(*plan) {
	return func(p *plan) { p.maybeReferenced, p.accountVersion = true, version }
}

func withConflicts(n int) func(*plan) { return func(p *plan) { p.conflicts = n } }

// tokens makes tokens that contain their claims. It writes none if err is set.
type tokens struct{ err error }

func (s *tokens) Sign(_ context.Context, c token.LegacyClaims) (string, time.Duration, error) {
	if s.err != nil {
		return "", 0, s.err
	}
	return tokenFor(c.SecretName, types.UID(c.ServiceAccountUID)), 0, nil
}

func tokenFor(secret string, account types.UID) string {
	return strings.Join([]string{secretBytes, "team", secret, "robot", string(account)}, " ")
}

// newController makes a controller of [ModeAll]. with may change its Config.
func newController(t testing.TB, client kubernetes.Interface, meta metadata.Interface, with func(*Config)) *Controller {
	t.Helper()
	cfg := newConfig(t, client, meta)
	with(&cfg)
	c, err := New(cfg)
	must(t, err)
	return c
}

func newConfig(t testing.TB, client kubernetes.Interface, meta metadata.Interface) Config {
	t.Helper()
	cfg := Config{
		Mode: ModeAll, Client: client.CoreV1(), Metadata: meta, CA: testkit.Bundle, Workers: 10,
		Tokens: &tokens{}, Recorder: record.NewFakeRecorder(1000), Clock: clock.RealClock{},
	}
	var errNamespaces, errSecrets, errAccounts error
	cfg.Namespaces, errNamespaces = cache.Namespaces(client)
	cfg.Secrets, errSecrets = cache.TokenSecrets(client, nil)
	cfg.ServiceAccounts, errAccounts = cache.ServiceAccounts(client)
	must(t, errors.Join(errNamespaces, errSecrets, errAccounts))
	return cfg
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// fixture is a controller of [ModeAll] whose caches the test fills. They have the namespace team.
type fixture struct {
	*Controller
	server   *fakeapi.Server
	tokens   *tokens
	recorder *record.FakeRecorder
	clock    *clocktesting.FakePassiveClock
	logger   klog.Logger
}

func newFixture(t testing.TB, server *fakeapi.Server) fixture {
	t.Helper()
	f := fixture{
		server: server, tokens: &tokens{}, recorder: record.NewFakeRecorder(1000), clock: clocktesting.NewFakePassiveClock(testkit.Instant()),
		logger: ktesting.NewLogger(t, ktesting.NewConfig(ktesting.Verbosity(10), ktesting.BufferLogs(true))),
	}
	f.recorder.IncludeObject = true
	f.Controller = newController(t, server, server.Metadata, func(cfg *Config) {
		cfg.Tokens, cfg.Recorder, cfg.Clock = f.tokens, f.recorder, f.clock
	})
	f.cache(t, testkit.Namespace("team"))
	testkit.EndQueue(t, f)
	t.Cleanup(func() {
		if strings.Contains(f.logger.GetSink().(ktesting.Underlier).GetBuffer().String(), secretBytes) {
			t.Error("the log holds a token")
		}
	})
	return f
}

// newRobotFixture has team/robot in API server and cache, and a plan for it.
func newRobotFixture(t testing.TB, account *corev1.ServiceAccount, changes ...func(*plan)) fixture {
	t.Helper()
	f := newFixture(t, fakeapi.New(account))
	f.cache(t, account)
	f.plans.update(robotKey(), testkit.AccountUID, func(p *plan) { *p = withPlan(changes...) })
	return f
}

// cache adds obj to its cache.
func (f fixture) cache(t testing.TB, obj metav1.Object) {
	t.Helper()
	switch obj := obj.(type) {
	case *corev1.Secret:
		must(t, f.cfg.Secrets.GetStore().Add(cache.NewTokenSecret(obj.DeepCopy(), nil)))
	case *corev1.Namespace:
		must(t, f.cfg.Namespaces.GetStore().Add(obj))
	default:
		must(t, f.cfg.ServiceAccounts.GetStore().Add(obj))
	}
}

func (f fixture) syncAccount(t testing.TB, account string) (time.Duration, error) {
	t.Helper()
	return f.sync(klog.NewContext(t.Context(), f.logger), toolscache.ObjectName{Namespace: "team", Name: account})
}

// mustSync is syncAccount of an account that may have to wait.
func (f fixture) mustSync(t testing.TB, account string) time.Duration {
	t.Helper()
	again, err := f.syncAccount(t, account)
	if err != nil && !errors.Is(err, workqueue.ErrRequeueLater) {
		t.Fatal(err)
	}
	return again
}

// pass advances the clock.
func (f fixture) pass(d time.Duration) { f.clock.SetTime(f.clock.Now().Add(d)) }
