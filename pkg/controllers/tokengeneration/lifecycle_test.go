package tokengeneration

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/client-go/kubernetes/fake"
	metadatafake "k8s.io/client-go/metadata/fake"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/ktesting"
	"k8s.io/utils/clock"

	"github.com/sakeeper/sakeeper/pkg/testkit"
)

func TestLifecycleWithModeAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startController(t, ModeAll, testkit.Namespace("team"), testkit.Namespace("leaving", testkit.Terminating()),
			robot(createdLongAgo()), testkit.ServiceAccount("team/right", testkit.WithReferences("s")), testkit.ServiceAccount("leaving/default"),
			testkit.Secret("team/s", testkit.WithAccount("right"), testkit.WithData("token", "t")))
		defer r.stop()
		time.Sleep(9 * time.Second)
		if synctest.Wait(); !r.Ready() || len(r.client.Actions()) > 6 { // three lists, three watches
			t.Errorf("ready %t, %v", r.Ready(), r.client.Actions())
		}
		r.expectWrites("start", "create team/robot-token-*", "patch team/robot")

		r.must(r.client.Tracker().Create(accountsResource, testkit.ServiceAccount("later/default"), "later"))
		r.expectWrites("an account whose namespace is not cached yet")
		r.must(r.client.Tracker().Create(namespacesResource, testkit.Namespace("later"), ""))
		r.expectWrites("its namespace is cached", "create later/default-token-*", "patch later/default")

		first := r.references("later", "default")
		r.must(r.client.Tracker().Delete(secretsResource, "later", first[0]))
		r.expectWrites("its token secret is deleted", "create later/default-token-*", "patch later/default")
		second := r.references("later", "default")
		if len(second) != 2 || second[0] != first[0] || second[1] == first[0] {
			t.Errorf("refers to %q after %q", second, first)
		}

		r.update(testkit.ServiceAccount("later/default"))
		r.expectWrites("a user removes its references", "patch later/default")
		if diff := cmp.Diff(second[1:], r.references("later", "default")); diff != "" {
			t.Errorf("references (-want +got):\n%s", diff)
		}
		r.must(r.client.Tracker().Delete(accountsResource, "later", "default"))
		r.expectWrites("the account is deleted")
	})
}

func TestLifecycleWithModeLabelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startController(t, ModeLabelled, testkit.Namespace("team"), testkit.ServiceAccount("team/enabled", labelled("true")),
			testkit.ServiceAccount("team/disabled", labelled("false")), testkit.ServiceAccount("team/unlabelled"))
		defer r.stop()
		r.expectWrites("start", "create team/enabled-token-*", "patch team/enabled")
		r.must(r.client.Tracker().Update(namespacesResource, testkit.Namespace("team", testkit.WithLabel("app", "ci")), ""))
		r.expectWrites("the namespace gets an unrelated label")
		r.must(r.client.Tracker().Update(namespacesResource, testkit.Namespace("team", labelled("true")), ""))
		r.expectWrites("the namespace enables tokens", "create team/unlabelled-token-*", "patch team/unlabelled")
		r.update(testkit.ServiceAccount("team/disabled"))
		r.expectWrites("an account no longer disables tokens", "create team/disabled-token-*", "patch team/disabled")
	})
}

func TestAWaitingTokenIsWrittenWhenItIsWoken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startController(t, ModeAll, testkit.Namespace("team"))
		defer r.stop()
		r.tokens.setPaused(true)
		r.must(r.client.Tracker().Create(accountsResource, robot(), "team"))
		r.expectWrites("while another token is checked")
		r.tokens.setPaused(false)
		r.expectWrites("after the check", "create team/robot-token-*", "patch team/robot")
	})
}

// TestAnAccountThatIsWrittenBeforeItsSecret does what tools that restore a namespace do:
// they write the reference first.
func TestAnAccountThatIsWrittenBeforeItsSecret(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startController(t, ModeAll, testkit.Namespace("team"))
		defer r.stop()
		synctest.Wait()
		r.must(r.client.Tracker().Create(accountsResource, robot(testkit.WithReferences("robot-token-bbbbb")), "team"))
		time.Sleep(4 * time.Second)
		r.must(r.client.Tracker().Create(secretsResource, tokenSecret("robot-token-bbbbb"), "team"))
		r.expectWrites("its secret is created")
	})
}

func TestRejectedReferencesCauseOneEventAndOneSecret(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startController(t, ModeAll, testkit.Namespace("team"))
		defer r.stop()
		r.rejectReferences.Store(true)
		r.must(r.client.Tracker().Create(accountsResource, robot(), "team"))
		time.Sleep(time.Hour)
		synctest.Wait()
		if n := r.dryRuns.Load(); n < 10 {
			t.Errorf("%d dry runs in an hour", n)
		}
		if events := testkit.Events(r.recorder); len(events) != 1 {
			t.Errorf("want one event, got %q", events)
		}
		created := 0
		for _, request := range testkit.Requests(r.client.Actions()) {
			if request.Verb == "create" {
				created++
			}
		}
		if secrets := r.secretsOf("team"); created != 1 || len(secrets) != 0 {
			t.Errorf("created %d secrets, left %v", created, secrets)
		}
		r.rejectReferences.Store(false)
		time.Sleep(time.Hour)
		synctest.Wait()
		if secrets := r.secretsOf("team"); len(secrets) != 1 || !slices.Equal(secrets, r.references("team", "robot")) {
			t.Errorf("after references are allowed again, there are %v", secrets)
		}
	})
}

func TestAReferenceThatReplacesOfItsAccountRemoveThirtyTimesIsBackSoonAfterTheLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startController(t, ModeAll, testkit.Namespace("team"))
		defer r.stop()
		r.must(r.client.Tracker().Create(accountsResource, robot(), "team"))
		r.expectWrites("start", "create team/robot-token-*", "patch team/robot")
		before := r.references("team", "robot")
		for range 30 {
			time.Sleep(time.Second)
			synctest.Wait()
			r.update(robot())
			synctest.Wait()
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if diff := cmp.Diff(before, r.references("team", "robot")); diff != "" {
			t.Errorf("references (-want +got):\n%s", diff)
		}
	})
}

func TestNothingIsDoneBeforeAllCachesAreSynced(t *testing.T) {
	all := map[string]func(*Controller) toolscache.SharedIndexInformer{
		"namespaces":       func(c *Controller) toolscache.SharedIndexInformer { return c.cfg.Namespaces },
		"secrets":          func(c *Controller) toolscache.SharedIndexInformer { return c.cfg.Secrets },
		"service accounts": func(c *Controller) toolscache.SharedIndexInformer { return c.cfg.ServiceAccounts },
	}
	for missing := range all {
		t.Run("all but "+missing, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client := fake.NewClientset(testkit.Namespace("team"), robot())
				c := newController(t, client, func(cfg *Config) {
					cfg.Metadata, cfg.Tokens, cfg.Recorder, cfg.Clock = &metadatafake.FakeMetadataClient{}, &tokens{err: errBoom}, record.NewFakeRecorder(1), clock.RealClock{}
				})
				run := []func(context.Context) error{c.Run}
				for name, informer := range all {
					if name != missing {
						run = append(run, testkit.Informer(informer(c)))
					}
				}
				defer testkit.Start(klog.NewContext(t.Context(), ktesting.NewLogger(t, ktesting.NewConfig())), t, run...)()
				time.Sleep(time.Minute)
				if c.Ready() {
					t.Error("ready")
				}
			})
		})
	}
}
