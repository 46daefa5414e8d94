package accounttemplate

import (
	"context"
	"maps"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	toolscache "k8s.io/client-go/tools/cache"

	"github.com/sakeeper/sakeeper/pkg/api/v1alpha1"
	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/testkit"
)

func defaultKey() toolscache.ObjectName { return toolscache.NewObjectName("team", "default") }

// applyRequest is an apply of team/default with metadata and fields beside kind and names.
func applyRequest(metadata, fields map[string]any) testkit.Request {
	body := map[string]any{"apiVersion": "v1", "kind": "ServiceAccount"}
	maps.Copy(body, fields)
	all := map[string]any{"name": "default", "namespace": "team"}
	maps.Copy(all, metadata)
	body["metadata"] = all
	return testkit.Request{Verb: "patch application/apply-patch+yaml", Resource: "serviceaccounts", Name: "team/default", Body: body}
}

func TestSync(t *testing.T) {
	uid := map[string]any{"uid": string(testkit.AccountUID)}
	everything := func(s *v1alpha1.ServiceAccountTemplateSpec) {
		noAutomount(s)
		s.Labels = map[string]v1alpha1.LabelValue{"a": "1"}
		s.Annotations = map[string]v1alpha1.AnnotationValue{"b": "2"}
		s.ImagePullSecrets = []v1alpha1.PullSecret{{Name: "two"}, {Name: "one"}}
	}
	cases := map[string]struct {
		inCached []metav1.Object
		want     []testkit.Request
	}{
		"one apply sets everything": {
			inCached: []metav1.Object{testkit.Namespace("team"), account(), template("t", everything)},
			want: []testkit.Request{applyRequest(
				map[string]any{"uid": string(testkit.AccountUID), "labels": map[string]any{"a": "1"}, "annotations": map[string]any{"b": "2"}},
				map[string]any{"automountServiceAccountToken": false, "imagePullSecrets": []any{map[string]any{"name": "one"}, map[string]any{"name": "two"}}},
			)},
		},
		"an empty apply gives everything back": {
			inCached: []metav1.Object{testkit.Namespace("team"), account(automount(false), owned(ours(ownsAutomount)))},
			want:     []testkit.Request{applyRequest(uid, nil)},
		},
		"only what was seen is taken from another manager": {
			inCached: []metav1.Object{testkit.Namespace("team"), account(automount(true), owned(theirs(ownsAutomount))), template("t", func(s *v1alpha1.ServiceAccountTemplateSpec) {
				noAutomount(s)
				s.Force = true
			})},
			want: []testkit.Request{applyRequest(map[string]any{"uid": string(testkit.AccountUID), "resourceVersion": testkit.ResourceVersion}, map[string]any{"automountServiceAccountToken": false})},
		},
		"what admission set is removed by a patch": {
			inCached: []metav1.Object{testkit.Namespace("team"), account(automount(false), testkit.WithLabel("team", "blue"), owned(inherited(), ours(`{"f:automountServiceAccountToken":{},"f:metadata":{"f:labels":{"f:team":{}}}}`)))},
			want: []testkit.Request{{
				Verb: "patch", Resource: "serviceaccounts", Name: "team/default",
				Body: map[string]any{
					"automountServiceAccountToken": nil,
					"metadata":                     map[string]any{"uid": string(testkit.AccountUID), "resourceVersion": testkit.ResourceVersion, "labels": map[string]any{"team": nil}},
				},
			}},
		},
		"a missing account is created by an apply without uid": {
			inCached: []metav1.Object{testkit.Namespace("team"), template("t", func(s *v1alpha1.ServiceAccountTemplateSpec) {
				noAutomount(s)
				s.Create = true
			})},
			want: []testkit.Request{applyRequest(nil, map[string]any{"automountServiceAccountToken": false})},
		},
		"what is right is left alone": {
			inCached: []metav1.Object{testkit.Namespace("team"), account(automount(false), owned(ours(ownsAutomount))), template("t", noAutomount)},
		},
		"a conflict is no request": {
			inCached: []metav1.Object{testkit.Namespace("team"), account(automount(true), owned(theirs(ownsAutomount))), template("t", noAutomount)},
		},
		"a namespace that is unknown": {inCached: []metav1.Object{account(), template("t", noAutomount)}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, nil, tc.inCached...)
			requeueAfter, err := f.sync(testkit.Context(t), defaultKey())
			if requeueAfter != 0 || err != nil {
				t.Errorf("requeued after %v, error %v", requeueAfter, err)
			}
			if diff := cmp.Diff(tc.want, testkit.Requests(f.client.Actions())); diff != "" {
				t.Errorf("requests (-want +got):\n%s", diff)
			}
		})
	}
}

func TestResponses(t *testing.T) {
	toApply := []metav1.Object{testkit.Namespace("team"), account(), template("t", noAutomount)}
	refused := testkit.Invalid("metadata", "refused")
	cases := map[string]struct {
		inResponse   error
		wantErr      error
		requeueAfter time.Duration
		wantEvents   int
	}{
		"it changed, or is another one": {inResponse: testkit.Conflict(), requeueAfter: time.Second},
		"it was deleted":                {inResponse: testkit.NotFound()},
		"a refusal is an event":         {inResponse: refused, wantErr: refused, wantEvents: 1},
		"an internal error is not":      {inResponse: testkit.InternalError(), wantErr: testkit.InternalError()},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, tc.inResponse, toApply...)
			requeueAfter, err := f.sync(testkit.Context(t), defaultKey())
			if requeueAfter != tc.requeueAfter || (err == nil) != (tc.wantErr == nil) || err != nil && !strings.HasPrefix(err.Error(), "apply templates to service account team/default: ") {
				t.Errorf("requeued after %v, error %v", requeueAfter, err)
			}
			if events := testkit.Events(f.recorder); len(events) != tc.wantEvents {
				t.Errorf("events %v", events)
			}
			if problem := f.problems[defaultKey()]; (problem == "") != (err == nil) {
				t.Errorf("problem %q", problem)
			}
		})
	}
}

// The cache never shows the writes, as if another client undid each of them.
func TestWhatIsUndoneIsWrittenEverMoreSlowly(t *testing.T) {
	f := newFixture(t, nil, testkit.Namespace("team"), account(), template("t", noAutomount))
	testkit.ExpectWriteBackoff(t, f.clock, func() int { return len(f.client.Actions()) }, func() time.Duration {
		requeueAfter, err := f.sync(testkit.Context(t), defaultKey())
		if err != nil {
			t.Fatal(err)
		}
		return requeueAfter
	})
	if events := testkit.Events(f.recorder); len(events) != 1 || !strings.HasPrefix(events[0], "Warning LeftAlone ") {
		t.Errorf("events %v", events)
	}
	if requeueAfter, err := f.sync(testkit.Context(t), defaultKey()); requeueAfter == 0 || err != nil {
		t.Errorf("requeued after %v, %v", requeueAfter, err)
	}
	f.syncedStatuses(t)
	if len(f.templates.patches) != 1 || !strings.Contains(f.templates.patches[0], "team/default: another client keeps changing it back") {
		t.Errorf("statuses %v", f.templates.patches)
	}
}

func (f fixture) syncedStatuses(t *testing.T) time.Duration {
	t.Helper()
	requeueAfter, err := f.syncStatuses(testkit.Context(t), allStatuses{})
	if err != nil {
		t.Fatal(err)
	}
	return requeueAfter
}

func TestStatusesAreWrittenAtMostOnceIn10Seconds(t *testing.T) {
	f := newFixture(t, nil, testkit.Namespace("team"), account(), template("t", noAutomount))
	if after := f.syncedStatuses(t); after != 0 || len(f.templates.patches) != 1 {
		t.Fatalf("first: %v, requeued after %v", f.templates.patches, after)
	}
	want := `"observedGeneration":1,"namespaces":1,"serviceAccounts":1,"conditions":[{"type":"Ready","status":"False","observedGeneration":1,"lastTransitionTime":"2026-01-02T03:04:05Z","reason":"Applying","message":"1 ServiceAccounts are still to be written"},` +
		`{"type":"Conflict","status":"False","observedGeneration":1,"lastTransitionTime":"2026-01-02T03:04:05Z","reason":"NoConflict","message":""}]`
	if !strings.Contains(f.templates.patches[0], want) {
		t.Errorf("the first is %s, want %s", f.templates.patches[0], want)
	}
	f.clock.SetTime(f.clock.Now().Add(4 * time.Second))
	if after := f.syncedStatuses(t); after != 6*time.Second || len(f.templates.patches) != 1 {
		t.Errorf("4 s later: requeued after %v, %d patches", after, len(f.templates.patches))
	}
	f.clock.SetTime(f.clock.Now().Add(6 * time.Second))
	if after := f.syncedStatuses(t); after != 0 || len(f.templates.patches) != 2 {
		t.Errorf("10 s later: requeued after %v, %d patches", after, len(f.templates.patches))
	}
}

func TestAStatusThatIsRightIsNotWritten(t *testing.T) {
	f := newFixture(t, nil)
	right := template("t", noAutomount)
	right.Status = (&tally{}).status(cache.NewTemplate(right), testkit.Instant())
	f.cache(t, right)
	f.clock.SetTime(f.clock.Now().Add(time.Hour))
	if f.syncedStatuses(t); len(f.templates.patches) > 0 {
		t.Errorf("patches %v", f.templates.patches)
	}
}

func TestWhatIsWrongIsOneEvent(t *testing.T) {
	conflicting := []metav1.Object{testkit.Namespace("team"), account(automount(true), owned(theirs(ownsAutomount)))}
	f := newFixture(t, nil, append(conflicting, template("t", noAutomount))...)
	f.syncedStatuses(t)
	want := `Warning TemplateConflict team/default: automountServiceAccountToken is set by the field manager "user" involvedObject{kind=ServiceAccountTemplate,apiVersion=sakeeper.io/v1alpha1}`
	if diff := cmp.Diff([]string{want}, testkit.Events(f.recorder)); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}

	written := template("t", noAutomount)
	written.Status.Conditions = []metav1.Condition{{
		Type: v1alpha1.ConditionConflict, Status: metav1.ConditionTrue, Reason: conditionConflict,
		Message: `team/default: automountServiceAccountToken is set by the field manager "user"`,
	}}
	g := newFixture(t, nil, append(conflicting, written)...)
	g.syncedStatuses(t)
	if events := testkit.Events(g.recorder); len(events) > 0 {
		t.Errorf("events of a process that follows: %v", events)
	}
}

func TestAContradictionIsAConflictOfTheLoser(t *testing.T) {
	f := newFixture(t, nil, testkit.Namespace("team"), account(automount(false), owned(ours(ownsAutomount))),
		template("a", noAutomount), template("b", func(s *v1alpha1.ServiceAccountTemplateSpec) {
			noAutomount(s)
			*s.AutomountServiceAccountToken = true
		}))
	f.syncedStatuses(t)
	for _, patch := range f.templates.patches {
		if told := strings.Contains(patch, "team/default: automountServiceAccountToken is set by the template a of the same priority"); told != strings.HasPrefix(patch, "b ") {
			t.Errorf("status %s", patch)
		}
	}
	if len(f.templates.patches) != 2 {
		t.Errorf("%d patches", len(f.templates.patches))
	}
}

func TestNewRefusesAnIncompleteConfig(t *testing.T) {
	complete := newFixture(t, nil).cfg
	cases := map[string]func(*Config){
		"no client":    func(c *Config) { c.Client = nil },
		"no templates": func(c *Config) { c.Templates = nil },
		"no recorder":  func(c *Config) { c.Recorder = nil },
		"no clock":     func(c *Config) { c.Clock = nil },
	}
	for name, change := range cases {
		t.Run(name, func(t *testing.T) {
			cfg := complete
			change(&cfg)
			if _, err := New(cfg); err == nil {
				t.Error("no error")
			}
		})
	}
}

// TestWhatIsQueued: a template queues every account, and the names that it creates.
func TestWhatIsQueued(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		creating := template("t", func(s *v1alpha1.ServiceAccountTemplateSpec) {
			noAutomount(s)
			s.Names, s.Create = []v1alpha1.ObjectName{"one", "two"}, true
		})
		f := newFixture(t, nil, testkit.Namespace("team"), testkit.Namespace("other"), account(automount(false), owned(ours(ownsAutomount))), creating)
		stop := testkit.Start(testkit.Context(t), t, func(ctx context.Context) error { return f.queue.Run(ctx) })
		f.enqueueTemplate(cache.NewTemplate(creating))
		time.Sleep(time.Second)
		synctest.Wait()
		stop()
		got := map[string]int{}
		for _, r := range testkit.Requests(f.client.Actions()) {
			got[r.Name]++
		}
		if diff := cmp.Diff(map[string]int{"team/default": 1, "team/one": 1, "team/two": 1, "other/one": 1, "other/two": 1}, got); diff != "" {
			t.Errorf("written (-want +got):\n%s", diff)
		}
	})
}
