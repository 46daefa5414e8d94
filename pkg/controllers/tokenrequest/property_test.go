package tokenrequest

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/testkit"
)

// syncs is the length of a simulation.
const syncs = 2000

func lifetimes() map[string]time.Duration {
	return map[string]time.Duration{"an hour": time.Hour, "five hours": 5 * time.Hour, "a day": 24 * time.Hour, "a month": 720 * time.Hour}
}

// TestNoTokenExpires has restarts, outages and sleep of up to 10 % of a lifetime with a
// minute between them, clocks that differ by up to 5 minutes, and an API server that
// shortens lifetimes.
func TestNoTokenExpires(t *testing.T) {
	for name, lifetime := range lifetimes() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSimulation(t, uint64(lifetime), lifetime)
			began := s.server.Now()
			s.pass(time.Second)
			counts := map[string]int{}
			granted := func() time.Duration { return s.currentTerm().Lifetime() } // outages are up to 10 % of it
			rotations := 0
			for step := 0; s.syncs < syncs; step++ {
				s.pass(time.Minute + s.upTo(granted()/2))
				s.expectNotExpired(step, "nothing")
				what := ""
				switch s.random.IntN(8) {
				case 0:
					what = "a restart"
					s.end()
					s.pass(s.upTo(granted() / 10))
					s.skew = s.upTo(10*time.Minute) - 5*time.Minute
					s.updateClocks()
					s.start()
				case 1:
					what = "an outage"
					s.outage(s.upTo(granted() / 10))
				case 2:
					what = "an outage of writes"
					s.writeOutage(s.upTo(granted() / 10))
				case 3:
					what = "a clock that is set"
					s.setClock(s.upTo(10*time.Minute) - 5*time.Minute)
				case 4:
					what = "another longest lifetime"
					longest := time.Hour + s.upTo(lifetime)
					s.configure(func(a *fakeAPIServer) { a.maxLifetime = longest })
				case 5:
					what = "a rotation"
					rotations++
					s.updateSecret(func(s *corev1.Secret) { s.Annotations[api.RotateAnnotation] = fmt.Sprint(rotations) })
					s.updateCache()
				case 6:
					what = "a sleep"
					s.sleep(s.upTo(granted() / 10))
				case 7:
					what = "another account"
					s.account = robot(testkit.WithUID(types.UID(fmt.Sprint("account ", step))))
					s.updateCache()
				}
				counts[what]++
				s.expectNotExpired(step, what)
			}
			s.expectCounts(0)
			t.Logf("%.1f years, %d renewals, %v", s.server.Now().Sub(began).Hours()/24/365, s.renewals, counts)
		})
	}
}

// TestTokensAreRenewedAfterAnyOutage has outages and downtimes of any length. When the
// longest delay of a retry has passed after one, no token is expired, and minutes later
// none is due.
func TestTokensAreRenewedAfterAnyOutage(t *testing.T) {
	all := lifetimes()
	all["ten minutes"] = 10 * time.Minute
	delete(all, "a month") // a simulation would be over within one outage
	for name, lifetime := range all {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSimulation(t, uint64(lifetime)+1, lifetime)
			s.pass(time.Second)
			var overdue []string
			for step := 0; s.syncs < syncs; step++ {
				d := s.upTo(lifetime / 10)
				if s.random.IntN(5) == 0 {
					d = s.upTo(3 * lifetime)
				}
				[]func(time.Duration){s.outage, s.writeOutage, s.downtime, s.sleep}[s.random.IntN(4)](d)
				// If another process requested the token, only its claims are known, and the
				// clock must follow the API server's, as ServerClock does.
				if own := s.c.gather(reduced(s.secret())).age != nil; own && s.random.IntN(3) == 0 {
					s.setClock(s.upTo(48*time.Hour) - 24*time.Hour)
				}
				s.pass(maxOutageDelay + 2*time.Second) // the event of a write takes up to one
				s.expectNotExpired(step, "after the longest delay of a retry")
				s.pass(maxDelay)
				for range s.random.IntN(4) {
					if late := s.server.Now().Sub(s.currentTerm().RenewAt(string(s.secret().UID))); late > 2*time.Second {
						overdue = append(overdue, fmt.Sprintf("step %d: due for %v", step, late))
					}
					s.pass(s.upTo(lifetime / 3))
				}
			}
			if diff := cmp.Diff([]string(nil), overdue); diff != "" {
				t.Errorf("overdue (-want +got):\n%s", diff)
			}
			s.expectCounts(0)
			t.Logf("%d renewals, %d lost", s.renewals, s.lostWrites)
		})
	}
}
