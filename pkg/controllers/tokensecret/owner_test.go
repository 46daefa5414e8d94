package tokensecret

import (
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"

	"github.com/sakeeper/sakeeper/pkg/testkit"
)

// A Secret is created right after its account was replaced, and is seen before that.
func TestASecretForAnAccountsSuccessor(t *testing.T) {
	instant := metav1.NewTime(testkit.Instant())
	before := metav1.NewTime(testkit.Instant().Add(-time.Minute))
	const deletedAt, older, newer = "500", "499", "501" // resourceVersions
	cases := map[string]struct {
		inVersion  string // of the Secret when it was filled
		inCreated  metav1.Time
		inReplaced bool
		inVanished bool // the watch missed when the account was deleted
		want       []string
	}{
		"is filled again if it was created after the deletion": {
			inVersion: newer, inCreated: instant, inReplaced: true, want: []string{"update secrets", "get serviceaccounts", "patch secrets"},
		},
		"is deleted if it was created before the deletion, without a GET": {
			inVersion: older, inCreated: instant, inReplaced: true, want: []string{"update secrets", "delete secrets"},
		},
		"is deleted if it was created before the successor": {
			inVersion: newer, inCreated: before, inReplaced: true, want: []string{"update secrets", "get serviceaccounts", "delete secrets"},
		},
		"is deleted if the watch missed the deletion, after two GETs": {
			inVersion: newer, inCreated: instant, inReplaced: true, inVanished: true,
			want: []string{"update secrets", "get serviceaccounts", "get serviceaccounts", "delete secrets"},
		},
		"is deleted if there is no successor": {
			inVersion: newer, inCreated: instant, want: []string{"update secrets", "get serviceaccounts", "delete secrets"},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			var s apiServer
			if tc.inReplaced {
				successor := testkit.ServiceAccount("team/robot")
				successor.UID, successor.CreationTimestamp = testkit.OtherUID, instant
				s.accounts = []*corev1.ServiceAccount{successor}
			}
			// The cache still has the deleted account.
			f := newFixture(t, s, robot())
			secret := testkit.Secret("team/s", testkit.WithAccount("robot"))
			secret.ResourceVersion, secret.CreationTimestamp = tc.inVersion, tc.inCreated
			f.cache(t, secret)
			f.mustSync(t, "team/s")

			filled := secret.DeepCopy()
			filled.ResourceVersion = "600"
			filled.Annotations[corev1.ServiceAccountUIDKey] = string(testkit.AccountUID)
			filled.Data = map[string][]byte{"token": []byte("made"), "namespace": []byte("team")}
			f.cache(t, filled)
			gone := robot()
			if err := f.cfg.ServiceAccounts.GetStore().Delete(gone); err != nil {
				t.Fatal(err)
			}
			gone.ResourceVersion = deletedAt
			if tc.inVanished {
				f.accountVanished(gone)
				f.advance(listWindow)
				f.mustSync(t, "team/s")
				f.advance(doubtedFor)
			} else {
				f.accountDeleted(gone)
			}
			f.mustSync(t, "team/s")

			var got []string
			for _, r := range testkit.Requests(f.client.Actions()) {
				got = append(got, r.Verb+" "+r.Resource)
				if r.Verb != "patch" {
					continue
				}
				want := map[string]any{
					"metadata": map[string]any{
						"uid": string(secret.UID), "resourceVersion": "600",
						"annotations": map[string]any{corev1.ServiceAccountUIDKey: nil},
					},
					"data": map[string]any{"token": nil},
				}
				if diff := cmp.Diff(want, r.Body); diff != "" {
					t.Errorf("patch (-want +got):\n%s", diff)
				}
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("requests (-want +got):\n%s", diff)
			}
		})
	}
}

// The accounts of the other Secrets are not cached here: each sync of one would cost a GET.
func TestADeletedAccountQueuesItsOwnSecretsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, apiServer{})
		f.cache(t, testkit.Secret("team/mine", testkit.WithAccount("robot"), testkit.WithAccountUID(testkit.AccountUID)))
		for _, other := range []string{"team/a", "team/b", "other/c"} {
			f.cache(t, testkit.Secret(other, testkit.WithAccount("another")))
		}
		defer testkit.Start(f.context(t), t, f.runQueue)()
		f.accountDeleted(robot())
		time.Sleep(time.Minute)
		synctest.Wait()
		var got []string
		for _, r := range testkit.Requests(f.client.Actions()) {
			got = append(got, r.Verb+" "+r.Resource+" "+r.Name)
		}
		if diff := cmp.Diff([]string{"delete secrets team/mine"}, got); diff != "" {
			t.Errorf("requests (-want +got):\n%s", diff)
		}
	})
}

func (f fixture) mustSync(t *testing.T, secret string) { //nolint:unparam // cases read better with it
	t.Helper()
	if _, err := f.sync(f.context(t), objectName(secret)); err != nil {
		t.Fatal(err)
	}
}

// An account is created and deleted while the watch is broken. The list that follows does not have
// it, so that there is no event of its deletion.
func TestAnAccountThatNoWatchEverShowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, apiServer{}, testkit.Secret("team/s", testkit.WithAccount("robot")))
		var gone atomic.Bool
		f.client.PrependReactor("get", "serviceaccounts", func(clienttesting.Action) (bool, runtime.Object, error) {
			return !gone.Load(), robot(), nil
		})
		defer testkit.Start(f.context(t), t, f.runQueue)()
		f.EnqueueAll()
		synctest.Wait()
		gone.Store(true)
		time.Sleep(requeueNotCached)
		synctest.Wait()
		f.advance(accountGrace)
		time.Sleep(accountGrace)
		synctest.Wait()
		var got []string
		for _, r := range testkit.Requests(f.client.Actions()) {
			got = append(got, r.Verb+" "+r.Resource)
		}
		want := []string{"get serviceaccounts", "update secrets", "get serviceaccounts", "get serviceaccounts", "delete secrets"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("requests (-want +got):\n%s", diff)
		}
	})
}

func TestASecretIsFilledWhenItsAccountAppears(t *testing.T) {
	accounts, secrets := corev1.SchemeGroupVersion.WithResource("serviceaccounts"), corev1.SchemeGroupVersion.WithResource("secrets")
	synctest.Test(t, func(t *testing.T) {
		r := startController(t)
		defer r.stop()
		synctest.Wait()
		r.must(r.client.Tracker().Create(secrets, testkit.Secret("team/s", testkit.WithAccount("robot")), "team"))
		time.Sleep(accountGrace - time.Second)
		r.must(r.client.Tracker().Create(accounts, robot(), "team"))
		r.expectRequests("the account appears", "get serviceaccounts team/robot", "update secrets team/s")
		if !r.missing.empty() {
			t.Errorf("remembered %v", r.missing.bySecret)
		}
	})
}

func TestADeletionForWantOfAnAccountIsToldOnTheNamespace(t *testing.T) {
	reborn := testkit.ServiceAccount("team/robot", testkit.WithUID(testkit.OtherUID))
	const other = "Deleted token secret s, because it is for another UID of service account robot: it names " +
		string(testkit.AccountUID) + ", and the account has " + string(testkit.OtherUID)
	cases := map[string]struct {
		inLive, inCached *corev1.ServiceAccount
		inDeleted        bool // the deletion of the account was seen
		inTerminating    bool
		want, wantLog    string
	}{
		"no account": {
			want: "Deleted token secret s, because its service account robot does not exist", wantLog: `reason="service account does not exist"`,
		},
		"another account of that name":                      {inLive: reborn, want: other, wantLog: `reason="service account has another UID"`},
		"another account, after the deletion of the former": {inCached: reborn, inDeleted: true, want: other, wantLog: `reason="service account has another UID"`},
		"a namespace that is being deleted":                 {inTerminating: true, wantLog: `reason="service account does not exist"`},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			team := testkit.Namespace("team")
			if tc.inTerminating {
				team.Status.Phase = corev1.NamespaceTerminating
			}
			s := apiServer{}
			if tc.inLive != nil {
				s.accounts = []*corev1.ServiceAccount{tc.inLive}
			}
			f := newFixture(t, s, team, secret())
			if tc.inCached != nil {
				f.cache(t, tc.inCached)
			}
			if tc.inDeleted {
				f.accountDeleted(robot())
			}
			f.mustSync(t, "team/s")
			var want []string
			if tc.want != "" {
				want = []string{"Warning DeletedTokenSecret " + tc.want + " involvedObject{kind=Namespace,apiVersion=v1}"}
			}
			if diff := cmp.Diff(want, testkit.Events(f.recorder)); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
			if !strings.Contains(f.logs(), tc.wantLog) {
				t.Errorf("no %s in the log", tc.wantLog)
			}
		})
	}
}
