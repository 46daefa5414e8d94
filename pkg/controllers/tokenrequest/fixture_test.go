package tokenrequest

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/kubernetes/scheme"
	clienttesting "k8s.io/client-go/testing"
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
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	secretsResource    = corev1.SchemeGroupVersion.WithResource("secrets")
	accountsResource   = corev1.SchemeGroupVersion.WithResource("serviceaccounts")
	namespacesResource = corev1.SchemeGroupVersion.WithResource("namespaces")
)

// secretBytes stands in every token of these tests and nowhere else.
const secretBytes = "eyJ-must-not-be-seen"

// api is the part of an API server that a fake clientset does not have: tokens with
// claims, preconditions, and versions that grow. It is safe for concurrent use.
type apiServer struct {
	*fake.Clientset
	tracker clienttesting.ObjectTracker

	// now is the server's clock.
	now func() time.Time

	mu sync.Mutex
	// most is the longest lifetime that it grants; zero: any.
	most time.Duration
	// tokensErr and writesErr are what it answers instead of carrying out.
	tokensErr, writesErr error
	// answer replaces the token that it answers with.
	answer string
	// granted and patches count requests that were carried out, or tried to be.
	granted, patches int
	// onPatch is called with a Secret before and after.
	onPatch func(before, after *corev1.Secret)
}

func newAPI(now func() time.Time, objects ...runtime.Object) *apiServer {
	// Not the tracker of fake.NewClientset, which spends a millisecond on the managed
	// fields of each write.
	a := &apiServer{Clientset: &fake.Clientset{}, tracker: clienttesting.NewObjectTracker(scheme.Scheme, scheme.Codecs.UniversalDecoder()), now: now}
	for _, obj := range objects {
		if err := a.tracker.Add(obj); err != nil {
			panic(err)
		}
	}
	a.AddReactor("create", "serviceaccounts", a.createToken)
	a.AddReactor("patch", "secrets", a.patchSecret)
	a.AddReactor("*", "*", clienttesting.ObjectReaction(a.tracker))
	a.AddWatchReactor("*", func(action clienttesting.Action) (bool, watch.Interface, error) {
		w, err := a.tracker.Watch(action.GetResource(), action.GetNamespace(), action.(clienttesting.WatchActionImpl).ListOptions)
		return true, w, err
	})
	return a
}

// Tracker holds the objects.
func (a *apiServer) Tracker() clienttesting.ObjectTracker { return a.tracker }

func (a *apiServer) change(f func(*apiServer)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f(a)
}

func (a *apiServer) createToken(action clienttesting.Action) (bool, runtime.Object, error) {
	request, ok := action.(clienttesting.CreateActionImpl).Object.(*authenticationv1.TokenRequest)
	if !ok {
		return false, nil, nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.tokensErr != nil {
		return true, nil, a.tokensErr
	}
	a.granted++
	lifetime := time.Duration(*request.Spec.ExpirationSeconds) * time.Second
	if a.most > 0 {
		lifetime = min(lifetime, a.most)
	}
	ref := request.Spec.BoundObjectRef
	issued := a.now().Truncate(time.Second)
	answer := request.DeepCopy()
	answer.Status.Token = cmp.Or(a.answer, tokenFor(ref.UID, request.UID, issued, lifetime, strconv.Itoa(a.granted)))
	answer.Status.ExpirationTimestamp = metav1.NewTime(issued.Add(lifetime))
	return true, answer, nil
}

func tokenFor(secret, account types.UID, issued time.Time, lifetime time.Duration, id string) string {
	payload := fmt.Sprintf(`{"iat":%d,"exp":%d,"jti":%q,"kubernetes.io":{"secret":{"uid":%q},"serviceaccount":{"uid":%q}}}`,
		issued.Unix(), issued.Add(lifetime).Unix(), id, secret, account)
	return secretBytes + "." + base64.RawURLEncoding.EncodeToString([]byte(payload)) + ".signature"
}

// mergePatchBody is what patches of Secrets consist of.
type mergePatchBody struct {
	Metadata struct {
		UID             types.UID          `json:"uid"`
		ResourceVersion string             `json:"resourceVersion"`
		Annotations     map[string]*string `json:"annotations"`
	} `json:"metadata"`
	Data map[string]*[]byte `json:"data"`
}

func (a *apiServer) patchSecret(action clienttesting.Action) (bool, runtime.Object, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.patches++
	if a.writesErr != nil {
		return true, nil, a.writesErr
	}
	patch := action.(clienttesting.PatchActionImpl)
	var body mergePatchBody
	if err := json.Unmarshal(patch.Patch, &body); err != nil || patch.PatchType != types.MergePatchType {
		return true, nil, fmt.Errorf("patch type %s: %w", patch.PatchType, err)
	}
	obj, err := a.Tracker().Get(secretsResource, patch.Namespace, patch.Name)
	if err != nil {
		return true, nil, err
	}
	before := obj.(*corev1.Secret)
	if body.Metadata.UID != before.UID || body.Metadata.ResourceVersion != before.ResourceVersion {
		return true, nil, testkit.Conflict()
	}
	after := before.DeepCopy()
	after.Annotations, after.Data = merged(before.Annotations, body.Metadata.Annotations), merged(before.Data, body.Data)
	after.ResourceVersion = next(before.ResourceVersion)
	if a.onPatch != nil {
		a.onPatch(before, after)
	}
	return true, after, a.Tracker().Update(secretsResource, after, patch.Namespace)
}

func merged[T any](before map[string]T, patch map[string]*T) map[string]T {
	after := maps.Clone(before)
	for key, value := range patch {
		if value == nil {
			delete(after, key)
			continue
		}
		if after == nil {
			after = map[string]T{}
		}
		after[key] = *value
	}
	return after
}

func next(version string) string {
	n, _ := strconv.Atoi(version)
	return strconv.Itoa(n + 1)
}

// secret is team/s of the API server.
func (a *apiServer) secret() *corev1.Secret {
	obj, err := a.Tracker().Get(secretsResource, "team", "s")
	if err != nil {
		return nil
	}
	return obj.(*corev1.Secret)
}

// set changes team/s as a user would.
func (a *apiServer) set(change func(*corev1.Secret)) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	secret := a.secret().DeepCopy()
	change(secret)
	secret.ResourceVersion = next(secret.ResourceVersion)
	return a.Tracker().Update(secretsResource, secret, "team")
}

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

// with is an annotation by its name without the prefix.
func with(name, value string) testkit.Option {
	return testkit.WithAnnotation("sakeeper.io/"+name, value)
}

func robot(opts ...testkit.Option) *corev1.ServiceAccount {
	return testkit.ServiceAccount("team/robot", opts...)
}

func served() *corev1.Namespace {
	return testkit.Namespace("team", testkit.WithLabel(api.TokenRequestsLabel, api.TokenRequestsAllowed))
}

// fixture is a controller whose caches are filled by hand, with an API server that has
// the same.
type fixture struct {
	*Controller
	api      *apiServer
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
	f.api = newAPI(f.clock.Now, objects...)
	f.Controller = newController(t, f.api, func(cfg *Config) {
		cfg.Recorder, cfg.Clock, cfg.Running, cfg.Registerer = f.recorder, f.clock, f.clock, f.registry
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
		for _, event := range testkit.Events(f.recorder) {
			t.Errorf("unexpected event %s", event)
		}
	})
	return f
}

func newController(t testing.TB, client kubernetes.Interface, with func(*Config)) *Controller {
	t.Helper()
	cfg := Config{Client: client.CoreV1(), CA: testkit.Bundle}
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

// end ends the queue, which no test of a fixture runs.
func (f fixture) end() {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = f.Run(ctx)
}

// cache puts obj into the cache that it belongs to.
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

// do syncs team/s, with the cache as it is.
func (f fixture) do(t testing.TB) (time.Duration, error) {
	t.Helper()
	return f.sync(klog.NewContext(t.Context(), f.logger), toolscache.ObjectName{Namespace: "team", Name: "s"})
}

// mustDo is do with a cache that has caught up.
func (f fixture) mustDo(t testing.TB) time.Duration {
	t.Helper()
	if secret := f.api.secret(); secret != nil {
		f.cache(t, secret)
	}
	again, err := f.do(t)
	if err != nil && !errors.Is(err, workqueue.ErrRequeueLater) {
		t.Fatal(err)
	}
	return again
}

// requests are those since the last time.
func (f fixture) requests() []testkit.Request {
	requests := testkit.Requests(f.api.Actions())
	f.api.ClearActions()
	return requests
}

// summary is requests without bodies.
func (f fixture) summary() []string {
	var lines []string
	for _, r := range f.requests() {
		lines = append(lines, r.Verb+" "+r.Resource+" "+r.Name)
	}
	return lines
}

// pass sets the clock forward.
func (f fixture) pass(d time.Duration) { f.clock.SetTime(f.clock.Now().Add(d)) }
