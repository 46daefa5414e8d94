package tokengeneration

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	metadatafake "k8s.io/client-go/metadata/fake"
	clienttesting "k8s.io/client-go/testing"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/ktesting"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/token"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errBoom = errors.New("boom")

// secretBytes is part of every token of these tests.
const secretBytes = "eyJ-must-not-be-seen"

// tokens makes tokens that contain their claims. It writes none if err is set.
type tokens struct {
	err  error
	wake func()
}

func (s *tokens) Write(ctx context.Context, c token.LegacyClaims, wake func(), write func(context.Context, string) error) error {
	if s.err != nil {
		s.wake = wake
		return s.err
	}
	return write(ctx, tokenFor(c.SecretName, types.UID(c.ServiceAccountUID)))
}

func tokenFor(secret string, account types.UID) string {
	return strings.Join([]string{secretBytes, "team", secret, "robot", string(account)}, " ")
}

// fixture is a controller of [ModeAll] whose caches the test fills.
type fixture struct {
	*Controller
	server   *fakeAPIServer
	client   *fake.Clientset
	metadata *metadatafake.FakeMetadataClient
	tokens   *tokens
	recorder *record.FakeRecorder
	clock    *clocktesting.FakePassiveClock
	logger   klog.Logger
}

// newFixture makes a controller that uses m. Its caches have only the namespace team.
func newFixture(t testing.TB, m *fakeAPIServer) fixture {
	t.Helper()
	f := fixture{
		server: m, client: &fake.Clientset{}, metadata: &metadatafake.FakeMetadataClient{}, tokens: &tokens{},
		recorder: record.NewFakeRecorder(1000),
		clock:    clocktesting.NewFakePassiveClock(testkit.Instant()),
		logger:   ktesting.NewLogger(t, ktesting.NewConfig(ktesting.Verbosity(10), ktesting.BufferLogs(true))),
	}
	f.recorder.IncludeObject = true
	f.client.AddReactor("*", "*", m.react)
	f.metadata.AddReactor("*", "*", m.react)
	f.Controller = newController(t, f.client, func(cfg *Config) {
		cfg.Metadata, cfg.Tokens, cfg.Recorder, cfg.Clock = f.metadata, f.tokens, f.recorder, f.clock
	})
	f.cache(t, testkit.Namespace("team"))
	t.Cleanup(func() {
		f.end()
		if strings.Contains(f.logs(), secretBytes) {
			t.Error("the log holds a token")
		}
	})
	return f
}

func newController(t testing.TB, client kubernetes.Interface, with func(*Config)) *Controller {
	t.Helper()
	c, err := New(newConfig(t, client, with))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// newConfig makes a Config. with must set the clients, Tokens, Recorder and Clock.
func newConfig(t testing.TB, client kubernetes.Interface, with func(*Config)) Config {
	t.Helper()
	cfg := Config{Mode: ModeAll, Client: client.CoreV1(), CA: testkit.Bundle, Workers: 10}
	var errNamespaces, errSecrets, errAccounts error
	cfg.Namespaces, errNamespaces = cache.Namespaces(client)
	cfg.Secrets, errSecrets = cache.TokenSecrets(client, nil)
	cfg.ServiceAccounts, errAccounts = cache.ServiceAccounts(client)
	if err := errors.Join(errNamespaces, errSecrets, errAccounts); err != nil {
		t.Fatal(err)
	}
	with(&cfg)
	return cfg
}

// cache adds obj to its cache.
func (f fixture) cache(t testing.TB, obj metav1.Object) {
	t.Helper()
	var err error
	switch obj := obj.(type) {
	case *corev1.Secret:
		err = f.cfg.Secrets.GetStore().Add(cache.NewTokenSecret(obj.DeepCopy(), nil))
	case *corev1.Namespace:
		err = f.cfg.Namespaces.GetStore().Add(obj)
	default:
		err = f.cfg.ServiceAccounts.GetStore().Add(obj)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// end shuts the queue down, which tests of a fixture do not run.
func (f fixture) end() {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = f.Run(ctx)
}

// plan sets the plan of team/robot: to create robot-token-ddddd, modified by change.
func (f fixture) plan(change func(*plan)) {
	f.plans.update(robotKey(), testkit.AccountUID, func(p *plan) { *p = withPlan(change) })
}

func (f fixture) context(t testing.TB) context.Context {
	t.Helper()
	return klog.NewContext(t.Context(), f.logger)
}

func (f fixture) logs() string {
	return f.logger.GetSink().(ktesting.Underlier).GetBuffer().String()
}

// writes returns the writes since the last call. A dry run has a verb of its own.
func (f fixture) writes() []testkit.Request {
	var actions []clienttesting.Action
	var dryRun []bool
	for _, action := range f.client.Actions() {
		patch, ok := action.(clienttesting.PatchActionImpl)
		actions, dryRun = append(actions, action), append(dryRun, ok && len(patch.PatchOptions.DryRun) > 0)
	}
	f.client.ClearActions()
	requests := testkit.Requests(actions)
	for i := range requests {
		if dryRun[i] {
			requests[i].Verb = "dry-run"
		}
	}
	return requests
}

// lists returns the selectors of the list requests since the last call.
func (f fixture) lists() []string {
	var selectors []string
	for _, action := range f.metadata.Actions() {
		list := action.(clienttesting.ListActionImpl)
		selectors = append(selectors, list.Namespace+" "+list.ListRestrictions.Fields.String())
	}
	f.metadata.ClearActions()
	return selectors
}

// pass advances the clock.
func (f fixture) pass(d time.Duration) { f.clock.SetTime(f.clock.Now().Add(d)) }

func robotKey() toolscache.ObjectName { return toolscache.ObjectName{Namespace: "team", Name: "robot"} }
