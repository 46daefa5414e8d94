package tokencleaner

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/ktesting"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/testkit/leaks"
)

func TestMain(m *testing.M) { leaks.Main(m) }

var errBoom = errors.New("boom")

// secretBytes is part of every token of these tests and of nothing else.
const secretBytes = "eyJ-must-not-be-seen"

// server is a fake API server for the requests that the controller does not answer from a
// cache.
type server struct {
	mu sync.Mutex
	// tracking may be nil.
	tracking *corev1.ConfigMap
	// pods are pages by namespace.
	pods map[string][]corev1.PodList
	// live are the namespaces and ServiceAccounts.
	live []metav1.Object
	// errors are responses by "<verb> <resource>[ <namespace>[/<name>]]".
	errors map[string]error
}

func (s *server) react(action clienttesting.Action) (bool, runtime.Object, error) {
	what := action.GetVerb() + " " + action.GetResource().Resource
	r := testkit.Requests([]clienttesting.Action{action})[0]
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, key := range []string{what, what + " " + r.Name, what + " " + action.GetNamespace()} {
		if err := s.errors[key]; err != nil {
			return true, nil, err
		}
	}
	switch what {
	case "get configmaps":
		if s.tracking == nil || r.Name != s.tracking.Namespace+"/"+s.tracking.Name {
			return true, nil, testkit.NotFound()
		}
		return true, s.tracking, nil
	case "list pods":
		options := action.(clienttesting.ListActionImpl).GetListOptions()
		number, _ := strconv.Atoi(options.Continue)
		pages := s.pods[action.GetNamespace()]
		if number >= len(pages) {
			return true, &corev1.PodList{}, nil
		}
		page := pages[number].DeepCopy()
		if number+1 < len(pages) {
			page.Continue = strconv.Itoa(number + 1)
		}
		return true, page, nil
	case "list namespaces":
		list := &corev1.NamespaceList{}
		for _, obj := range s.live {
			if namespace, ok := obj.(*corev1.Namespace); ok && isListed(action, namespace) {
				list.Items = append(list.Items, *namespace)
			}
		}
		return true, list, nil
	case "list serviceaccounts":
		list := &corev1.ServiceAccountList{}
		for _, obj := range s.live {
			if account, ok := obj.(*corev1.ServiceAccount); ok && isListed(action, account) {
				list.Items = append(list.Items, *account)
			}
		}
		return true, list, nil
	case "patch serviceaccounts":
		return true, testkit.ServiceAccount(r.Name, testkit.WithResourceVersion("101")), nil
	default:
		return true, &corev1.Secret{}, nil
	}
}

func isListed(action clienttesting.Action, object metav1.Object) bool {
	list, ok := action.(clienttesting.ListActionImpl)
	return ok && object.GetNamespace() == action.GetNamespace() && list.GetListOptions().FieldSelector == "metadata.name="+object.GetName()
}

// change calls f with the lock held, so that a test may change the server while it serves.
func (s *server) change(f func(*server)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(s)
}

// failWith makes the server respond to what with err; nil: it succeeds.
func (s *server) failWith(what string, err error) {
	s.change(func(s *server) { s.errors[what] = err })
}

// trackedSince is the ConfigMap of an API server that records uses since date.
func trackedSince(date string) *corev1.ConfigMap {
	return testkit.ConfigMap("kube-system/kube-apiserver-legacy-service-account-token-tracking", testkit.WithData("since", date))
}

// fixture is a controller whose caches the test fills. Its clock shows now().
type fixture struct {
	*Controller
	server   *server
	client   *fake.Clientset
	recorder *record.FakeRecorder
	clock    *clocktesting.FakePassiveClock
	registry *prometheus.Registry
	logger   klog.Logger
}

func newFixture(t testing.TB, change func(*Config), cached ...metav1.Object) fixture {
	t.Helper()
	f := fixture{
		server:   &server{tracking: trackedSince("2026-01-02"), pods: map[string][]corev1.PodList{}, errors: map[string]error{}},
		client:   &fake.Clientset{},
		recorder: record.NewFakeRecorder(1000),
		clock:    clocktesting.NewFakePassiveClock(now()),
		registry: prometheus.NewPedanticRegistry(),
		logger:   ktesting.NewLogger(t, ktesting.NewConfig(ktesting.Verbosity(10), ktesting.BufferLogs(true))),
	}
	f.recorder.IncludeObject = true
	f.client.AddReactor("*", "*", f.server.react)
	f.Controller = newController(t, f.client, func(cfg *Config) {
		cfg.Recorder, cfg.Clock, cfg.Registerer = f.recorder, f.clock, f.registry
		if change != nil {
			change(cfg)
		}
	})
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

func newController(t testing.TB, client *fake.Clientset, change func(*Config)) *Controller {
	t.Helper()
	cfg := Config{Client: client.CoreV1(), Period: period, Interval: day}
	var errNamespaces, errSecrets, errAccounts error
	cfg.Namespaces, errNamespaces = cache.Namespaces(client)
	cfg.Secrets, errSecrets = cache.TokenSecrets(client, nil)
	cfg.ServiceAccounts, errAccounts = cache.ServiceAccounts(client)
	change(&cfg)
	c, err := New(cfg)
	if err := errors.Join(errNamespaces, errSecrets, errAccounts, err); err != nil {
		t.Fatal(err)
	}
	testkit.EndQueue(t, c)
	return c
}

// cache adds obj to the cache of its kind.
func (f fixture) cache(t testing.TB, obj metav1.Object) {
	t.Helper()
	f.server.change(func(s *server) { s.live = append(s.live, obj) })
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

func (f fixture) logs() string {
	return f.logger.GetSink().(ktesting.Underlier).GetBuffer().String()
}

// start runs the first pass and returns when it is complete, except for retries.
func (f fixture) start(t *testing.T) (stop func()) {
	t.Helper()
	f.queue.Add(begin)
	stop = testkit.Start(klog.NewContext(t.Context(), f.logger), t, func(ctx context.Context) error { return f.queue.Run(ctx) })
	synctest.Wait()
	return stop
}

// onePass runs a first pass without retries.
func (f fixture) onePass(t *testing.T) { f.start(t)() }

// requests returns the requests since its last call, without the live reads before deletions. The
// name of a list has its options.
func (f fixture) requests() []testkit.Request {
	actions := slices.DeleteFunc(f.client.Actions(), func(action clienttesting.Action) bool {
		return action.GetVerb() == "list" && action.GetResource().Resource != "pods"
	})
	f.client.ClearActions()
	requests := testkit.Requests(actions)
	for i, action := range actions {
		if list, ok := action.(clienttesting.ListActionImpl); ok {
			options := list.GetListOptions()
			requests[i].Name = fmt.Sprintf("%s limit=%d continue=%s", list.GetNamespace(), options.Limit, options.Continue)
		}
	}
	return requests
}

func (f fixture) expectRequests(t *testing.T, want ...testkit.Request) {
	t.Helper()
	if diff := cmp.Diff(want, f.requests()); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}

func (f fixture) expectEvents(t *testing.T, want ...string) {
	t.Helper()
	got := testkit.Events(f.recorder)
	slices.Sort(got)
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

// The requests of a pass, for team/s unless they say otherwise.

func getTracking() testkit.Request {
	return testkit.Request{Verb: "get", Resource: "configmaps", Name: "kube-system/kube-apiserver-legacy-service-account-token-tracking"}
}

func listPods(namespace string) testkit.Request {
	return testkit.Request{Verb: "list", Resource: "pods", Name: namespace + " limit=500 continue="}
}

func markRequest(secret string) testkit.Request {
	return testkit.Request{Verb: "patch", Resource: "secrets", Name: secret, Body: map[string]any{"metadata": map[string]any{
		"uid": string(testkit.SecretUID), "resourceVersion": testkit.ResourceVersion, "labels": map[string]any{invalidSince: "2026-04-12"},
	}}}
}

func deleteRequest(secret string) testkit.Request {
	uid, version := testkit.SecretUID, testkit.ResourceVersion
	return testkit.Request{Verb: "delete", Resource: "secrets", Name: secret, Body: &metav1.Preconditions{UID: &uid, ResourceVersion: &version}}
}

func annotateRequest(version string, date any) testkit.Request {
	return testkit.Request{Verb: "patch", Resource: "serviceaccounts", Name: "team/robot", Body: map[string]any{"metadata": map[string]any{
		"uid": string(testkit.AccountUID), "resourceVersion": version, "annotations": map[string]any{"sakeeper.io/token-cleaned-up": date},
	}}}
}

// The objects of a pass.

// secret is an unused token Secret of the account robot.
func secret(name string, opts ...testkit.Option) *corev1.Secret {
	return testkit.Secret(name, append([]testkit.Option{testkit.WithAccount("robot"), testkit.WithData("token", secretBytes)}, opts...)...)
}

// marked is a mark that is old enough for the Secret to be deleted.
func marked() testkit.Option { return testkit.WithLabel(invalidSince, "2026-02-01") }

func robot(references ...string) *corev1.ServiceAccount {
	return testkit.ServiceAccount("team/robot", testkit.WithReferences(references...))
}

func podsReferringTo(phase corev1.PodPhase, secrets ...string) corev1.PodList {
	var list corev1.PodList
	for _, name := range secrets {
		list.Items = append(list.Items, corev1.Pod{
			Spec:   corev1.PodSpec{Volumes: []corev1.Volume{{VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: name}}}}},
			Status: corev1.PodStatus{Phase: phase},
		})
	}
	return list
}
