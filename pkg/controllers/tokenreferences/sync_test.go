package tokenreferences

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

func TestSync(t *testing.T) {
	var many []string
	for i := range 200 {
		many = append(many, fmt.Sprintf("mine-%d", i))
	}
	left := func(names ...string) []testkit.Request {
		return []testkit.Request{patchTo(testkit.ResourceVersion, names...)}
	}
	deletedOnes := func(names ...string) []*cache.TokenSecret {
		var list []*cache.TokenSecret
		for _, name := range names {
			list = append(list, secretOfRobot(name, testkit.AccountUID))
		}
		return list
	}

	cases := map[string]struct {
		inAccount     *corev1.ServiceAccount
		inLiveAccount *corev1.ServiceAccount
		inCached      []string // Secrets
		inLive        []string // Secrets
		inDeleted     []*cache.TokenSecret
		want          []testkit.Request
		wantLookups   []string
		wantLive      bool // the account is read live
		wantDangling  int
		wantRequeue   time.Duration // if nothing dangles
	}{
		"a deleted secret": {
			inAccount: robot("mine", "yours"), inDeleted: deletedOnes("mine"), want: left("yours"), wantRequeue: grace,
		},
		"200 of them are one patch": {
			inAccount: robot(append(many, "last")...), inDeleted: deletedOnes(many...), want: left("last"), wantRequeue: grace,
		},
		"if none is left there is no list": {
			inAccount: robot(many...), inDeleted: deletedOnes(many...), want: left(),
		},
		"a generated name without a secret is looked up, without its data": {
			inAccount: robot("robot-token-x7z9q", "mine"), want: left("mine"), wantLookups: []string{"get secrets team/robot-token-x7z9q"}, wantRequeue: grace,
		},
		"and stays if it exists": {
			inAccount: robot("robot-token-x7z9q"), inLive: []string{"team/robot-token-x7z9q"}, wantLookups: []string{"get secrets team/robot-token-x7z9q"},
		},
		"a generated name of another account stays, and is counted": {
			inAccount: robot("default-token-x7z9q"), wantLookups: []string{"get secrets team/default-token-x7z9q"}, wantDangling: 1,
		},
		"so does what a user may create later": {
			inAccount: robot("mine", "yours"), wantLookups: []string{"get secrets team/mine", "get secrets team/yours"}, wantDangling: 2,
		},
		"but not what is a secret of another type": {
			inAccount: robot("mine", "yours"), inLive: []string{"team/mine"}, wantLookups: []string{"get secrets team/mine", "get secrets team/yours"}, wantDangling: 1,
		},
		"and a secret that exists": {
			inAccount: robot("robot-token-x7z9q", "mine"), inCached: []string{"team/robot-token-x7z9q", "team/mine"},
		},
		"also if it was deleted and created again": {
			inAccount: robot("mine"), inCached: []string{"team/mine"}, inDeleted: deletedOnes("mine"), wantRequeue: grace,
		},
		"a secret in another namespace does not count as existing": {
			inAccount: robot("mine"), inCached: []string{"other/mine"}, inDeleted: deletedOnes("mine"), want: left(),
		},
		"a deleted secret of a former account of that name stays": {
			inAccount: robot("mine"), inDeleted: []*cache.TokenSecret{secretOfRobot("mine", testkit.OtherUID)}, wantRequeue: grace,
		},
		"a deleted one that named no UID is removed": {
			inAccount: robot("mine"), inDeleted: []*cache.TokenSecret{secretOfRobot("mine", "")}, want: left(),
		},
		"all generated names are looked up, and one patch is written": {
			inAccount: robot("robot-token-x7z9q", "kept", "robot-token-bcdfg", "robot-token-hjklm"), inLive: []string{"team/robot-token-bcdfg"},
			want:        left("kept", "robot-token-bcdfg"),
			wantLookups: []string{"get secrets team/robot-token-x7z9q", "get secrets team/robot-token-bcdfg", "get secrets team/robot-token-hjklm"},
			wantRequeue: grace,
		},
		"while there are deletions, a generated name waits for its lookup": {
			inAccount: robot("robot-token-x7z9q", "mine"), inDeleted: deletedOnes("mine"), want: left("robot-token-x7z9q"), wantRequeue: grace,
		},
		"but not one that exists": {
			inAccount: robot("robot-token-x7z9q", "mine"), inDeleted: deletedOnes("mine"), inCached: []string{"team/robot-token-x7z9q"}, want: left("robot-token-x7z9q"), wantRequeue: grace,
		},
		"if the cached account has no such reference, it is read live": {
			inAccount: robot("yours"), inLiveAccount: robot("yours"), inDeleted: deletedOnes("mine"), wantLive: true, wantRequeue: grace,
		},
		"and the live reference is removed": {
			inAccount: robot("yours"), inLiveAccount: robot("yours", "mine"), inDeleted: deletedOnes("mine"), wantLive: true, want: left("yours"), wantRequeue: grace,
		},
		"but not a reference of its successor": {
			inAccount: robot("yours"), inLiveAccount: testkit.ServiceAccount("team/robot", testkit.WithUID(testkit.OtherUID), testkit.WithReferences("mine")),
			inDeleted: deletedOnes("mine"), wantLive: true, wantRequeue: grace,
		},
		"or the account is gone": {
			inAccount: robot("yours"), inDeleted: deletedOnes("mine"), wantLive: true,
		},
		"deletions of an account that is not cached are remembered": {
			inDeleted: deletedOnes("mine"), wantRequeue: memory - time.Second,
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			live := apiServer{secrets: tc.inLive}
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
			for _, secret := range tc.inDeleted {
				f.secretDeleted(secret)
			}
			f.advance(time.Second)
			for round := range 2 { // the second has no deletions
				requeueAfter, err := f.syncRobot(t)
				if err != nil {
					t.Errorf("round %d: %v", round, err)
				}
				if round == 0 {
					f.expectDangling(t, tc.wantDangling, requeueAfter)
					if tc.wantDangling == 0 && requeueAfter != tc.wantRequeue {
						t.Errorf("requeued after %v, want %v", requeueAfter, tc.wantRequeue)
					}
					want := tc.want
					if tc.wantLive {
						want = append([]testkit.Request{getAccount()}, want...)
					}
					f.expectRequests(t, want, tc.wantLookups)
				}
				f.client.ClearActions()
				if tc.wantLookups != nil {
					return // the cache still has the reference: it would be looked up again, and the patch be a conflict
				}
			}
			if again := testkit.Requests(f.client.Actions()); len(again) > 0 {
				t.Errorf("requests of the second sync: %v", again)
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

func TestNothingIsWrittenBeforeTheBatchEnds(t *testing.T) {
	f := newFixture(t, apiServer{}, robot("mine"))
	f.secretDeleted(secretOfRobot("mine", testkit.AccountUID))
	f.advance(20 * time.Millisecond)
	if requeueAfter, err := f.syncRobot(t); requeueAfter != 30*time.Millisecond || err != nil {
		t.Errorf("requeued after %v, error %v", requeueAfter, err)
	}
	if requests := f.client.Actions(); len(requests) > 0 {
		t.Errorf("requests: %v", requests)
	}
}

func TestAPIErrorsOfPatches(t *testing.T) {
	internal, quota := testkit.InternalError(), testkit.QuotaExceeded()
	cases := map[string]struct {
		inReads, inWrites error
		inRefs            []string
		wantErr           error
		wantRequeue       time.Duration
		wantText          string
		// wantNext are the requests of the next sync, with a cache that lags and an API server
		// that allows everything.
		wantNext []testkit.Request
	}{
		"a conflict: the account is read live": {
			inWrites: testkit.Conflict(), inRefs: []string{"mine"}, wantRequeue: time.Second, wantNext: []testkit.Request{getAccount(), patchTo("101")},
		},
		"the account is gone, and its references with it": {
			inWrites: testkit.NotFound(), inRefs: []string{"mine"},
		},
		"forbidden: retried": {
			inWrites: quota, inRefs: []string{"mine"}, wantErr: quota, wantText: "patch service account team/robot: ", wantNext: []testkit.Request{getAccount(), patchTo("101")},
		},
		"an internal error: retried": {
			inWrites: internal, inRefs: []string{"mine"}, wantErr: internal, wantText: "patch service account team/robot: ", wantNext: []testkit.Request{getAccount(), patchTo("101")},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			s := &apiServer{writes: tc.inWrites}
			f := newFixture(t, apiServer{}, robot(tc.inRefs...))
			react := func(action clienttesting.Action) (bool, runtime.Object, error) { return s.react(action) }
			f.client.PrependReactor("*", "*", react)
			f.metadata.PrependReactor("*", "*", react)
			if tc.inWrites != nil {
				f.secretDeleted(secretOfRobot("mine", testkit.AccountUID))
				f.advance(time.Second)
			}
			requeueAfter, err := f.syncRobot(t)
			if !errors.Is(err, tc.wantErr) || (tc.wantErr == nil) != (err == nil) {
				t.Errorf("error %v, want %v", err, tc.wantErr)
			}
			if requeueAfter != tc.wantRequeue {
				t.Errorf("requeued after %v, want %v", requeueAfter, tc.wantRequeue)
			}
			if err != nil && err.Error() != tc.wantText+tc.wantErr.Error() {
				t.Errorf("error %q", err)
			}

			next := robot(tc.inRefs...)
			next.ResourceVersion = "101"
			*s = apiServer{accounts: []*corev1.ServiceAccount{next}}
			f.client.ClearActions()
			f.advance(time.Second)
			if _, err := f.syncRobot(t); err != nil {
				t.Errorf("next: error %v", err)
			}
			if diff := cmp.Diff(tc.wantNext, testkit.Requests(f.client.Actions())); diff != "" {
				t.Errorf("next requests (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAFailedLookupIsRetriedAndNothingIsWritten(t *testing.T) {
	internal := testkit.InternalError()
	f := newFixture(t, apiServer{reads: internal}, robot("robot-token-x7z9q"))
	_, err := f.syncRobot(t)
	if !errors.Is(err, internal) || err.Error() != "get secret team/robot-token-x7z9q: "+internal.Error() {
		t.Errorf("error %v", err)
	}
	if requests := testkit.Requests(f.client.Actions()); len(requests) > 0 {
		t.Errorf("requests: %v", requests)
	}
}

// In TestAReferenceThatTheCacheShowsLateIsRemoved the watch of accounts lags behind the watch of
// Secrets.
func TestAReferenceThatTheCacheShowsLateIsRemoved(t *testing.T) {
	f := newFixture(t, apiServer{})
	f.secretDeleted(secretOfRobot("mine", testkit.AccountUID))
	f.advance(time.Second)
	if requeueAfter, err := f.syncRobot(t); requeueAfter != memory-time.Second || err != nil {
		t.Errorf("requeued after %v, error %v", requeueAfter, err)
	}
	f.advance(time.Minute)
	f.cache(t, robot("mine"))
	if _, err := f.syncRobot(t); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff([]testkit.Request{patchTo(testkit.ResourceVersion)}, testkit.Requests(f.client.Actions())); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}

// In TestAConflictLeavesNothingBehind another client removes the reference meanwhile. The deletion
// must not be remembered, because a user may refer to a Secret of that name much later.
func TestAConflictLeavesNothingBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, apiServer{writes: testkit.Conflict()}, robot("mine"))
		defer testkit.Start(testkit.Context(t), t, f.runQueue)()
		f.secretDeleted(secretOfRobot("mine", testkit.AccountUID))
		f.advance(time.Second)
		time.Sleep(time.Second)
		synctest.Wait()
		f.cache(t, robot())
		f.enqueue(robot())
		for range 60 {
			f.advance(time.Second)
			time.Sleep(time.Second)
			synctest.Wait()
		}
		if len(f.deletions.byAccount) > 0 {
			t.Errorf("remembered %v", f.deletions.byAccount)
		}
	})
}

func TestAFailedWriteStaysAFailureForTheQueue(t *testing.T) {
	f := newFixture(t, apiServer{writes: errBoom, accounts: []*corev1.ServiceAccount{robot("mine")}}, robot("mine"))
	f.secretDeleted(cache.NewTokenSecret(testkit.Secret("team/mine", testkit.WithAccount("robot")), nil))
	f.advance(time.Second)
	for range 20 { // the queue doubles its delay with each failure
		if _, err := f.syncRobot(t); !errors.Is(err, errBoom) {
			t.Fatalf("got %v: without an error the queue would reset its delay", err)
		}
		f.advance(time.Second)
	}
}

func TestLookupsAreRateLimited(t *testing.T) {
	const accounts = lookupsAtOnce + 10
	for name, reference := range map[string]string{"that may dangle": "mine", "with generated names": "robot-token-x7z9q"} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, apiServer{})
			waiting := 0
			for i := range accounts {
				account := testkit.ServiceAccount(fmt.Sprintf("team%d/robot", i), testkit.WithReferences(reference))
				f.cache(t, account)
				requeueAfter, err := f.sync(testkit.Context(t), objectName(account.Namespace+"/robot"))
				if err != nil && !errors.Is(err, workqueue.ErrRequeueLater) {
					t.Fatal(err)
				}
				if requeueAfter > 0 && requeueAfter < time.Second {
					waiting++
				}
			}
			if n := len(f.lookedUp()); n != lookupsAtOnce || waiting != 10 {
				t.Errorf("%d lookups at once, %d accounts wait", n, waiting)
			}
		})
	}
}

func TestNothingIsRememberedOfADeletedAccount(t *testing.T) {
	f := newFixture(t, apiServer{}, robot("mine"))
	if _, err := f.syncRobot(t); err != nil {
		t.Fatal(err)
	}
	f.expectDangling(t, 1, recount)
	if err := f.cfg.ServiceAccounts.GetStore().Delete(robot()); err != nil {
		t.Fatal(err)
	}
	if _, err := f.syncRobot(t); err != nil {
		t.Fatal(err)
	}
	f.expectDangling(t, 0, 0)
}
