package tokenrequest

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/ktesting"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/cabundle"
	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/internal/workqueue"
	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/testkit/leaks"
)

func TestMain(m *testing.M) { leaks.Main(m) }

// secretBytes is part of every token of these tests.
const secretBytes = "eyJ-must-not-be-seen"

// managed is team/s, which asks for a token of robot.
func managed(opts ...testkit.Option) *corev1.Secret {
	base := []testkit.Option{
		func(o metav1.Object) { o.(*corev1.Secret).Type = corev1.SecretTypeOpaque },
		testkit.WithLabel(api.TokenLabel, api.TokenManaged),
		testkit.WithAnnotation(api.ServiceAccountAnnotation, "robot"),
		testkit.WithData("mine", "yes"),
	}
	return testkit.Secret("team/s", append(base, opts...)...)
}

// with sets an annotation by its name without the prefix.
func with(name, value string) testkit.Option {
	return testkit.WithAnnotation("sakeeper.io/"+name, value)
}

func robot(opts ...testkit.Option) *corev1.ServiceAccount {
	return testkit.ServiceAccount("team/robot", opts...)
}

func served() *corev1.Namespace {
	return testkit.Namespace("team", testkit.WithLabel(api.TokenRequestsLabel, api.TokenRequestsAllowed))
}

// fixture is a controller whose caches the test fills, and a fake API server.
type fixture struct {
	*Controller
	api      *fakeAPIServer
	recorder *record.FakeRecorder
	clock    *clocktesting.FakePassiveClock
	registry *prometheus.Registry
	ca       *cabundle.Bundle
	logger   klog.Logger
}

func newFixture(t testing.TB, objects ...runtime.Object) fixture {
	t.Helper()
	bundle := testkit.Bundle()
	f := fixture{
		recorder: record.NewFakeRecorder(1000), registry: prometheus.NewRegistry(), ca: &bundle,
		clock:  clocktesting.NewFakePassiveClock(testkit.Instant().Add(time.Hour)),
		logger: ktesting.NewLogger(t, ktesting.NewConfig(ktesting.Verbosity(10), ktesting.BufferLogs(true))),
	}
	f.api = newFakeAPIServer(f.clock.Now, objects...)
	f.Controller = newController(t, f.api, func(cfg *Config) {
		cfg.Recorder, cfg.Clock, cfg.Monotonic, cfg.Registerer = f.recorder, f.clock, f.clock, f.registry
		cfg.CA, cfg.PublicServer = func() cabundle.Bundle { return *f.ca }, "https://api.example.com"
	})
	for _, obj := range objects {
		f.cache(t, obj)
	}
	t.Cleanup(func() {
		f.end()
		if strings.Contains(f.logger.GetSink().(ktesting.Underlier).GetBuffer().String(), secretBytes) {
			t.Error("the log holds a token")
		}
		f.expectEvents(t)
	})
	return f
}

func newController(t testing.TB, client kubernetes.Interface, with func(*Config)) *Controller {
	t.Helper()
	cfg := Config{Client: client.CoreV1(), CA: testkit.Bundle, Workers: 10}
	var errNamespaces, errSecrets, errAccounts error
	cfg.Namespaces, errNamespaces = cache.Namespaces(client)
	cfg.Secrets, errSecrets = cache.ManagedSecrets(client)
	cfg.ServiceAccounts, errAccounts = cache.ServiceAccounts(client)
	with(&cfg)
	c, err := New(cfg)
	if err := errors.Join(errNamespaces, errSecrets, errAccounts, err); err != nil {
		t.Fatal(err)
	}
	return c
}

// end shuts the queue down, which tests of a fixture do not run.
func (f fixture) end() {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = f.Run(ctx)
}

// cache adds obj to its cache.
func (f fixture) cache(t testing.TB, obj runtime.Object) {
	t.Helper()
	var err error
	switch obj := obj.(type) {
	case *corev1.Secret:
		err = f.cfg.Secrets.GetStore().Add(cache.NewManagedSecret(obj.DeepCopy()))
	case *corev1.Namespace:
		err = f.cfg.Namespaces.GetStore().Add(obj)
	default:
		err = f.cfg.ServiceAccounts.GetStore().Add(obj)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// syncSecret syncs team/s with the cache as it is.
func (f fixture) syncSecret(t testing.TB) (time.Duration, error) {
	t.Helper()
	return f.sync(klog.NewContext(t.Context(), f.logger), toolscache.ObjectName{Namespace: "team", Name: "s"})
}

// mustSync updates the cache and syncs team/s.
func (f fixture) mustSync(t testing.TB) time.Duration {
	t.Helper()
	if secret := f.api.secret(); secret != nil {
		f.cache(t, secret)
	}
	again, err := f.syncSecret(t)
	if err != nil && !errors.Is(err, workqueue.ErrRequeueLater) {
		t.Fatal(err)
	}
	return again
}

// mustFail syncs team/s with the cache as it is.
func (f fixture) mustFail(t testing.TB) {
	t.Helper()
	if _, err := f.syncSecret(t); err == nil {
		t.Error("no error")
	}
}

// requests returns the requests since the last call.
func (f fixture) requests() []testkit.Request {
	requests := testkit.Requests(f.api.Actions())
	f.api.ClearActions()
	return requests
}

// summary returns the requests since the last call without bodies.
func (f fixture) summary() []string { return summaryOf(f.requests()) }

func summaryOf(requests []testkit.Request) []string {
	var lines []string
	for _, r := range requests {
		lines = append(lines, r.Verb+" "+r.Resource+" "+r.Name)
	}
	return lines
}

// expectRequests compares the requests since the last call.
func (f fixture) expectRequests(t testing.TB, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, f.summary()); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}

// expectSync updates the cache, syncs team/s and compares the requests since the last call.
func (f fixture) expectSync(t testing.TB, want ...string) {
	t.Helper()
	f.mustSync(t)
	f.expectRequests(t, want...)
}

// expectEvents compares the events since the last call.
func (f fixture) expectEvents(t testing.TB, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, testkit.Events(f.recorder)); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

// pass advances the clock.
func (f fixture) pass(d time.Duration) { f.clock.SetTime(f.clock.Now().Add(d)) }
