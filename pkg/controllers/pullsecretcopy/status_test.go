package pullsecretcopy

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sakeeper/sakeeper/pkg/api/v1alpha1"
	"github.com/sakeeper/sakeeper/pkg/testkit"
)

// syncedStatuses syncs the conditions.
func (f *fixture) syncedStatuses(t *testing.T) time.Duration {
	t.Helper()
	requeueAfter, err := f.syncStatuses(testkit.Context(t), allStatuses{})
	if err != nil {
		t.Fatal(err)
	}
	return requeueAfter
}

func TestConditions(t *testing.T) {
	team := testkit.Namespace("team")
	const at = `"lastTransitionTime":"2026-01-02T03:04:05Z","reason":`
	cases := map[string]struct {
		in         []metav1.Object
		inProblem  string
		want       map[string]string // the condition by template
		wantEvents []string
	}{
		"a copy that is there":            {in: []metav1.Object{team, registry(), source(), copied(nil)}, want: map[string]string{"registry": `"True","observedGeneration":1,` + at + `"Copied","message":"1 copies"`}},
		"one that is still missing":       {in: []metav1.Object{team, registry(), source()}, want: map[string]string{"registry": `"False","observedGeneration":1,` + at + `"Copying","message":"1 copies are still to be written"`}},
		"one that cannot be written":      {in: []metav1.Object{team, registry(), source()}, inProblem: inTheWay, want: map[string]string{"registry": `"False","observedGeneration":1,` + at + `"NotCopied","message":"team/registry: a Secret of this name is there that is not a copy"`}, wantEvents: []string{"Warning PullSecretNotCopied team/registry: a Secret of this name is there that is not a copy"}},
		"a template that names none":      {in: []metav1.Object{team, template("plain", 0, v1alpha1.PullSecret{Name: "registry"})}, want: map[string]string{}},
		"a namespace that is going":       {in: []metav1.Object{testkit.Namespace("team", testkit.Terminating()), registry(), source()}, want: map[string]string{"registry": `"True","observedGeneration":1,` + at + `"Copied","message":"0 copies"`}},
		"the namespace of the source":     {in: []metav1.Object{testkit.Namespace("central"), template("same", 0, named("source", "central", "source")), source()}, want: map[string]string{"same": `"True","observedGeneration":1,` + at + `"Copied","message":"0 copies"`}},
		"templates that contradict":       {in: []metav1.Object{team, registry(), source(), copied(nil), template("second", 0, named("registry", "other", "x"))}, want: map[string]string{"registry": `"True","observedGeneration":1,` + at + `"Copied","message":"1 copies"`, "second": `"False","observedGeneration":1,` + at + `"Conflict","message":"team/registry is copied from central/source, as the template registry of the same priority says"`}, wantEvents: []string{"Warning TemplateConflict team/registry is copied from central/source, as the template registry of the same priority says"}},
		"a template that has less to say": {in: []metav1.Object{team, template("registry", 1, named("registry", "central", "source")), source(), copied(nil), template("second", 0, named("registry", "other", "x"))}, want: map[string]string{"registry": `"True","observedGeneration":1,` + at + `"Copied","message":"1 copies"`, "second": `"True","observedGeneration":1,` + at + `"Copied","message":"0 copies"`}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, tc.in...)
			f.note(copyKey(), tc.inProblem)
			f.syncedStatuses(t)
			got := map[string]string{}
			for _, patch := range f.templates.patches {
				name, body, _ := strings.Cut(patch, " ")
				_, condition, _ := strings.Cut(body, `{"type":"CopiesReady","status":`)
				got[name] = strings.TrimSuffix(condition, "}]}}")
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("conditions (-want +got):\n%s", diff)
			}
			var events []string
			for _, event := range testkit.Events(f.recorder) {
				event, _, _ = strings.Cut(event, " involvedObject")
				events = append(events, event)
			}
			if diff := cmp.Diff(tc.wantEvents, events); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
		})
	}
}

func TestConditionsAreWrittenAtMostOnceIn10Seconds(t *testing.T) {
	f := newFixture(t, testkit.Namespace("team"), registry())
	for range 2 {
		if f.syncedStatuses(t); len(f.templates.patches) != 1 {
			t.Fatalf("patches %v", f.templates.patches)
		}
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

// TestAConditionThatIsRightIsNotWritten: and one of a template that names no source any more is removed.
func TestAConditionThatIsRightIsNotWritten(t *testing.T) {
	right := registry()
	since := metav1.NewTime(testkit.Instant().Add(-time.Hour))
	right.Status.Conditions = []metav1.Condition{{Type: "CopiesReady", Status: "True", ObservedGeneration: 1, LastTransitionTime: since, Reason: "Copied", Message: "1 copies"}}
	former := template("former", 0)
	former.Status.Conditions = []metav1.Condition{{Type: "Ready", Status: "True", Reason: "Applied"}, right.Status.Conditions[0]}
	f := newFixture(t, testkit.Namespace("team"), right, former, source(), copied(nil))
	f.syncedStatuses(t)
	want := []string{`former {"metadata":{"resourceVersion":"100","uid":"` + string(testkit.OtherUID) + `"},"status":{"conditions":[{"type":"Ready","status":"True","lastTransitionTime":null,"reason":"Applied","message":""}]}}`}
	if diff := cmp.Diff(want, f.templates.patches); diff != "" {
		t.Errorf("patches (-want +got):\n%s", diff)
	}
}
