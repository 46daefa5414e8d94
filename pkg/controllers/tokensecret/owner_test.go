package tokensecret

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sakeeper/sakeeper/pkg/testkit"
)

const (
	getOwner     = "get serviceaccounts team/robot"
	fillSecret   = "update secrets team/s"
	deleteSecret = "delete secrets team/s"
)

func created(at time.Time) testkit.Option {
	return func(o metav1.Object) { o.SetCreationTimestamp(metav1.NewTime(at)) }
}

// A Secret is created right after its account was replaced, and is seen before that.
func TestASecretForAnAccountsSuccessor(t *testing.T) {
	const older, deletedAt, between, newer, newest = "499", "500", "501", "502", "503" // resourceVersions
	cases := map[string]struct {
		inVersion     string        // of the Secret when it was filled
		inAge         time.Duration // how much older than the successor it is
		inUpdated     bool          // the successor was changed after that
		inNoSuccessor bool
		inVanished    bool // the watch missed when the account was deleted
		inDoubted     bool // the deletion is
		want          []string
	}{
		"is filled again if it was created after the deletion":            {inVersion: newer, want: []string{getOwner, "patch secrets team/s"}},
		"is deleted if it was created before the deletion, without a GET": {inVersion: older, want: []string{deleteSecret}},
		"is deleted if it was created before the successor":               {inVersion: newer, inAge: time.Minute, want: []string{getOwner, deleteSecret}},
		"is filled again if the watch missed the deletion":                {inVersion: newer, inVanished: true, want: []string{getOwner, "patch secrets team/s"}},
		"is deleted if the watch missed the deletion and the successor may be newer, after two GETs": {
			inVersion: newer, inVanished: true, inUpdated: true, inDoubted: true, want: []string{getOwner, getOwner, deleteSecret},
		},
		"is deleted if the watch missed the deletion and it was created before the successor": {
			inVersion: newer, inVanished: true, inAge: time.Minute, inDoubted: true, want: []string{getOwner, getOwner, deleteSecret},
		},
		"is deleted if there is no successor": {inVersion: newer, inNoSuccessor: true, want: []string{getOwner, deleteSecret}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, empty(testkit.WithResourceVersion(tc.inVersion), created(testkit.Instant().Add(-tc.inAge))))
			version := between
			if tc.inUpdated {
				version = newest
			}
			if !tc.inNoSuccessor {
				f.addToServer(t, robot(testkit.WithUID(testkit.OtherUID), testkit.WithResourceVersion(version)))
			}
			former := robot(testkit.WithResourceVersion(deletedAt))
			f.cache(t, former)
			f.followSecrets(t)
			f.syncOnce(t, "s")
			expectRequests(t, f.requests(), fillSecret)
			filled := f.cached()

			f.uncache(t, former)
			if tc.inVanished {
				f.accountVanished(former)
				f.advance(listWindow)
			} else {
				f.accountDeleted(former)
			}
			if tc.inDoubted {
				f.syncOnce(t, "s")
				f.advance(doubtedFor)
			}
			f.syncOnce(t, "s")

			actions := f.server.Requests()
			for _, r := range testkit.Requests(actions) {
				want := map[string]any{
					"metadata": map[string]any{
						"uid": string(filled.UID), "resourceVersion": filled.ResourceVersion,
						"annotations": map[string]any{corev1.ServiceAccountUIDKey: nil},
					},
					"data": map[string]any{"token": nil},
				}
				if diff := cmp.Diff(want, r.Body); diff != "" && r.Verb == "patch" {
					t.Errorf("patch (-want +got):\n%s", diff)
				}
			}
			expectRequests(t, lines(actions), tc.want...)
		})
	}
}

// The accounts of the other Secrets are not cached here: each sync of one would cost a GET.
func TestADeletedAccountQueuesItsOwnSecretsAlone(t *testing.T) {
	another := testkit.WithAccount("another")
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, secret(), empty(named("a"), another), empty(named("b"), another), testkit.Secret("other/c", another))
		defer testkit.Start(f.context(t), t, f.runQueue)()
		f.accountDeleted(robot())
		f.expectAfter(t, time.Minute, "deleted", deleteSecret)
	})
}

// An account is created and deleted while the watch is broken. The list that follows does not have
// it, so that there is no event of its deletion.
func TestAnAccountThatNoWatchEverShowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, empty())
		f.addToServer(t, robot())
		defer testkit.Start(f.context(t), t, f.runQueue)()
		f.EnqueueAll()
		f.expectAfter(t, 0, "created", getOwner, fillSecret)
		f.remove(robot())
		f.expectAfter(t, requeueNotCached, "deleted", getOwner)
		f.advance(accountGrace)
		f.expectAfter(t, accountGrace, "still missing", getOwner, "delete secrets team/s")
	})
}

func TestADeletionForWantOfAnAccountIsToldOnTheNamespace(t *testing.T) {
	reborn := robot(testkit.WithUID(testkit.OtherUID))
	const (
		other = "Deleted token secret s, because it is for another UID of service account robot: it names " +
			string(testkit.AccountUID) + ", and the account has " + string(testkit.OtherUID)
		notExisting, anotherUID = `reason="service account does not exist"`, `reason="service account has another UID"`
	)
	cases := map[string]struct {
		inLive, inCached *corev1.ServiceAccount
		inDeleted        bool // the deletion of the account was seen
		inNamespace      []testkit.Option
		want, wantLog    string
	}{
		"no account":                   {want: "Deleted token secret s, because its service account robot does not exist", wantLog: notExisting},
		"another account of that name": {inLive: reborn, want: other, wantLog: anotherUID},
		"another account, after the deletion of the former": {inCached: reborn, inDeleted: true, want: other, wantLog: anotherUID},
		"a namespace that is being deleted":                 {inNamespace: []testkit.Option{testkit.Terminating()}, wantLog: notExisting},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, testkit.Namespace("team", tc.inNamespace...), secret())
			if tc.inLive != nil {
				f.addToServer(t, tc.inLive)
			}
			if tc.inCached != nil {
				f.cache(t, tc.inCached)
			}
			if tc.inDeleted {
				f.accountDeleted(robot())
			}
			f.syncOnce(t, "s")
			f.deleted.flush()
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
