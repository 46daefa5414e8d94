package tokensecret

import (
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/sakeeper/sakeeper/pkg/testkit"
)

func TestTooMany(t *testing.T) {
	cases := map[string]struct {
		inOrphans, inTotal int
		want               bool
	}{
		"none of none":          {},
		"one of ten":            {inOrphans: 1, inTotal: 10},
		"one of nine":           {inOrphans: 1, inTotal: 9, want: true},
		"twenty of a thousand":  {inOrphans: 20, inTotal: 1000},
		"more than twenty":      {inOrphans: 21, inTotal: 1000, want: true},
		"all":                   {inOrphans: 5, inTotal: 5, want: true},
		"a hundred of a myriad": {inOrphans: 100, inTotal: 10000, want: true},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if got := tooMany(tc.inOrphans, tc.inTotal); got != tc.want {
				t.Errorf("got %t", got)
			}
		})
	}
}

// orphans are n filled Secrets of accounts that do not exist.
func orphans(n int) []runtime.Object {
	var list []runtime.Object
	for i := range n {
		list = append(list, testkit.Secret(fmt.Sprintf("team/s%d", i), testkit.WithAccount(fmt.Sprintf("a%d", i)), testkit.WithAccountUID(testkit.AccountUID),
			testkit.WithData("token", "t"), testkit.WithData("ca.crt", string(testkit.Bundle().PEM())), testkit.WithData("namespace", "team")))
	}
	return list
}

func (r *runningController) count(verb, resource string) int { //nolint:unparam // cases read better with it
	n := 0
	for _, request := range testkit.Requests(r.client.Actions()) {
		if request.Verb == verb && request.Resource == resource {
			n++
		}
	}
	return n
}

func TestAFirstListWithoutAccountsDeletesNothingAtOnce(t *testing.T) {
	const n = 30
	synctest.Test(t, func(t *testing.T) {
		// The API server finds the accounts again after 8 seconds.
		var back atomic.Bool
		r := startControllerWith(t, func(client *fake.Clientset) {
			client.PrependReactor("get", "serviceaccounts", func(action clienttesting.Action) (bool, runtime.Object, error) {
				if back.Load() {
					return true, testkit.ServiceAccount("team/" + action.(clienttesting.GetAction).GetName()), nil
				}
				return true, nil, testkit.NotFound()
			})
		}, orphans(n)...)
		defer r.stop()
		time.Sleep(8 * time.Second)
		back.Store(true)
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := r.count("delete", "secrets"); got != 0 {
			t.Errorf("%d Secrets were deleted", got)
		}
	})
}

func TestDoubtedSecretsAreDeletedAtALimitedRate(t *testing.T) {
	const n = 30
	synctest.Test(t, func(t *testing.T) {
		r := startController(t, orphans(n)...)
		defer r.stop()
		time.Sleep(doubtedFor - time.Millisecond)
		synctest.Wait()
		if got := r.count("delete", "secrets"); got != 0 {
			t.Errorf("%d Secrets were deleted before the second search", got)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if got := r.count("delete", "secrets"); got < 9 || got > 11 {
			t.Errorf("%d Secrets were deleted in the first second, want 10", got)
		}
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if got := r.count("delete", "secrets"); got != n {
			t.Errorf("%d Secrets were deleted, want %d", got, n)
		}
	})
}

// A later list has none of the accounts, and GETs find none for 8 seconds.
func TestAccountsThatALaterListLacksDeleteNothingAtOnce(t *testing.T) {
	const n = 30
	objects := orphans(n)
	for i := range n {
		objects = append(objects, testkit.ServiceAccount(fmt.Sprintf("team/a%d", i)))
	}
	synctest.Test(t, func(t *testing.T) {
		r := startController(t, objects...)
		defer r.stop()
		synctest.Wait()
		var back atomic.Bool
		r.client.PrependReactor("get", "serviceaccounts", func(action clienttesting.Action) (bool, runtime.Object, error) {
			if back.Load() {
				return true, testkit.ServiceAccount("team/" + action.(clienttesting.GetAction).GetName()), nil
			}
			return true, nil, testkit.NotFound()
		})
		for i := range n {
			account := objects[n+i].(*corev1.ServiceAccount)
			if err := r.cfg.ServiceAccounts.GetStore().Delete(account); err != nil {
				t.Fatal(err)
			}
			r.accountVanished(account)
		}
		time.Sleep(8 * time.Second)
		back.Store(true)
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := r.count("delete", "secrets"); got != 0 {
			t.Errorf("%d Secrets were deleted", got)
		}
	})
}
