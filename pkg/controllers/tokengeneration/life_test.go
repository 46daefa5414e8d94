package tokengeneration

import (
	"context"
	"errors"
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

func TestLifeWithAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, ModeAll, testkit.Namespace("team"), testkit.Namespace("leaving", testkit.Terminating()),
			robot(ofLongAgo()), testkit.ServiceAccount("team/right", testkit.WithReferences("s")), testkit.ServiceAccount("leaving/default"),
			testkit.Secret("team/s", testkit.WithAccount("right"), testkit.WithData("token", "t")))
		defer w.stop()
		time.Sleep(9 * time.Second)
		if synctest.Wait(); !w.Ready() || len(w.client.Actions()) > 6 { // three lists, three watches
			t.Errorf("ready %t, %v", w.Ready(), w.client.Actions())
		}
		w.expectWrites("start", "create team/robot-token-*", "patch team/robot")

		w.must(w.client.Tracker().Create(accountsResource, testkit.ServiceAccount("later/default"), "later"))
		w.expectWrites("an account whose namespace is not seen yet")
		w.must(w.client.Tracker().Create(namespacesResource, testkit.Namespace("later"), ""))
		w.expectWrites("and now it is", "create later/default-token-*", "patch later/default")

		first := w.references("later", "default")
		w.must(w.client.Tracker().Delete(secretsResource, "later", first[0]))
		w.expectWrites("its token went", "create later/default-token-*", "patch later/default")
		second := w.references("later", "default")
		if len(second) != 2 || second[0] != first[0] || second[1] == first[0] {
			t.Errorf("refers to %q after %q", second, first)
		}

		w.update(testkit.ServiceAccount("later/default"))
		w.expectWrites("somebody dropped its references", "patch later/default")
		if diff := cmp.Diff(second[1:], w.references("later", "default")); diff != "" {
			t.Errorf("references (-want +got):\n%s", diff)
		}
		w.must(w.client.Tracker().Delete(accountsResource, "later", "default"))
		w.expectWrites("the account went")
	})
}

func TestLifeWithLabels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, ModeLabelled, testkit.Namespace("team"), testkit.ServiceAccount("team/asks", labelled("true")),
			testkit.ServiceAccount("team/refuses", labelled("false")), testkit.ServiceAccount("team/silent"))
		defer w.stop()
		w.expectWrites("start", "create team/asks-token-*", "patch team/asks")
		w.must(w.client.Tracker().Update(namespacesResource, testkit.Namespace("team", testkit.WithLabel("app", "ci")), ""))
		w.expectWrites("the namespace gets a label of no concern")
		w.must(w.client.Tracker().Update(namespacesResource, testkit.Namespace("team", labelled("true")), ""))
		w.expectWrites("the namespace asks", "create team/silent-token-*", "patch team/silent")
		w.update(testkit.ServiceAccount("team/refuses"))
		w.expectWrites("an account does not refuse any more", "create team/refuses-token-*", "patch team/refuses")
	})
}

func TestTokensThatWaitAreWokenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, ModeAll, testkit.Namespace("team"))
		defer w.stop()
		w.gate.set(true)
		w.must(w.client.Tracker().Create(accountsResource, robot(), "team"))
		w.expectWrites("while another token is tried")
		w.gate.set(false)
		w.expectWrites("and then", "create team/robot-token-*", "patch team/robot")
	})
}

// TestAnAccountThatIsWrittenBeforeItsSecret is what tools that restore a namespace
// do: the reference is there first.
func TestAnAccountThatIsWrittenBeforeItsSecret(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, ModeAll, testkit.Namespace("team"))
		defer w.stop()
		synctest.Wait()
		w.must(w.client.Tracker().Create(accountsResource, robot(testkit.WithReferences("robot-token-bbbbb")), "team"))
		time.Sleep(4 * time.Second)
		w.must(w.client.Tracker().Create(secretsResource, tokenSecret("robot-token-bbbbb"), "team"))
		w.expectWrites("its secret comes")
	})
}

func TestARefusalIsOneEventAndNothingIsMadeForNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, ModeAll, testkit.Namespace("team"))
		defer w.stop()
		w.refusing.Store(true)
		w.must(w.client.Tracker().Create(accountsResource, robot(), "team"))
		time.Sleep(time.Hour)
		synctest.Wait()
		if n := w.rehearsals.Load(); n < 10 {
			t.Errorf("%d rehearsals in an hour", n)
		}
		if events := testkit.Events(w.recorder); len(events) != 1 {
			t.Errorf("want one event, got %q", events)
		}
		made := 0
		for _, r := range testkit.Requests(w.client.Actions()) {
			if r.Verb == "create" {
				made++
			}
		}
		if secrets := w.secretsOf("team"); made != 1 || len(secrets) != 0 {
			t.Errorf("made %d secrets, left %v", made, secrets)
		}
		w.refusing.Store(false)
		time.Sleep(time.Hour)
		synctest.Wait()
		if secrets := w.secretsOf("team"); len(secrets) != 1 || !slices.Equal(secrets, w.references("team", "robot")) {
			t.Errorf("allowed again, there are %v", secrets)
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
					cfg.Metadata, cfg.Tokens, cfg.Recorder, cfg.Clock = &metadatafake.FakeMetadataClient{}, &tokens{err: errors.New("asked")}, record.NewFakeRecorder(1), clock.RealClock{}
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
