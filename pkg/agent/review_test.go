package agent

import (
	"context"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sakeeper/sakeeper/pkg/testkit"
)

// reviews answers the reviews of an API server.
type reviews struct {
	mu     sync.Mutex
	answer bool
	err    error
	asked  []string
	// once, if not nil, is the next answer. refused is a token that is refused.
	once    *bool
	refused string
}

func (r *reviews) review(_ context.Context, compact string) (bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked = append(r.asked, compact)
	if once := r.once; once != nil {
		r.once = nil
		return *once, nil
	}
	if compact == r.refused {
		return false, nil
	}
	return r.answer, r.err
}

func (r *reviews) change(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
}

func reviewed(r *reviews) func(*Config) { return func(cfg *Config) { cfg.Review = r.review } }

// TestARefusedTokenIsRenewed: another ServiceAccount has the name of the one that was deleted.
func TestARefusedTokenIsRenewed(t *testing.T) {
	r := &reviews{answer: true}
	live(t, func(w *world) {
		pass(10 * time.Minute)
		if n := len(r.asked); n < 6 || n > 7 { // at once, and then 96 to 120 s apart
			t.Errorf("%d reviews in ten minutes", n)
		}
		w.expectAsked(1)
		r.change(func() { r.refused = r.asked[0] })
		w.change(func() { w.down = testkit.InternalError() })
		pass(defaultReviewInterval + secondReviewAfter)
		if err := w.agent.Ready(); err == nil || err.Error() != w.file+": the API server refuses the token" {
			t.Errorf("ready: %v", err)
		}
		w.change(func() { w.down, w.asked = nil, nil })
		pass(maxDelay) // the delay of the retry
		w.expectAsked(1)
		must(t, w.agent.Ready())
		pass(20 * time.Minute)
		w.expectAsked(1)
		if last := r.asked[len(r.asked)-1]; last == r.asked[0] || !strings.HasPrefix(last, "e30.") {
			t.Error("the former token is reviewed")
		}
	}, reviewed(r))
}

func TestATokenIsNotRenewedWithoutTwoRefusals(t *testing.T) {
	cases := map[string]struct {
		then    func(*reviews)
		initial bool
		want    int
	}{
		"refused from the start, as one for other audiences": {then: func(*reviews) {}, want: 1},
		"refused once":         {initial: true, then: func(r *reviews) { r.once = new(false) }, want: 16},
		"no answers":           {initial: true, then: func(r *reviews) { r.answer, r.err = false, testkit.InternalError() }, want: 15},
		"refused by no answer": {initial: true, then: func(r *reviews) { r.once, r.answer, r.err = new(false), false, testkit.InternalError() }, want: 15},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			r := &reviews{answer: tc.initial}
			live(t, func(w *world) {
				r.change(func() { tc.then(r) })
				pass(30 * time.Minute)
				w.expectAsked(1)
				must(t, w.agent.Ready())
				if n := len(r.asked); n < tc.want || n > tc.want*5/4+1 && tc.want > 1 || tc.want == 1 && n != 1 {
					t.Errorf("%d reviews, want %d", n, tc.want)
				}
			}, reviewed(r))
		})
	}
}

// TestAReviewThatHangsBlocksNothing has an API server that answers no review.
func TestAReviewThatHangsBlocksNothing(t *testing.T) {
	live(t, func(w *world) {
		pass(50 * time.Minute)
		w.expectAsked(2)
		synctest.Wait()
	}, func(cfg *Config) {
		cfg.Review = func(ctx context.Context, _ string) (bool, error) { <-ctx.Done(); return false, ctx.Err() }
	})
}
