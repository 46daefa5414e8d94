package testkit

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	clocktesting "k8s.io/utils/clock/testing"
)

// ExpectWriteBackoff checks that an object which another client keeps changing back is written at
// once six times, of which five are rewrites, then after 1 s, 2 s, 4 s and so on, up to 5 minutes.
//
// The cache of the controller must not show its writes. Sync syncs the object and returns when it
// is synced again; writes counts its writes so far.
func ExpectWriteBackoff(t *testing.T, clock *clocktesting.FakePassiveClock, writes func() int, sync func() (requeueAfter time.Duration)) {
	t.Helper()
	const s, most = time.Second, 5 * time.Minute
	want := []time.Duration{0, 0, 0, 0, 0, 0, s, 2 * s, 4 * s, 8 * s, 16 * s, 32 * s, 64 * s, 128 * s, 256 * s, most, most}
	var got []time.Duration
	for range want {
		waited := time.Duration(0)
		for before := writes(); ; {
			requeueAfter := sync()
			if writes() != before {
				break
			}
			if requeueAfter <= 0 || waited > most {
				t.Fatalf("after %v there is no write yet, and the object is synced again after %v", waited, requeueAfter)
			}
			clock.SetTime(clock.Now().Add(requeueAfter))
			waited += requeueAfter
		}
		got = append(got, waited)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("delays of writes (-want +got):\n%s", diff)
	}
}
