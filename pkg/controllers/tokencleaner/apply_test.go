package tokencleaner

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/sakeeper/sakeeper/pkg/testkit"
)

func testClock(now time.Time) clock.PassiveClock { return clocktesting.NewFakePassiveClock(now) }

func TestResponses(t *testing.T) {
	const onSecret = " involvedObject{kind=Secret,apiVersion=v1}"
	deleted := "Normal DeletedUnusedToken Deleted: marked as unused since 2026-02-01, and not used within 720h0m0s" + onSecret
	refuses := func(step string, err error) string {
		return "Warning FailedTokenCleanUp The API server refuses to " + step + " this unused token: " + err.Error() + onSecret
	}
	forbidden, quoting := testkit.QuotaExceeded(), testkit.Invalid("data", secretBytes)
	const generated = "team/robot-token-x7z9q"
	cases := map[string]struct {
		inStep     string // of the Secret that is there
		inErrors   map[string]error
		want       []testkit.Request // after tracking and pods, without retries
		wantEvents []string
		wantResult string
		wantRetry  bool
	}{
		"deleted": {
			inStep: "delete", want: []testkit.Request{annotateRequest("100", "2026-04-12"), deleteRequest(generated)},
			wantEvents: []string{deleted}, wantResult: "done",
		},
		"used between decision and mark": {
			inStep: "mark", inErrors: map[string]error{"patch secrets": testkit.Conflict()},
			want: []testkit.Request{markRequest(generated)}, wantResult: "changed",
		},
		"deleted between decision and mark": {
			inStep: "mark", inErrors: map[string]error{"patch secrets": testkit.NotFound()},
			want: []testkit.Request{markRequest(generated)}, wantResult: "changed",
		},
		"used between decision and deletion: the annotation is removed": {
			inStep: "delete", inErrors: map[string]error{"delete secrets": testkit.Conflict()},
			want: []testkit.Request{annotateRequest("100", "2026-04-12"), deleteRequest(generated), annotateRequest("101", nil)}, wantResult: "changed",
		},
		"deleted between decision and deletion: the annotation stays": {
			inStep: "delete", inErrors: map[string]error{"delete secrets": testkit.NotFound()},
			want: []testkit.Request{annotateRequest("100", "2026-04-12"), deleteRequest(generated)}, wantResult: "changed",
		},
		"the account changed: the Secret is not deleted": {
			inStep: "delete", inErrors: map[string]error{"patch serviceaccounts": testkit.Conflict()},
			want: []testkit.Request{annotateRequest("100", "2026-04-12")}, wantResult: "changed",
		},
		"the account was deleted: the Secret is not deleted": {
			inStep: "delete", inErrors: map[string]error{"patch serviceaccounts": testkit.NotFound()},
			want: []testkit.Request{annotateRequest("100", "2026-04-12")}, wantResult: "changed",
		},
		"annotating the account fails: the Secret is not deleted": {
			inStep: "delete", inErrors: map[string]error{"patch serviceaccounts": errBoom},
			want: []testkit.Request{annotateRequest("100", "2026-04-12")}, wantResult: "error", wantRetry: true,
		},
		"a mark fails": {
			inStep: "mark", inErrors: map[string]error{"patch secrets": errBoom},
			want: []testkit.Request{markRequest(generated)}, wantResult: "error", wantRetry: true,
		},
		"a deletion fails": {
			inStep: "delete", inErrors: map[string]error{"delete secrets": testkit.InternalError()},
			want: []testkit.Request{annotateRequest("100", "2026-04-12"), deleteRequest(generated)}, wantResult: "error", wantRetry: true,
		},
		"a mark is refused": {
			inStep: "mark", inErrors: map[string]error{"patch secrets": forbidden},
			want:       []testkit.Request{markRequest(generated)},
			wantEvents: []string{refuses("mark", forbidden)}, wantResult: "error", wantRetry: true,
		},
		"a mark is refused by an error that quotes the token": {
			inStep: "mark", inErrors: map[string]error{"patch secrets": quoting},
			want:       []testkit.Request{markRequest(generated)},
			wantEvents: []string{refuses("mark", fmt.Errorf("Invalid (the message is redacted, because it contains a token)"))}, wantResult: "error", wantRetry: true,
		},
		"a deletion is refused": {
			inStep: "delete", inErrors: map[string]error{"delete secrets": forbidden},
			want:       []testkit.Request{annotateRequest("100", "2026-04-12"), deleteRequest(generated)},
			wantEvents: []string{refuses("delete", forbidden)}, wantResult: "error", wantRetry: true,
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				object := secret(generated)
				if tc.inStep == "delete" {
					marked()(object)
				}
				f := newFixture(t, nil, testkit.Namespace("team"), robot("robot-token-x7z9q"), object)
				for what, err := range tc.inErrors {
					f.server.failWith(what, err)
				}
				stop := f.start(t)
				defer stop()
				f.expectRequests(t, append([]testkit.Request{getTracking(), listPods("team")}, tc.want...)...)
				f.expectEvents(t, tc.wantEvents...)
				if n := testutil.ToFloat64(f.metrics.steps.WithLabelValues(tc.inStep, tc.wantResult)); n != 1 {
					t.Errorf("%v times %s %s", n, tc.inStep, tc.wantResult)
				}
				if !f.Ready() {
					t.Error("not ready")
				}

				time.Sleep(time.Minute)
				synctest.Wait()
				if retried := len(f.requests()) > 0; retried != tc.wantRetry {
					t.Errorf("retried: %t, want %t", retried, tc.wantRetry)
				}
				f.expectEvents(t) // no second event
			})
		})
	}
}

// TestNothingIsDeletedOnTheWordOfACache whose namespaces and ServiceAccounts are not what the API
// server has.
func TestNothingIsDeletedOnTheWordOfACache(t *testing.T) {
	const name = "by-hand"
	for what, tc := range map[string]struct {
		live   []metav1.Object
		errors map[string]error
		want   []testkit.Request
	}{
		"the account no longer refers to the Secret": {live: []metav1.Object{testkit.Namespace("team"), robot()}},
		"the account is gone":                        {live: []metav1.Object{testkit.Namespace("team")}},
		"the namespace says that it is kept":         {live: []metav1.Object{testkit.Namespace("team", testkit.WithAnnotation("sakeeper.io/keep", "true")), robot(name)}},
		"the account cannot be read": {
			live: []metav1.Object{testkit.Namespace("team"), robot(name)}, errors: map[string]error{"list serviceaccounts": errBoom},
		},
		"nothing has changed": {live: []metav1.Object{testkit.Namespace("team"), robot(name)}, want: []testkit.Request{deleteRequest("team/" + name)}},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t, nil, testkit.Namespace("team"), robot(name), secret("team/"+name, marked()))
				f.server.change(func(s *server) { s.live = tc.live })
				for what, err := range tc.errors {
					f.server.failWith(what, err)
				}
				f.onePass(t)
				f.expectRequests(t, append([]testkit.Request{getTracking(), listPods("team")}, tc.want...)...)
			})
		})
	}
}

// TestTheFormerAnnotationIsRestored checks that the account gets its former annotation back
// if a deletion does not happen.
func TestTheFormerAnnotationIsRestored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, nil, testkit.Namespace("team"),
			testkit.ServiceAccount("team/robot", testkit.WithReferences("robot-token-x7z9q"), testkit.WithAnnotation("sakeeper.io/token-cleaned-up", "2025-01-01")),
			secret("team/robot-token-x7z9q", marked()))
		f.server.failWith("delete secrets", testkit.Conflict())
		f.onePass(t)
		f.expectRequests(t, getTracking(), listPods("team"), annotateRequest("100", "2026-04-12"), deleteRequest("team/robot-token-x7z9q"), annotateRequest("101", "2025-01-01"))
	})
}

// TestAFailureDoesNotBlockOthers checks that a failure blocks no other Secret, neither in its
// namespace nor elsewhere, and is retried until it succeeds.
func TestAFailureDoesNotBlockOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cached := []metav1.Object{}
		for _, namespace := range []string{"a", "b", "c"} {
			cached = append(cached, testkit.Namespace(namespace), testkit.ServiceAccount(namespace+"/robot", testkit.WithReferences("1", "2", "3")))
			for _, name := range []string{"1", "2", "3"} {
				cached = append(cached, secret(namespace+"/"+name, testkit.WithUID(types.UID(namespace+name))))
			}
		}
		f := newFixture(t, nil, cached...)
		f.server.failWith("patch secrets a/1", testkit.QuotaExceeded())
		f.server.failWith("patch secrets a/2", testkit.QuotaExceeded())
		f.server.failWith("list pods b", errBoom)
		stop := f.start(t)
		defer stop()

		expectTried := func(step string, want ...string) {
			t.Helper()
			var got []string
			for _, r := range f.requests() {
				got = append(got, r.Verb+" "+r.Resource+" "+strings.TrimSuffix(r.Name, " limit=500 continue="))
			}
			slices.Sort(got)
			if diff := cmp.Diff(want, slices.Compact(got)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", step, diff)
			}
		}
		expectTried("at the start", "get configmaps kube-system/kube-apiserver-legacy-service-account-token-tracking",
			"list pods a", "list pods b", "list pods c",
			"patch secrets a/1", "patch secrets a/2", "patch secrets a/3", "patch secrets c/1", "patch secrets c/2", "patch secrets c/3")
		if !f.Ready() {
			t.Error("not ready")
		}
		if logs := f.logs(); !strings.Contains(logs, "and 1 more secrets of this namespace failed") {
			t.Errorf("the log does not count failures:\n%s", logs)
		}
		if rejections := strings.Count(strings.Join(testkit.Events(f.recorder), "\n"), "FailedTokenCleanUp"); rejections != 2 {
			t.Errorf("%d events about rejections, want one for each", rejections)
		}
		// The watch shows that a/3 and the Secrets of c are marked.
		for _, name := range []string{"a/3", "c/1", "c/2", "c/3"} {
			f.cache(t, secret(name, testkit.WithLabel(invalidSince, "2026-04-12")))
		}
		time.Sleep(23 * time.Hour)
		synctest.Wait()
		expectTried("for most of a day", "list pods a", "list pods b", "patch secrets a/1", "patch secrets a/2")
		if events := testkit.Events(f.recorder); len(events) > 0 {
			t.Errorf("repeated events: %q", events)
		}
		f.server.failWith("patch secrets a/1", nil)
		f.server.failWith("patch secrets a/2", nil)
		f.server.failWith("list pods b", nil)
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		expectTried("when it works again", "list pods a", "list pods b",
			"patch secrets a/1", "patch secrets a/2", "patch secrets b/1", "patch secrets b/2", "patch secrets b/3")
	})
}
