package rights

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sakeeper/sakeeper/pkg/testkit/leaks"
)

func TestMain(m *testing.M) { leaks.Main(m) }

var errBoom = errors.New("boom")

// reviews are answers of an API server.
type reviews struct {
	mu      sync.Mutex
	lacking map[string]bool // namespaces in which the right is missing
	// lackingVerb is a verb that is not allowed anywhere.
	lackingVerb string
	err         error
	asked       int
}

func (r *reviews) set(err error, lacking ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err, r.lacking = err, map[string]bool{}
	for _, namespace := range lacking {
		r.lacking[namespace] = true
	}
}

// count returns how many reviews there were since the last call.
func (r *reviews) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	defer func() { r.asked = 0 }()
	return r.asked
}

func (r *reviews) allowed(_ context.Context, right Right, target Target) (bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked++
	return !r.lacking[target.Namespace] && right.Verb != r.lackingVerb, r.err
}

func (*reviews) username(context.Context) (string, error) { return "jane", nil }

// fixture is a monitor that runs, in a bubble of synctest.
type fixture struct {
	*Monitor

	reviews *reviews
	events  []string
	// needless is a namespace in which no right is needed.
	needless atomic.Value
}

func run(t *testing.T, test func(t *testing.T, f *fixture)) {
	synctest.Test(t, func(t *testing.T) {
		f := &fixture{reviews: &reviews{}}
		f.Monitor = newMonitor("/", f.reviews, []string{"controllers", "token-request-controller-served"})
		f.OnMissing(func(text string) {
			if f.Err() == nil { // as /readyz asks while an event is written
				t.Error("it is reported, and no error")
			}
			f.events = append(f.events, text)
		})
		f.OnlyWhile(func(_ Right, target Target) bool { return target.Namespace != f.needless.Load() })
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- f.Run(ctx) }()
		synctest.Wait()
		test(t, f)
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// respond lets a request get a response with that code.
func (f *fixture) respond(t *testing.T, code int, method, url string) {
	t.Helper()
	f.send(t, code, httptest.NewRequest(method, url, nil))
}

func (f *fixture) send(t *testing.T, code int, request *http.Request) {
	t.Helper()
	transport := f.wrap(roundTripper(func(*http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: code, Body: http.NoBody}, nil
	}))
	response, err := transport.RoundTrip(request)
	if err != nil || response.StatusCode != code {
		t.Errorf("got %v, %v", response, err)
	}
	_ = response.Body.Close()
	synctest.Wait()
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(request *http.Request) (*http.Response, error) { return f(request) }

func (f *fixture) expect(t *testing.T, want string) {
	t.Helper()
	got := ""
	if err := f.Err(); err != nil {
		got = err.Error()
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("error (-want +got):\n%s", diff)
	}
}

func wait(d time.Duration) {
	time.Sleep(d) // by the clock of the bubble
	synctest.Wait()
}

const (
	urlOfToken  = "/api/v1/namespaces/team/serviceaccounts/robot/token"
	urlOfEvents = "/api/v1/namespaces/team/events"
	ofToken     = " has no right to create serviceaccounts/token robot in the namespace team, which the role in manifests/rbac/token-request-controller-served has"
)

func TestAMissingRightIsNamedUntilItIsThere(t *testing.T) {
	run(t, func(t *testing.T, f *fixture) {
		f.reviews.set(nil, "team")
		f.respond(t, http.StatusCreated, http.MethodPost, urlOfToken)
		wait(time.Hour)
		f.expect(t, "")
		if n := f.reviews.count(); n != 0 {
			t.Errorf("%d reviews while nothing was refused", n)
		}
		f.respond(t, http.StatusForbidden, http.MethodPost, urlOfToken)
		f.expect(t, "missing rights: the user of this process"+ofToken)
		wait(time.Second)
		f.expect(t, "missing rights: the user jane"+ofToken)
		for range 100 {
			f.respond(t, http.StatusForbidden, http.MethodPost, urlOfToken)
		}
		wait(time.Minute)
		if diff := cmp.Diff([]string{"the user jane" + ofToken}, f.events); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
		if n := f.reviews.count(); n > 15 {
			t.Errorf("%d reviews in a minute", n)
		}
		f.reviews.set(nil)
		wait(maxDelay)
		f.expect(t, "")
		f.reviews.count()
		wait(time.Hour)
		if n := f.reviews.count(); n != 0 {
			t.Errorf("%d reviews after the right was there", n)
		}
		f.reviews.set(nil, "team")
		f.respond(t, http.StatusForbidden, http.MethodPost, urlOfToken)
		wait(time.Second)
		if len(f.events) != 2 {
			t.Errorf("a right that is taken away again has %d events", len(f.events))
		}
	})
}

func TestARefusalForAnotherReasonIsNoMissingRight(t *testing.T) {
	run(t, func(t *testing.T, f *fixture) {
		for range 1000 {
			f.respond(t, http.StatusForbidden, http.MethodPost, urlOfToken)
		}
		f.expect(t, "")
		if n := f.reviews.count(); n != 1 {
			t.Errorf("%d reviews", n)
		}
		f.reviews.set(nil, "team") // and then it is one
		wait(maxDelay)
		f.expect(t, "missing rights: the user of this process"+ofToken)
	})
}

// TestARefusedApplyMayLackTheRightToCreate: of an object that does not exist, an apply is a create too.
func TestARefusedApplyMayLackTheRightToCreate(t *testing.T) {
	const named = "missing rights: the user of this process has no right to create serviceaccounts in the namespace team"
	for name, tc := range map[string]struct {
		contentType types.PatchType
		subresource string
		want        string
	}{
		"an apply":             {contentType: types.ApplyYAMLPatchType, want: named},
		"an apply in CBOR":     {contentType: types.ApplyCBORPatchType, want: named},
		"an apply of a status": {contentType: types.ApplyYAMLPatchType, subresource: "/status"},
		"another patch":        {contentType: types.MergePatchType},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, func(t *testing.T, f *fixture) {
				f.reviews.set(nil)
				f.reviews.lackingVerb = "create"
				request := httptest.NewRequest(http.MethodPatch, "/api/v1/namespaces/team/serviceaccounts/robot"+tc.subresource, nil)
				request.Header.Set("Content-Type", string(tc.contentType))
				f.send(t, http.StatusForbidden, request)
				f.expect(t, tc.want)
			})
		})
	}
}

func TestARefusalOfAnOptionalRequestIsNoMissingRight(t *testing.T) {
	run(t, func(t *testing.T, f *fixture) {
		f.reviews.set(nil, "team")
		f.send(t, http.StatusForbidden, httptest.NewRequestWithContext(Optional(t.Context()), http.MethodPost, urlOfToken, nil))
		f.expect(t, "")
		if n := f.reviews.count(); n != 0 {
			t.Errorf("%d reviews", n)
		}
	})
}

func TestARightThatIsMissingForAMomentHasNoEvent(t *testing.T) {
	run(t, func(t *testing.T, f *fixture) {
		f.reviews.set(nil, "team")
		f.respond(t, http.StatusForbidden, http.MethodPost, urlOfToken)
		f.reviews.set(nil)
		wait(time.Second)
		f.expect(t, "")
		if len(f.events) > 0 {
			t.Errorf("events %q", f.events)
		}
	})
}

func TestTheRightToWriteEventsIsNotReportedByAnEvent(t *testing.T) {
	run(t, func(t *testing.T, f *fixture) {
		f.reviews.set(nil, "team")
		f.respond(t, http.StatusForbidden, http.MethodPost, urlOfEvents)
		wait(time.Minute)
		f.expect(t, "missing rights: the user jane has no right to create events in the namespace team, which the role in manifests/rbac/controllers has")
		if len(f.events) > 0 {
			t.Errorf("events %q", f.events)
		}
	})
}

func TestNamespacesAreReviewedOneAfterTheOther(t *testing.T) {
	run(t, func(t *testing.T, f *fixture) {
		f.reviews.set(nil, "a", "b")
		for _, namespace := range []string{"a", "b", "c"} {
			f.respond(t, http.StatusForbidden, http.MethodGet, "/api/v1/namespaces/"+namespace+"/pods")
		}
		f.expect(t, "missing rights: the user of this process has no right to list pods in the namespace a")
		f.reviews.set(nil, "b")
		wait(maxDelay)
		f.expect(t, "missing rights: the user jane has no right to list pods in the namespace b")
		f.reviews.set(nil)
		wait(maxDelay)
		f.expect(t, "")
	})
}

func TestARightThatIsNotNeededAnyMoreIsNotMissing(t *testing.T) {
	run(t, func(t *testing.T, f *fixture) {
		f.reviews.set(nil, "gone", "team")
		for _, namespace := range []string{"gone", "team"} {
			f.respond(t, http.StatusForbidden, http.MethodPost, "/api/v1/namespaces/"+namespace+"/serviceaccounts")
		}
		wait(time.Minute)
		f.expect(t, "missing rights: the user jane has no right to create serviceaccounts in the namespace gone")
		f.needless.Store("gone")
		wait(maxDelay)
		f.expect(t, "missing rights: the user jane has no right to create serviceaccounts in the namespace team")
		f.needless.Store("team")
		wait(maxDelay)
		f.expect(t, "")
		f.reviews.count()
		wait(time.Hour)
		if n := f.reviews.count(); n != 0 {
			t.Errorf("%d reviews of a right that is not needed", n)
		}
	})
}

func TestAnExpectedRightInManyNamespacesCostsFewReviews(t *testing.T) {
	right := Right{Verb: "create", Resource: "serviceaccounts", Subresource: "token"}
	var namespaces []Target
	for i := range 1000 {
		namespaces = append(namespaces, Target{Namespace: strconv.Itoa(i)})
	}
	cases := map[string]struct {
		inLacking []string
		want      int // reviews in an hour
	}{
		"it is there for all namespaces": {want: 1},
		"in each of them":                {inLacking: []string{""}, want: 1 + 1000},
		"and in one it is missing":       {inLacking: []string{"", "999"}, want: 1 + 1000 + 2*int(time.Hour/maxDelay)},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			run(t, func(t *testing.T, f *fixture) {
				f.reviews.set(nil, tc.inLacking...)
				f.Expect(right, func() []Target { return slices.Clone(namespaces) })
				wait(time.Hour)
				if n := f.reviews.count(); n < tc.want || n > tc.want+10 { // the first delays are shorter
					t.Errorf("%d reviews, want %d", n, tc.want)
				}
			})
		})
	}
}

func TestWithoutReviewsARefusalCountsForAWhile(t *testing.T) {
	run(t, func(t *testing.T, f *fixture) {
		f.reviews.set(errBoom)
		f.respond(t, http.StatusForbidden, http.MethodGet, "/api/v1/pods")
		f.expect(t, "") // no answer is neither yes nor no
		f.reviews.set(apierrors.NewForbidden(schema.GroupResource{Resource: "selfsubjectaccessreviews"}, "", errBoom))
		wait(maxDelay)
		f.expect(t, "missing rights: the user of this process has no right to list pods")
		wait(unreviewedFor - 2*maxDelay)
		f.expect(t, "missing rights: the user jane has no right to list pods")
		wait(3 * maxDelay)
		f.expect(t, "")
	})
}

func TestAnExpectedRightIsReviewedBeforeItIsUsed(t *testing.T) {
	right := Right{Verb: "create", Resource: "serviceaccounts", Subresource: "token"}
	run(t, func(t *testing.T, f *fixture) {
		f.reviews.set(nil, "")
		var mu sync.Mutex
		where := []Target{{}}
		f.Expect(right, func() []Target {
			mu.Lock()
			defer mu.Unlock()
			return where
		})
		synctest.Wait()
		f.expect(t, "missing rights: the user of this process has no right to create serviceaccounts/token, which the role in manifests/rbac/token-request-controller-served has")
		mu.Lock()
		where = []Target{{Namespace: "team"}}
		mu.Unlock()
		wait(maxDelay)
		f.expect(t, "")
		f.reviews.count()
		wait(time.Hour)
		if n := f.reviews.count(); n != 0 {
			t.Errorf("%d reviews after the right was there", n)
		}
	})
}
