package rootca

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/internal/writebackoff"
	"github.com/sakeeper/sakeeper/pkg/testkit"
)

func TestSync(t *testing.T) {
	cases := map[string]struct {
		inCached []metav1.Object
		want     []testkit.Request
	}{
		"a missing config map is one create": {
			inCached: []metav1.Object{testkit.Namespace("team")},
			want:     []testkit.Request{createRequest("team", testkit.Bundle())},
		},
		"a config map of another namespace does not count": {
			inCached: []metav1.Object{testkit.Namespace("team"), testkit.ConfigMap("other/kube-root-ca.crt")},
			want:     []testkit.Request{createRequest("team", testkit.Bundle())},
		},
		"a correct config map is left alone": {
			inCached: []metav1.Object{testkit.Namespace("team"), configMap()},
		},
		"a config map with a description by a user is left alone": {
			inCached: []metav1.Object{testkit.Namespace("team"), configMap(testkit.WithAnnotation("kubernetes.io/description", "ours"))},
		},
		"nothing is created in a terminating namespace": {
			inCached: []metav1.Object{testkit.Namespace("team", testkit.Terminating())},
		},
		"nothing is created in a namespace that does not exist": {},
		"a wrong CA is one update": {
			inCached: []metav1.Object{testkit.Namespace("team"), configMap(testkit.WithData("ca.crt", "wrong"))},
			want:     []testkit.Request{updateRequest()},
		},
		"other keys are removed": {
			inCached: []metav1.Object{testkit.Namespace("team"), configMap(testkit.WithData("extra", "1"), testkit.WithData("more", "2"))},
			want:     []testkit.Request{updateRequest()},
		},
		"a missing description is added": {
			inCached: []metav1.Object{testkit.Namespace("team"), configMap(testkit.WithAnnotation("kubernetes.io/description", ""))},
			want:     []testkit.Request{updateRequest()},
		},
		"an empty one gets everything": {
			inCached: []metav1.Object{testkit.Namespace("team"), testkit.ConfigMap("team/kube-root-ca.crt")},
			want:     []testkit.Request{updateRequest()},
		},
		"labels and settings are kept": {
			inCached: []metav1.Object{testkit.Namespace("team"), configMap(testkit.WithData("ca.crt", "wrong"), testkit.WithLabel("app", "ci"), testkit.WithAnnotation("sakeeper.io/keep", "true"))},
			want:     []testkit.Request{updateRequest(testkit.WithLabel("app", "ci"), testkit.WithAnnotation("sakeeper.io/keep", "true"))},
		},
		"what is not cached is kept: the repair is a patch": {
			inCached: []metav1.Object{testkit.Namespace("team"), configMap(testkit.WithData("ca.crt", "wrong"), testkit.WithAnnotation("mine", "yes"))},
			want:     []testkit.Request{patchRequest()},
		},
		"the patch removes other keys": {
			inCached: []metav1.Object{testkit.Namespace("team"), configMap(testkit.WithData("extra", "1"), testkit.WithData("more", "2"), testkit.WithAnnotation("mine", "yes"))},
			want:     []testkit.Request{patchRequest("extra", "more")},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, nil, tc.inCached...)
			requeueAfter, err := f.sync(testkit.Context(t), "team")
			wantRequeue := time.Duration(0)
			if len(tc.want) > 0 && tc.want[0].Verb == "create" {
				wantRequeue = lookAgain
			}
			if requeueAfter != wantRequeue || err != nil {
				t.Errorf("requeued after %v, want %v, error %v", requeueAfter, wantRequeue, err)
			}
			if diff := cmp.Diff(tc.want, testkit.Requests(f.client.Actions())); diff != "" {
				t.Errorf("requests (-want +got):\n%s", diff)
			}
		})
	}
}

func TestResponses(t *testing.T) {
	toCreate := []metav1.Object{testkit.Namespace("team")}
	toRepair := []metav1.Object{testkit.Namespace("team"), configMap(testkit.WithData("ca.crt", "wrong"))}
	internal, quota, immutable := testkit.InternalError(), testkit.QuotaExceeded(), testkit.Invalid("data", "redacted")
	event := func(err error, doing string) []string {
		return []string{"Warning FailedPublishRootCA The API server refuses to " + doing + " config map team/kube-root-ca.crt: " + err.Error() + " involvedObject{kind=Namespace,apiVersion=v1}"}
	}

	cases := map[string]struct {
		inCached   []metav1.Object
		inResponse error
		wantErr    error
		wantText   string
		wantEvents []string
	}{
		"create: another client created it first":     {inCached: toCreate, inResponse: testkit.AlreadyExists()},
		"create: the namespace was deleted":           {inCached: toCreate, inResponse: testkit.NotFound()},
		"create: the namespace is terminating":        {inCached: toCreate, inResponse: testkit.NamespaceTerminating()},
		"create: a rejection by a quota is an event":  {inCached: toCreate, inResponse: quota, wantErr: quota, wantText: "create config map team/kube-root-ca.crt: ", wantEvents: event(quota, "create")},
		"create: an internal error is no event":       {inCached: toCreate, inResponse: internal, wantErr: internal, wantText: "create config map team/kube-root-ca.crt: "},
		"repair: it changed":                          {inCached: toRepair, inResponse: testkit.Conflict()},
		"repair: it was deleted":                      {inCached: toRepair, inResponse: testkit.NotFound()},
		"repair: an immutable config map is an event": {inCached: toRepair, inResponse: immutable, wantErr: immutable, wantText: "update config map team/kube-root-ca.crt: ", wantEvents: event(immutable, "update")},
		"repair: a prohibition is an event":           {inCached: toRepair, inResponse: quota, wantErr: quota, wantText: "update config map team/kube-root-ca.crt: ", wantEvents: event(quota, "update")},
		"repair: an internal error is no event":       {inCached: toRepair, inResponse: internal, wantErr: internal, wantText: "update config map team/kube-root-ca.crt: "},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, tc.inResponse, tc.inCached...)
			_, err := f.sync(testkit.Context(t), "team")
			if !errors.Is(err, tc.wantErr) || (tc.wantErr == nil) != (err == nil) {
				t.Errorf("error %v, want %v", err, tc.wantErr)
			}
			if err != nil && err.Error() != tc.wantText+tc.inResponse.Error() {
				t.Errorf("error %q", err)
			}
			if n := len(f.client.Actions()); n != 1 {
				t.Errorf("%d requests, want 1", n)
			}
			if diff := cmp.Diff(tc.wantEvents, testkit.Events(f.recorder)); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
		})
	}
}

func TestNewRefusesAnIncompleteConfig(t *testing.T) {
	testkit.ExpectRequired(t, newFixture(t, nil).cfg, New, "Workers", "Registerer")
}

// The cache never shows the writes, as if another client undid each of them.
func TestACAThatIsUndoneIsWrittenEverMoreSlowly(t *testing.T) {
	cases := map[string][]metav1.Object{
		"update team/kube-root-ca.crt": {testkit.Namespace("team"), configMap(testkit.WithData("ca.crt", "theirs"))},
		"create team/kube-root-ca.crt": {testkit.Namespace("team")},
	}
	for want, cached := range cases {
		t.Run(want, func(t *testing.T) {
			f := newFixture(t, nil, cached...)
			clock := clocktesting.NewFakePassiveClock(testkit.Instant())
			f.backoff = writebackoff.New[objectKey]("configmaps", clock, nil)
			testkit.ExpectWriteBackoff(t, clock, func() int { return len(f.client.Actions()) }, func() time.Duration {
				requeueAfter, err := f.sync(testkit.Context(t), "team")
				if err != nil {
					t.Fatal(err)
				}
				return requeueAfter
			})
			for _, r := range testkit.Requests(f.client.Actions()) {
				if got := r.Verb + " " + r.Name; got != want {
					t.Errorf("%s, want %s", got, want)
				}
			}
			if events := testkit.Events(f.recorder); len(events) != 1 || !strings.HasPrefix(events[0], "Warning LeftAlone ") {
				t.Errorf("events %v", events)
			}
		})
	}
}

// A namespace that is created meanwhile does not wait for the others.
func TestANewCAIsWrittenOverSomeTime(t *testing.T) {
	const n = 1200
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, nil)
		for i := range n {
			old := configMap(testkit.WithData("ca.crt", "old"))
			old.Namespace = fmt.Sprint("team", i)
			if err := errors.Join(f.cfg.Namespaces.GetStore().Add(testkit.Namespace(old.Namespace)), f.cfg.RootCAs.GetStore().Add(cache.NewRootCA(old))); err != nil {
				t.Fatal(err)
			}
		}
		defer testkit.Start(testkit.Context(t), t, func(ctx context.Context) error { return f.queue.Run(ctx) })()
		expectWrites := func(after time.Duration, want int) {
			t.Helper()
			time.Sleep(after)
			synctest.Wait()
			if got := len(f.client.Actions()); got != want {
				t.Errorf("%d writes, want %d", got, want)
			}
		}
		f.EnqueueAll()
		expectWrites(0, 1000)
		later := testkit.Namespace("later")
		if err := f.cfg.Namespaces.GetStore().Add(later); err != nil {
			t.Fatal(err)
		}
		f.enqueueNamespace(later)
		expectWrites(0, 1001)
		expectWrites(time.Second, n+1)
	})
}

// A webhook or a quota may respond with a conflict too, which no event follows.
func TestAConflictIsRequeued(t *testing.T) {
	f := newFixture(t, testkit.Conflict(), testkit.Namespace("team"), configMap(testkit.WithData("ca.crt", "old")))
	if requeueAfter, err := f.sync(testkit.Context(t), "team"); requeueAfter != time.Second || err != nil {
		t.Errorf("requeued after %v, error %v", requeueAfter, err)
	}
}
