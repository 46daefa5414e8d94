package tokensecret

import (
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

// TestASecretForAnAccountsSuccessor is about a Secret that is made right after its
// account was replaced, and is seen before that is.
func TestASecretForAnAccountsSuccessor(t *testing.T) {
	instant := metav1.NewTime(testkit.Instant())
	before := metav1.NewTime(testkit.Instant().Add(-time.Minute))
	const deletedAt, older, newer = "500", "499", "501" // resourceVersions
	cases := map[string]struct {
		inVersion  string // of the Secret when it was filled
		inCreated  metav1.Time
		inReplaced bool
		inVanished bool // nobody saw when the account went
		want       []string
	}{
		"is filled anew when it was made after the deletion": {
			inVersion: newer, inCreated: instant, inReplaced: true, want: []string{"update secrets", "get serviceaccounts", "patch secrets"},
		},
		"goes when it was made before the deletion, without a look": {
			inVersion: older, inCreated: instant, inReplaced: true, want: []string{"update secrets", "delete secrets"},
		},
		"goes when it was made before the successor": {
			inVersion: newer, inCreated: before, inReplaced: true, want: []string{"update secrets", "get serviceaccounts", "delete secrets"},
		},
		"goes when nobody saw when the account went": {
			inVersion: newer, inCreated: instant, inReplaced: true, inVanished: true, want: []string{"update secrets", "delete secrets"},
		},
		"goes when there is no successor": {
			inVersion: newer, inCreated: instant, want: []string{"update secrets", "get serviceaccounts", "delete secrets"},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			var s server
			if tc.inReplaced {
				successor := testkit.ServiceAccount("team/robot")
				successor.UID, successor.CreationTimestamp = testkit.OtherUID, instant
				s.accounts = []*corev1.ServiceAccount{successor}
			}
			// The cache still has the account that is gone.
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

// TestADeletedAccountQueuesItsOwnSecretsAlone: the others of the namespace belong to
// accounts that would have to be asked for.
func TestADeletedAccountQueuesItsOwnSecretsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, server{})
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

func (f fixture) mustSync(t *testing.T, secret string) {
	t.Helper()
	if _, err := f.syncSecret(f.context(t), keyOf(secret)); err != nil {
		t.Fatal(err)
	}
}

// TestAnAccountThatNoWatchEverShowed comes and goes while the watch is broken: the list
// that follows does not have it, so that nobody hears that it is gone.
func TestAnAccountThatNoWatchEverShowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, server{}, testkit.Secret("team/s", testkit.WithAccount("robot")))
		var gone atomic.Bool
		f.client.PrependReactor("get", "serviceaccounts", func(clienttesting.Action) (bool, runtime.Object, error) {
			return !gone.Load(), robot(), nil
		})
		defer testkit.Start(f.context(t), t, f.runQueue)()
		f.EnqueueAll()
		synctest.Wait()
		gone.Store(true)
		time.Sleep(unseenAgain)
		synctest.Wait()
		var got []string
		for _, r := range testkit.Requests(f.client.Actions()) {
			got = append(got, r.Verb+" "+r.Resource)
		}
		want := []string{"get serviceaccounts", "update secrets", "get serviceaccounts", "delete secrets"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("requests (-want +got):\n%s", diff)
		}
	})
}
