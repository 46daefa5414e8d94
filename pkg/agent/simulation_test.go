package agent

import (
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/token"
)

// TestNothingExpiresThatCouldBeRenewed has outages, restarts and suspensions of up to a tenth of
// a lifetime, clocks that differ by up to five minutes and are set, and a server that grants
// other lifetimes.
func TestNothingExpiresThatCouldBeRenewed(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := rand.New(rand.NewPCG(seed, 0))
				upTo := func(d time.Duration) time.Duration { return time.Duration(r.Int64N(int64(d) + 1)) }
				set := &settable{}
				w := newWorld(t, func(cfg *Config) { cfg.Seed, cfg.Local, cfg.Lifetime = fmt.Sprint(seed), set, 24*time.Hour })
				w.cfg.Writer = watched{w.cfg.Writer, w}
				w.change(func() { w.skew = upTo(10*time.Minute) - 5*time.Minute })
				start := func() (stop func()) {
					var err error
					w.cfg.Registerer = nil
					w.agent, err = New(w.cfg)
					must(t, err)
					return testkit.Start(t.Context(), t, w.agent.Run)
				}
				stop := start()
				happened := map[string]int{}
				for range 40 {
					w.change(func() { w.granted = time.Hour + upTo(23*time.Hour) })
					pass(maxDelay + upTo(2*time.Hour))
					h, _ := w.agent.state(w.file)
					trouble, what := upTo(h.validity.Lifetime()/10), ""
					switch r.IntN(4) {
					case 0:
						what = "an outage"
						w.change(func() { w.down = testkit.InternalError() })
						pass(trouble)
						w.change(func() { w.down = nil })
					case 1:
						what = "an absence"
						stop()
						pass(trouble)
						stop = start()
						synctest.Wait()
					case 2:
						what = "a restart in an outage"
						w.change(func() { w.down = testkit.InternalError() })
						stop()
						stop = start()
						pass(trouble)
						w.change(func() { w.down = nil })
					case 3:
						what = "a clock that is set"
						set.by.Store(int64(upTo(10*time.Minute) - 5*time.Minute))
						pass(trouble)
					}
					happened[what]++
					if left := time.Until(w.expires()); left <= 0 {
						t.Fatalf("%s: the token expired %v ago", what, -left)
					}
				}
				stop()
				synctest.Wait()
				t.Logf("%d tokens, %v", len(w.asked), happened)
			})
		})
	}
}

// watched reports a token that had expired before it was replaced.
type watched struct {
	Writer

	w *world
}

func (o watched) Write(file string, content []byte) error {
	if former, err := os.ReadFile(file); err == nil {
		claims, err := token.UnverifiedBoundClaims(string(former))
		must(o.w.t, err)
		if late := time.Since(claims.Validity.Expires.Add(-o.w.skew)); late >= 0 {
			o.w.t.Errorf("a token is replaced %v after it expired", late)
		}
	}
	return o.Writer.Write(file, content)
}
