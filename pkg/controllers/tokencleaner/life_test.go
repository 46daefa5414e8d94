package tokencleaner

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"

	"github.com/sakeeper/sakeeper/pkg/testkit"
)

// ahead is a clock that is ahead of time.Now, also in a synctest bubble.
type ahead time.Duration

func (a ahead) Now() time.Time                  { return time.Now().Add(time.Duration(a)) }
func (a ahead) Since(t time.Time) time.Duration { return a.Now().Sub(t) }

// fromNow is a clock that shows now() at this moment.
func fromNow() ahead { return ahead(time.Until(now())) }

func TestNew(t *testing.T) {
	client := &fake.Clientset{}
	complete := newFixture(t, nil).cfg
	complete.Client, complete.Registerer = client.CoreV1(), nil
	testkit.ExpectRequired(t, complete, New, "ConfirmLive", "Period", "Interval", "DryRun", "Registerer")
	cases := map[string]struct {
		in   func(*Config)
		want string
	}{
		"no period":                  {in: func(cfg *Config) { cfg.Period = 0 }, want: "must be positive, not 0s and 24h0m0s"},
		"a negative period":          {in: func(cfg *Config) { cfg.Period = -1 }, want: "must be positive"},
		"no interval":                {in: func(cfg *Config) { cfg.Interval = 0 }, want: "must be positive"},
		"a negative interval":        {in: func(cfg *Config) { cfg.Interval = -1 }, want: "must be positive"},
		"metrics that exist already": {in: func(cfg *Config) { _, _ = newMetrics(cfg.Registerer) }, want: "duplicate"},
		"no registerer":              {in: func(cfg *Config) { cfg.Registerer = nil }},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			good := newFixture(t, nil).cfg
			good.Client, good.Registerer = client.CoreV1(), prometheus.NewRegistry()
			tc.in(&good)
			c, err := New(good)
			if c != nil && err == nil {
				testkit.EndQueue(t, c)
			}
			if got := fmt.Sprint(err); (err != nil) != (tc.want != "") || !strings.Contains(got, tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

func TestNothingIsDoneBeforeAllCachesAreSynced(t *testing.T) {
	informers := map[string]func(*Controller) toolscache.SharedIndexInformer{
		"namespaces": func(c *Controller) toolscache.SharedIndexInformer { return c.cfg.Namespaces },
		"secrets":    func(c *Controller) toolscache.SharedIndexInformer { return c.cfg.Secrets },
		"accounts":   func(c *Controller) toolscache.SharedIndexInformer { return c.cfg.ServiceAccounts },
	}
	for missing := range informers {
		t.Run("all but "+missing, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client := fake.NewClientset(testkit.Namespace("team"), robot("s"), secret("team/s"), trackedSince("2026-01-02"))
				c := newController(t, client, func(cfg *Config) { cfg.Clock, cfg.Recorder = fromNow(), record.NewFakeRecorder(10) })
				run := []func(context.Context) error{c.Run}
				for name, informer := range informers {
					if name != missing {
						run = append(run, testkit.Informer(informer(c)))
					}
				}
				defer testkit.Start(testkit.Context(t), t, run...)()
				time.Sleep(time.Minute)
				if c.Ready() {
					t.Error("ready")
				}
				for _, r := range testkit.Requests(client.Actions()) {
					if r.Verb != "list" && r.Verb != "watch" {
						t.Errorf("unexpected %s %s", r.Verb, r.Resource)
					}
				}
			})
		})
	}
}

// TestLife runs the controller with its informers against a fake API server, through
// months.
func TestLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := testkit.Context(t)
		client := fake.NewClientset(testkit.Namespace("team"), robot("s", "in-use", "in-pod"),
			secret("team/s"), secret("team/in-pod"), secret("team/by-hand"), secret("team/in-use", testkit.WithLabel(lastUsed, "2026-04-12")),
			&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "team", Name: "p"}, Spec: podsReferringTo("", "in-pod").Items[0].Spec},
			trackedSince("2026-01-02"))
		c := newController(t, client, func(cfg *Config) { cfg.Clock, cfg.Recorder = fromNow(), record.NewFakeRecorder(1000) })
		informers := []toolscache.SharedIndexInformer{c.cfg.Namespaces, c.cfg.Secrets, c.cfg.ServiceAccounts}
		run := []func(context.Context) error{c.Run}
		for _, informer := range informers {
			run = append(run, testkit.Informer(informer))
		}
		stop := testkit.Start(ctx, t, run...)
		// after lets time pass and compares the requests of the controller. Those of the test
		// itself go through the tracker and are not among the actions of the client.
		after := func(step string, d time.Duration, want ...string) {
			t.Helper()
			time.Sleep(d)
			synctest.Wait()
			var got []string
			for _, r := range testkit.Requests(client.Actions()) {
				if r.Verb != "watch" && (r.Verb != "list" || r.Resource == "pods") {
					got = append(got, strings.TrimSpace(r.Verb+" "+r.Resource+" "+strings.TrimPrefix(r.Name, "team/")))
				}
			}
			client.ClearActions()
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", step, diff)
			}
		}
		secrets := corev1.SchemeGroupVersion.WithResource("secrets")
		relabel := func(name, key, value string) {
			t.Helper()
			found, err := client.Tracker().Get(secrets, "team", name)
			if err == nil {
				changed := found.(*corev1.Secret).DeepCopy()
				if testkit.WithLabel(key, value)(changed); value == "" {
					delete(changed.Labels, key)
				}
				err = client.Tracker().Update(secrets, changed, "team")
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		const track = "get configmaps kube-system/kube-apiserver-legacy-service-account-token-tracking"

		after("at the start", time.Second, track, "list pods", "patch secrets s")
		if !c.Ready() {
			t.Error("not ready")
		}
		after("before the next pass", day-2*time.Second)
		after("at the next pass, for the one that a pod refers to", 2*time.Second, track, "list pods")
		relabel("s", lastUsed, "2026-04-14")
		after("for one day more", day, track, "list pods")
		relabel("s", invalidSince, "")
		after("the label is gone, and it was used", day, track, "list pods")
		// That was on 04-15.
		for range 27 {
			after("while both uses are recent", day, track, "list pods")
		}
		after("on 05-13, the use of 04-12 is not any more", day, track, "list pods", "patch secrets in-use")
		after("on 05-14", day, track, "list pods")
		after("on 05-15, nor is that of 04-14", day, track, "list pods", "patch secrets s")
		relabel("s", invalidSince, "")
		after("on 05-16, a user has removed its mark", day, track, "list pods", "patch secrets s")
		for range 27 {
			after("while both marks are recent", day, track, "list pods")
		}
		after("on 06-13, that of 05-13 is not any more", day, track, "list pods", "delete secrets in-use")
		after("on 06-14", day, track, "list pods")
		after("on 06-15", day, track, "list pods")
		after("on 06-16, nor is that of 05-16", day, track, "list pods", "delete secrets s")
		after("nothing more", day, track, "list pods")
		stop()
		after("after the stop", 10*day)
	})
}

// TestAMarkThatIsRemovedIsSetByEachPass needs no write backoff: a pass is a day after another.
func TestAMarkThatIsRemovedIsSetByEachPass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, func(cfg *Config) { cfg.Clock = fromNow() }, testkit.Namespace("team"), robot("s"), secret("team/s"))
		stop := f.start(t)
		defer stop()
		time.Sleep(10 * day)
		synctest.Wait()
		patches := 0
		for _, r := range f.requests() {
			if r.Verb == "patch" {
				patches++
			}
		}
		if patches != 11 {
			t.Errorf("marked %d times in ten days and at the start", patches)
		}
	})
}

func TestDryRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, func(cfg *Config) { cfg.DryRun = true },
			testkit.Namespace("team"), robot("robot-token-x7z9q", "s", "in-pod"),
			secret("team/robot-token-x7z9q", marked()), secret("team/s"), secret("team/in-pod"))
		f.server.pods["team"] = []corev1.PodList{podsReferringTo(corev1.PodRunning, "in-pod")}
		stop := f.start(t)
		defer stop()
		for range 2 { // each pass reports the same
			f.expectRequests(t, getTracking(), listPods("team"))
			f.expectEvents(t,
				"Normal WouldDeleteUnusedToken Would be deleted: marked as unused since 2026-02-01, and not used within 720h0m0s involvedObject{kind=Secret,apiVersion=v1}",
				"Normal WouldMarkUnusedToken Would be marked as unused: no use of this token within 720h0m0s is recorded, and no pod refers to it involvedObject{kind=Secret,apiVersion=v1}")
			time.Sleep(day)
			synctest.Wait()
		}
		for _, line := range []string{`secret="team/s" serviceAccount="team/robot" step="mark"`, `secret="team/robot-token-x7z9q" serviceAccount="team/robot" step="delete"`} {
			if !strings.Contains(f.logs(), "Dry run: nothing was changed key=\"team\" "+line) {
				t.Errorf("want %s in\n%s", line, f.logs())
			}
		}
		for step, want := range map[string]float64{"mark": 3, "delete": 3} {
			if got := testutil.ToFloat64(f.metrics.steps.WithLabelValues(step, "dry_run")); got != want {
				t.Errorf("%s: %v in three passes", step, got)
			}
			if got := testutil.ToFloat64(f.metrics.steps.WithLabelValues(step, "done")); got != 0 {
				t.Errorf("%s: %v done", step, got)
			}
		}
	})
}

// TestRunStopsInTheMiddle checks that Run completes the current request and begins no other.
func TestRunStopsInTheMiddle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, nil, testkit.Namespace("team"), robot("1", "2"), secret("team/1"), secret("team/2"))
		f.client.PrependReactor("patch", "secrets", func(clienttesting.Action) (bool, runtime.Object, error) {
			time.Sleep(time.Minute)
			return true, &corev1.Secret{}, nil
		})
		stop := f.start(t)
		began := time.Now()
		stop()
		if took := time.Since(began); took != time.Minute {
			t.Errorf("Run returned after %v, while a request took a minute", took)
		}
		f.expectRequests(t, getTracking(), listPods("team"), markRequest("team/1"))
	})
}
