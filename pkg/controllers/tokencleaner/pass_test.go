package tokencleaner

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sakeeper/sakeeper/pkg/testkit"
)

func TestPass(t *testing.T) {
	team, other := testkit.Namespace("team"), testkit.Namespace("other", testkit.WithUID(testkit.OtherUID))
	optIn := testkit.WithAnnotation(cleanUp, "24h")
	cases := map[string]struct {
		inCached []metav1.Object
		inPods   map[string][]corev1.PodList
		inChange func(*Config)
		want     []testkit.Request // after the one for the tracking ConfigMap
	}{
		"no secrets": {},
		"one that is unused is one patch": {
			inCached: []metav1.Object{team, robot("s"), secret("team/s")},
			want:     []testkit.Request{listPods("team"), markRequest("team/s")},
		},
		"one that was marked a period ago is one delete": {
			inCached: []metav1.Object{team, robot("s"), secret("team/s", marked())},
			want:     []testkit.Request{listPods("team"), deleteRequest("team/s")},
		},
		"one that names the uid of its account": {
			inCached: []metav1.Object{team, robot("s"), secret("team/s", testkit.WithAccountUID(testkit.AccountUID))},
			want:     []testkit.Request{listPods("team"), markRequest("team/s")},
		},
		"one of a former account of that name": {
			inCached: []metav1.Object{team, robot("s"), secret("team/s", testkit.WithAccountUID(testkit.OtherUID))},
		},
		"one without an account":                    {inCached: []metav1.Object{team, testkit.Secret("team/s")}},
		"one whose account refers to others":        {inCached: []metav1.Object{team, robot("t"), secret("team/s")}},
		"one whose account is in another namespace": {inCached: []metav1.Object{team, other, robot("s"), secret("other/s")}},
		"one whose namespace is not known":          {inCached: []metav1.Object{robot("s"), secret("team/s")}},
		"one whose use is recent":                   {inCached: []metav1.Object{team, robot("s"), secret("team/s", testkit.WithLabel(lastUsed, "2026-04-01"))}},
		"one that is marked and waits":              {inCached: []metav1.Object{team, robot("s"), secret("team/s", testkit.WithLabel(invalidSince, "2026-04-01"))}},
		"one that is kept by its namespace": {
			inCached: []metav1.Object{testkit.Namespace("team", testkit.WithAnnotation(keepIt, "true")), robot("s"), secret("team/s")},
		},
		"one that is not referenced, and its namespace has the annotation": {
			inCached: []metav1.Object{testkit.Namespace("team", optIn), robot(), secret("team/s")},
			want:     []testkit.Request{listPods("team"), markRequest("team/s")},
		},
		"one that is not referenced and has the annotation is deleted after its own period": {
			inCached: []metav1.Object{team, robot(), secret("team/s", optIn, testkit.WithLabel(invalidSince, "2026-04-10"))},
			want:     []testkit.Request{listPods("team"), deleteRequest("team/s")},
		},
		"one that a pod refers to, in whatever phase": {
			inCached: []metav1.Object{team, robot("a", "b", "c"), secret("team/a"), secret("team/b", marked()), secret("team/c")},
			inPods:   map[string][]corev1.PodList{"team": {podsReferringTo(corev1.PodSucceeded, "a"), podsReferringTo(corev1.PodRunning, "x"), podsReferringTo(corev1.PodFailed, "b")}},
			want: []testkit.Request{
				listPods("team"), {Verb: "list", Resource: "pods", Name: "team limit=500 continue=1"}, {Verb: "list", Resource: "pods", Name: "team limit=500 continue=2"},
				markRequest("team/c"),
			},
		},
		"one that a pod of another namespace refers to": {
			inCached: []metav1.Object{team, robot("s"), secret("team/s")},
			inPods:   map[string][]corev1.PodList{"other": {podsReferringTo(corev1.PodRunning, "s")}},
			want:     []testkit.Request{listPods("team"), markRequest("team/s")},
		},
		"pods are listed once per namespace, and only if a decision depends on them": {
			inCached: []metav1.Object{
				team, other, testkit.Namespace("young"),
				robot("a", "b"), secret("team/a"), secret("team/b", marked()), secret("team/c"),
				testkit.ServiceAccount("other/robot", testkit.WithReferences("s")), secret("other/s"),
				testkit.ServiceAccount("young/robot", testkit.WithReferences("s")), secret("young/s", testkit.WithLabel(lastUsed, "2026-04-01")),
			},
			want: []testkit.Request{
				listPods("other"), markRequest("other/s"),
				listPods("team"), markRequest("team/a"), deleteRequest("team/b"),
			},
		},
		"dates are in UTC": {
			inCached: []metav1.Object{team, robot("s"), secret("team/s")},
			inChange: func(cfg *Config) {
				cfg.Clock = testClock(now().In(time.FixedZone("far east", 23*60*60)))
			},
			want: []testkit.Request{listPods("team"), markRequest("team/s")},
		},
		"a dry run writes nothing": {
			inCached: []metav1.Object{team, robot("robot-token-x7z9q", "s"), secret("team/robot-token-x7z9q", marked()), secret("team/s")},
			inChange: func(cfg *Config) { cfg.DryRun = true },
			want:     []testkit.Request{listPods("team")},
		},
		"the account of a generated token is annotated before the deletion": {
			inCached: []metav1.Object{team, robot("robot-token-x7z9q", "s"), secret("team/robot-token-x7z9q", marked()), secret("team/s", marked())},
			want:     []testkit.Request{listPods("team"), annotateRequest("100", "2026-04-12"), deleteRequest("team/robot-token-x7z9q"), deleteRequest("team/s")},
		},
		"the account is not annotated if the name was not generated": {
			inCached: []metav1.Object{team, robot("s"), secret("team/s", marked())},
			want:     []testkit.Request{listPods("team"), deleteRequest("team/s")},
		},
		"the account is not annotated for a mark": {
			inCached: []metav1.Object{team, robot("robot-token-x7z9q"), secret("team/robot-token-x7z9q")},
			want:     []testkit.Request{listPods("team"), markRequest("team/robot-token-x7z9q")},
		},
		"the account is annotated once for all of its tokens": {
			inCached: []metav1.Object{team, robot("robot-token-x7z9q", "robot-token-zzzzz"), secret("team/robot-token-x7z9q", marked()), secret("team/robot-token-zzzzz", marked())},
			want: []testkit.Request{
				listPods("team"), annotateRequest("100", "2026-04-12"), deleteRequest("team/robot-token-x7z9q"), deleteRequest("team/robot-token-zzzzz"),
			},
		},
		"the account is annotated already": {
			inCached: []metav1.Object{
				team, secret("team/robot-token-x7z9q", marked()),
				testkit.ServiceAccount("team/robot", testkit.WithReferences("robot-token-x7z9q"), testkit.WithAnnotation("sakeeper.io/token-cleaned-up", "2026-04-12")),
			},
			want: []testkit.Request{listPods("team"), deleteRequest("team/robot-token-x7z9q")},
		},
		"the account has an annotation of an earlier day": {
			inCached: []metav1.Object{
				team, secret("team/robot-token-x7z9q", marked()),
				testkit.ServiceAccount("team/robot", testkit.WithReferences("robot-token-x7z9q"), testkit.WithAnnotation("sakeeper.io/token-cleaned-up", "2025-01-01")),
			},
			want: []testkit.Request{listPods("team"), annotateRequest("100", "2026-04-12"), deleteRequest("team/robot-token-x7z9q")},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t, tc.inChange, tc.inCached...)
				f.server.pods = tc.inPods
				f.onePass(t)
				f.expectRequests(t, append([]testkit.Request{getTracking()}, tc.want...)...)
				if !f.Ready() {
					t.Error("not ready")
				}
			})
		})
	}
}

// TestNothingIsDoneWithoutTracking checks that no token is changed, and that log and events
// say why, whatever is wrong with the tracking ConfigMap.
func TestNothingIsDoneWithoutTracking(t *testing.T) {
	event := func(problem string) []string {
		return []string{"Warning UnusableTokenTracking No tokens are cleaned up, because " + problem + " involvedObject{kind=ConfigMap,apiVersion=v1}"}
	}
	cases := map[string]struct {
		in         *corev1.ConfigMap
		wantEvents []string
		wantLog    string
	}{
		"it is missing":             {wantLog: "its config map is missing"},
		"it has no date":            {in: testkit.ConfigMap("kube-system/" + trackingName), wantEvents: event("the key since is missing"), wantLog: "the key since is missing"},
		"its date is invalid":       {in: trackedSince("soon"), wantEvents: event("the key since is not a date such as 2006-01-02"), wantLog: "not a date"},
		"its date is in the future": {in: trackedSince("2026-04-13"), wantEvents: event("the date in the key since lies in the future"), wantLog: "lies in the future"},
		"its date is too recent":    {in: trackedSince("2026-03-13")},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t, nil, testkit.Namespace("team"), robot("s", "m"), secret("team/s"), secret("team/m", marked()))
				f.server.tracking = tc.in
				f.onePass(t)
				f.expectRequests(t, getTracking())
				f.expectEvents(t, tc.wantEvents...)
				if logs := f.logs(); !strings.Contains(logs, tc.wantLog) {
					t.Errorf("want %q in\n%s", tc.wantLog, logs)
				}
				if !f.Ready() {
					t.Error("not ready, although there is nothing to wait for")
				}
			})
		})
	}
}

// TestTrackingThatCannotBeRead checks that a failed read is retried and begins no pass.
func TestTrackingThatCannotBeRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, nil, testkit.Namespace("team"), robot("s"), secret("team/s"))
		f.server.failWith("get configmaps", errBoom)
		stop := f.start(t)
		defer stop()
		if f.Ready() {
			t.Error("ready")
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if requests := f.requests(); f.Ready() || len(requests) < 10 {
			t.Errorf("ready %t after %d requests", f.Ready(), len(requests))
		}
		f.server.failWith("get configmaps", nil)
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		f.expectRequests(t, getTracking(), listPods("team"), markRequest("team/s"))
		if !f.Ready() {
			t.Error("not ready")
		}
	})
}

func TestWarnings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		numbered := func(n int) testkit.Option { return testkit.WithUID(types.UID(fmt.Sprint(n))) }
		wrong := testkit.Namespace("wrong", testkit.WithAnnotation(cleanUp, "soon"), testkit.WithAnnotation(keepIt, "false"), numbered(1))
		perhaps := testkit.Namespace("perhaps", testkit.WithAnnotation(keepIt, "perhaps"), numbered(2))
		account := func(namespace string) *corev1.ServiceAccount {
			return testkit.ServiceAccount(namespace+"/robot", testkit.WithReferences("a", "b", "c", "good"))
		}
		f := newFixture(t, nil, wrong, perhaps, testkit.Namespace("team", numbered(3)), account("wrong"), account("perhaps"), account("team"),
			secret("wrong/a"), secret("wrong/b"), secret("wrong/good", testkit.WithAnnotation(cleanUp, "24h")),
			secret("perhaps/a"), secret("perhaps/b"),
			secret("team/a", testkit.WithAnnotation(cleanUp, "soon")), secret("team/b", testkit.WithLabel(lastUsed, "soon")), secret("team/c", testkit.WithAnnotation(keepIt, "soon")), secret("team/good"))
		stop := f.start(t)
		defer stop()
		onNamespace, onSecret := " involvedObject{kind=Namespace,apiVersion=v1}", " involvedObject{kind=Secret,apiVersion=v1}"
		warnings := []string{
			"Warning InvalidCleanUpSetting " + noDurationOnNamespace.text + onNamespace,
			"Warning InvalidCleanUpSetting " + noBoolOnNamespace.text + onNamespace,
			"Warning InvalidCleanUpSetting " + noDuration.text + onSecret,
			"Warning InvalidCleanUpSetting " + noBool.text + onSecret,
			"Warning UnreadableLastUsed " + unreadableUse.text + onSecret,
		}
		markedEvent := func(period string) string {
			return "Normal MarkedUnusedToken Marked as unused: no use of this token within " + period + " is recorded, and no pod refers to it. " +
				"The API server refuses it from now on, and it is deleted after another " + period + " without use. " +
				"Remove the label kubernetes.io/legacy-token-invalid-since to use it again" + onSecret
		}
		f.expectEvents(t, append(warnings, markedEvent("24h0m0s"), markedEvent("720h0m0s"))...)
		f.expectRequests(t, getTracking(), listPods("team"), markRequest("team/good"), listPods("wrong"), markRequest("wrong/good"))

		f.server.change(func(s *server) { s.tracking = trackedSince("2026-04-12") }) // too recent for the Secrets with valid annotations
		time.Sleep(day)
		synctest.Wait()
		f.expectEvents(t, warnings[:4]...)
		f.expectRequests(t, getTracking())
	})
}
