package tokensecret

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"

	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/internal/workqueue"
	"github.com/sakeeper/sakeeper/pkg/testkit"
)

// robot is team/robot with references.
func robot(names ...string) *corev1.ServiceAccount {
	return testkit.ServiceAccount("team/robot", testkit.WithReferences(names...))
}

// dropped is the one patch that leaves the references in left.
func dropped(version string, left ...string) testkit.Request {
	var refs any // null when none is left
	if len(left) > 0 {
		var list []any
		for _, name := range left {
			list = append(list, map[string]any{"name": name})
		}
		refs = list
	}
	return testkit.Request{Verb: "patch", Resource: "serviceaccounts", Name: "team/robot", Body: map[string]any{
		"metadata": map[string]any{"uid": string(testkit.AccountUID), "resourceVersion": version},
		"secrets":  refs,
	}}
}

func TestSyncReferences(t *testing.T) {
	var many []string
	for i := range 200 {
		many = append(many, fmt.Sprintf("mine-%d", i))
	}
	left := func(names ...string) []testkit.Request {
		return []testkit.Request{dropped(testkit.ResourceVersion, names...)}
	}
	goneOf := func(names ...string) []*cache.TokenSecret {
		var gone []*cache.TokenSecret
		for _, name := range names {
			gone = append(gone, goneSecret(name, testkit.AccountUID))
		}
		return gone
	}

	cases := map[string]struct {
		inAccount     *corev1.ServiceAccount
		inLiveAccount *corev1.ServiceAccount
		inCached      []string // Secrets
		inLive        []string // Secrets
		inGone        []*cache.TokenSecret
		want          []testkit.Request
		wantAsked     []string
		wantLive      bool // the account is read live
		wantDangling  int
		wantAgain     time.Duration // where it is not for the count
	}{
		"a secret that was seen going": {
			inAccount: robot("mine", "yours"), inGone: goneOf("mine"), want: left("yours"), wantAgain: grace,
		},
		"200 of them are one patch": {
			inAccount: robot(append(many, "last")...), inGone: goneOf(many...), want: left("last"), wantAgain: grace,
		},
		"when none is left there is no list": {
			inAccount: robot(many...), inGone: goneOf(many...), want: left(),
		},
		"a generated name that went unseen is asked for, without its contents": {
			inAccount: robot("robot-token-x7z9q", "mine"), want: left("mine"), wantAsked: []string{"get secrets team/robot-token-x7z9q"}, wantAgain: grace,
		},
		"and stays when it exists": {
			inAccount: robot("robot-token-x7z9q"), inLive: []string{"team/robot-token-x7z9q"}, wantAsked: []string{"get secrets team/robot-token-x7z9q"},
		},
		"a generated name of another account stays, and is counted": {
			inAccount: robot("default-token-x7z9q"), wantAsked: []string{"get secrets team/default-token-x7z9q"}, wantDangling: 1,
		},
		"so does what a user may create later": {
			inAccount: robot("mine", "yours"), wantAsked: []string{"get secrets team/mine", "get secrets team/yours"}, wantDangling: 2,
		},
		"but not what is a secret of another type": {
			inAccount: robot("mine", "yours"), inLive: []string{"team/mine"}, wantAsked: []string{"get secrets team/mine", "get secrets team/yours"}, wantDangling: 1,
		},
		"and a secret that exists": {
			inAccount: robot("robot-token-x7z9q", "mine"), inCached: []string{"team/robot-token-x7z9q", "team/mine"},
		},
		"also when it went and came back": {
			inAccount: robot("mine"), inCached: []string{"team/mine"}, inGone: goneOf("mine"), wantAgain: grace,
		},
		"a secret in another namespace does not count as existing": {
			inAccount: robot("mine"), inCached: []string{"other/mine"}, inGone: goneOf("mine"), want: left(),
		},
		"a secret of an account's former life stays": {
			inAccount: robot("mine"), inGone: []*cache.TokenSecret{goneSecret("mine", testkit.OtherUID)}, wantAgain: grace,
		},
		"one that named no UID goes": {
			inAccount: robot("mine"), inGone: []*cache.TokenSecret{goneSecret("mine", "")}, want: left(),
		},
		"all generated names are asked for, and one patch is written": {
			inAccount: robot("robot-token-x7z9q", "kept", "robot-token-bcdfg", "robot-token-hjklm"), inLive: []string{"team/robot-token-bcdfg"},
			want:      left("kept", "robot-token-bcdfg"),
			wantAsked: []string{"get secrets team/robot-token-x7z9q", "get secrets team/robot-token-bcdfg", "get secrets team/robot-token-hjklm"},
			wantAgain: grace,
		},
		"while others were seen going, a name that is merely missing waits": {
			inAccount: robot("robot-token-x7z9q", "mine"), inGone: goneOf("mine"), want: left("robot-token-x7z9q"), wantAgain: grace,
		},
		"but not one that exists": {
			inAccount: robot("robot-token-x7z9q", "mine"), inGone: goneOf("mine"), inCached: []string{"team/robot-token-x7z9q"}, want: left("robot-token-x7z9q"), wantAgain: grace,
		},
		"where the cache shows no reference, the account is read live": {
			inAccount: robot("yours"), inLiveAccount: robot("yours"), inGone: goneOf("mine"), wantLive: true, wantAgain: grace,
		},
		"and dropped is what is there": {
			inAccount: robot("yours"), inLiveAccount: robot("yours", "mine"), inGone: goneOf("mine"), wantLive: true, want: left("yours"), wantAgain: grace,
		},
		"but not what is of its successor": {
			inAccount: robot("yours"), inLiveAccount: testkit.ServiceAccount("team/robot", testkit.WithUID(testkit.OtherUID), testkit.WithReferences("mine")),
			inGone: goneOf("mine"), wantLive: true, wantAgain: grace,
		},
		"or it went": {
			inAccount: robot("yours"), inGone: goneOf("mine"), wantLive: true,
		},
		"an account that is not in the cache is remembered": {
			inGone: goneOf("mine"), wantAgain: memory - time.Second,
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			live := server{secrets: tc.inLive}
			if tc.inLiveAccount != nil {
				live.accounts = append(live.accounts, tc.inLiveAccount)
			}
			f := newFixture(t, live)
			if tc.inAccount != nil {
				f.cache(t, tc.inAccount.DeepCopy())
			}
			for _, cached := range tc.inCached {
				f.cache(t, testkit.Secret(cached, testkit.WithAccount("robot")))
			}
			for _, gone := range tc.inGone {
				f.secretDeleted(gone)
			}
			f.pass(time.Second)
			for round := range 2 { // the second finds nothing that was seen going
				again, err := f.syncReferences(f.context(t), keyOf("team/robot"))
				if err != nil {
					t.Errorf("round %d: %v", round, err)
				}
				if round == 0 {
					f.expectCounted(t, tc.wantDangling, again)
					if tc.wantDangling == 0 && again != tc.wantAgain {
						t.Errorf("again after %v, want %v", again, tc.wantAgain)
					}
					want := tc.want
					if tc.wantLive {
						want = append([]testkit.Request{getAccount()}, want...)
					}
					f.expectRequests(t, want, tc.wantAsked)
				}
				f.client.ClearActions()
				if tc.wantAsked != nil {
					return // a cache that lags asks again, and its patch is a conflict
				}
			}
			if again := testkit.Requests(f.client.Actions()); len(again) > 0 {
				t.Errorf("written twice: %v", again)
			}
			if tc.inAccount != nil {
				cached, _, _ := f.cfg.ServiceAccounts.GetStore().GetByKey("team/robot")
				if diff := cmp.Diff(tc.inAccount, cached.(*corev1.ServiceAccount)); diff != "" {
					t.Errorf("the cached object changed (-want +got):\n%s", diff)
				}
			}
		})
	}
}

func TestNothingIsWrittenBeforeAllIsQuiet(t *testing.T) {
	f := newFixture(t, server{}, robot("mine"))
	f.secretDeleted(goneSecret("mine", testkit.AccountUID))
	f.pass(100 * time.Millisecond)
	again, err := f.syncReferences(f.context(t), keyOf("team/robot"))
	if again != 150*time.Millisecond || err != nil {
		t.Errorf("again after %v, error %v", again, err)
	}
	if requests := f.client.Actions(); len(requests) > 0 {
		t.Errorf("requests: %v", requests)
	}
}

func TestAnswersToWritesOfReferences(t *testing.T) {
	internal, quota := testkit.InternalError(), testkit.QuotaExceeded()
	cases := map[string]struct {
		inReads, inWrites error
		inRefs            []string
		wantErr           error
		wantLater         time.Duration
		wantText          string
		// wantAgain is what the next sync asks for, with a cache that lags and a server that
		// allows everything.
		wantAgain []testkit.Request
	}{
		"it changed: what it is now decides": {
			inWrites: testkit.Conflict(), inRefs: []string{"mine"}, wantLater: time.Second, wantAgain: []testkit.Request{getAccount(), dropped("101")},
		},
		"it went, and its references with it": {
			inWrites: testkit.NotFound(), inRefs: []string{"mine"},
		},
		"a prohibition is retried": {
			inWrites: quota, inRefs: []string{"mine"}, wantErr: quota, wantText: "patch service account team/robot: ", wantAgain: []testkit.Request{getAccount(), dropped("101")},
		},
		"so is an internal error": {
			inWrites: internal, inRefs: []string{"mine"}, wantErr: internal, wantText: "patch service account team/robot: ", wantAgain: []testkit.Request{getAccount(), dropped("101")},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			s := &server{writes: tc.inWrites}
			f := newFixture(t, server{}, robot(tc.inRefs...))
			react := func(action clienttesting.Action) (bool, runtime.Object, error) { return s.react(action) }
			f.client.PrependReactor("*", "*", react)
			f.metadata.PrependReactor("*", "*", react)
			if tc.inWrites != nil {
				f.secretDeleted(goneSecret("mine", testkit.AccountUID))
				f.pass(time.Second)
			}
			later, err := f.syncReferences(f.context(t), keyOf("team/robot"))
			if !errors.Is(err, tc.wantErr) || (tc.wantErr == nil) != (err == nil) {
				t.Errorf("error %v, want %v", err, tc.wantErr)
			}
			if later != tc.wantLater {
				t.Errorf("again after %v, want %v", later, tc.wantLater)
			}
			if err != nil && err.Error() != tc.wantText+tc.wantErr.Error() {
				t.Errorf("error %q", err)
			}

			next := robot(tc.inRefs...)
			next.ResourceVersion = "101"
			*s = server{accounts: []*corev1.ServiceAccount{next}}
			f.client.ClearActions()
			f.pass(time.Second)
			if _, err := f.syncReferences(f.context(t), keyOf("team/robot")); err != nil {
				t.Errorf("next: error %v", err)
			}
			if diff := cmp.Diff(tc.wantAgain, testkit.Requests(f.client.Actions())); diff != "" {
				t.Errorf("next requests (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAQuestionWithoutAnAnswerIsRetriedAndNothingIsWritten(t *testing.T) {
	internal := testkit.InternalError()
	f := newFixture(t, server{reads: internal}, robot("robot-token-x7z9q"))
	_, err := f.syncReferences(f.context(t), keyOf("team/robot"))
	if !errors.Is(err, internal) || err.Error() != "get secret team/robot-token-x7z9q: "+internal.Error() {
		t.Errorf("error %v", err)
	}
	if requests := testkit.Requests(f.client.Actions()); len(requests) > 0 {
		t.Errorf("requests: %v", requests)
	}
}

// TestAReferenceThatTheCacheShowsLateIsDropped is about a watch of accounts that
// lags behind that of Secrets.
func TestAReferenceThatTheCacheShowsLateIsDropped(t *testing.T) {
	f := newFixture(t, server{})
	f.secretDeleted(goneSecret("mine", testkit.AccountUID))
	f.pass(time.Second)
	if again, err := f.syncReferences(f.context(t), keyOf("team/robot")); again != memory-time.Second || err != nil {
		t.Errorf("again after %v, error %v", again, err)
	}
	f.pass(time.Minute)
	f.cache(t, robot("mine"))
	if _, err := f.syncReferences(f.context(t), keyOf("team/robot")); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff([]testkit.Request{dropped(testkit.ResourceVersion)}, testkit.Requests(f.client.Actions())); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}

// TestAConflictLeavesNothingBehind is about an account whose references somebody
// else removed meanwhile. What was seen going must not be kept for a name that is
// written, and meant, much later.
func TestAConflictLeavesNothingBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, server{writes: testkit.Conflict()}, robot("mine"))
		defer testkit.Start(f.context(t), t, runner(f.references))()
		f.secretDeleted(goneSecret("mine", testkit.AccountUID))
		f.pass(time.Second)
		time.Sleep(time.Second)
		synctest.Wait()
		f.cache(t, robot())
		f.enqueueReferences(robot())
		for range 60 {
			f.pass(time.Second)
			time.Sleep(time.Second)
			synctest.Wait()
		}
		if len(f.departed.byAccount) > 0 {
			t.Errorf("kept %v", f.departed.byAccount)
		}
	})
}

func TestNewRefusesAnIncompleteConfig(t *testing.T) {
	complete := newFixture(t, server{}).cfg
	cases := map[string]func(*Config){
		"no client":           func(c *Config) { c.Client = nil },
		"no metadata client":  func(c *Config) { c.Metadata = nil },
		"no secrets":          func(c *Config) { c.Secrets = nil },
		"no service accounts": func(c *Config) { c.ServiceAccounts = nil },
		"no namespaces":       func(c *Config) { c.Namespaces = nil },
		"no tokens":           func(c *Config) { c.Tokens = nil },
		"no keys":             func(c *Config) { c.Keys = nil },
		"no token reviews":    func(c *Config) { c.TokenReviews = nil },
		"no CA":               func(c *Config) { c.CA = nil },
		"no recorder":         func(c *Config) { c.Recorder = nil },
		"no clock":            func(c *Config) { c.Clock = nil },
	}
	for name, spoil := range cases {
		t.Run(name, func(t *testing.T) {
			cfg := complete
			spoil(&cfg)
			if _, err := New(cfg); err == nil {
				t.Error("no error")
			}
		})
	}
}

// expectCounted checks how many references of team/robot dangle, and that they are
// looked at again when there are any.
func (f fixture) expectCounted(t *testing.T, want int, again time.Duration) {
	t.Helper()
	if got := f.dangling.of(keyOf("team/robot")); got != want {
		t.Errorf("%d references dangle, want %d", got, want)
	}
	if want > 0 && again != time.Hour {
		t.Errorf("counted again after %v", again)
	}
}

// expectRequests compares what was written and what was asked about Secrets.
func (f fixture) expectRequests(t *testing.T, want []testkit.Request, wantAsked []string) {
	t.Helper()
	if diff := cmp.Diff(want, testkit.Requests(f.client.Actions())); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(wantAsked, f.asked()); diff != "" {
		t.Errorf("asked (-want +got):\n%s", diff)
	}
}

func TestAFailedWriteIsRetriedEverLaterNotWithEachBurst(t *testing.T) {
	f := newFixture(t, server{writes: errBoom, accounts: []*corev1.ServiceAccount{robot("mine")}}, robot("mine"))
	f.secretDeleted(cache.NewTokenSecret(testkit.Secret("team/mine", testkit.WithAccount("robot")), nil))
	f.pass(time.Second)
	for range 20 { // as often as the queue, which doubles the delay, asks
		if _, err := f.syncReferences(f.context(t), keyOf("team/robot")); !errors.Is(err, errBoom) {
			t.Fatalf("got %v: a success would begin the delays anew", err)
		}
		f.pass(time.Second)
	}
}

func TestQuestionsAboutReferencesArePaced(t *testing.T) {
	const accounts = repairsAtOnce + 10
	for name, reference := range map[string]string{"that may dangle": "mine", "that were generated": "robot-token-x7z9q"} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, server{})
			later := 0
			for i := range accounts {
				account := testkit.ServiceAccount(fmt.Sprintf("team%d/robot", i), testkit.WithReferences(reference))
				f.cache(t, account)
				again, err := f.syncReferences(f.context(t), keyOf(account.Namespace+"/robot"))
				if err != nil && !errors.Is(err, workqueue.ErrRequeueLater) {
					t.Fatal(err)
				}
				if again > 0 && again < time.Second {
					later++
				}
			}
			if asked := len(f.asked()); asked != repairsAtOnce || later != 10 {
				t.Errorf("%d questions at once, %d put off", asked, later)
			}
		})
	}
}

func TestNothingIsKeptOfAnAccountThatWent(t *testing.T) {
	f := newFixture(t, server{}, robot("mine"))
	if _, err := f.syncReferences(f.context(t), keyOf("team/robot")); err != nil {
		t.Fatal(err)
	}
	f.expectCounted(t, 1, recount)
	if err := f.cfg.ServiceAccounts.GetStore().Delete(robot()); err != nil {
		t.Fatal(err)
	}
	if _, err := f.syncReferences(f.context(t), keyOf("team/robot")); err != nil {
		t.Fatal(err)
	}
	f.expectCounted(t, 0, 0)
}
