package workqueue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/ktesting"

	"github.com/sakeeper/sakeeper/pkg/testkit/leaks"
)

func TestMain(m *testing.M) { leaks.Main(m) }

var errBoom = errors.New("boom")

func newQueue(t *testing.T, cfg Config[string]) *Queue[string] {
	t.Helper()
	cfg.Name = "test"
	q, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

// start runs the queue until the returned function is called, which waits for its end.
// Logs go to the log of the test.
func start(t *testing.T, q *Queue[string], synced ...toolscache.DoneChecker) (stop func()) {
	t.Helper()
	return startWith(t, klog.NewContext(context.Background(), ktesting.NewLogger(t, ktesting.NewConfig())), q, synced...)
}

func startWith(t *testing.T, ctx context.Context, q *Queue[string], synced ...toolscache.DoneChecker) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- q.Run(ctx, synced...) }()
	return func() {
		t.Helper()
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
}

// wait waits for a time, and then until all goroutines are blocked.
func wait(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// gate is a cache that is synced when it is closed.
type gate chan struct{}

func (g gate) Name() string          { return "gate" }
func (g gate) Done() <-chan struct{} { return g }

func TestNewRefusesAnIncompleteConfig(t *testing.T) {
	none := func(context.Context, string) (time.Duration, error) { return 0, nil }
	cases := map[string]Config[string]{
		"no name": {Sync: none},
		"no sync": {Name: "test"},
	}
	for name, in := range cases {
		t.Run(name, func(t *testing.T) {
			if _, err := New(in); err == nil {
				t.Error("no error")
			}
		})
	}
}

func TestAFailedKeyIsRetriedWithADelayThatDoublesUpToTheCap(t *testing.T) {
	cases := map[string]struct {
		inMaxDelay time.Duration
		wantCap    time.Duration
	}{
		"with a cap":          {inMaxDelay: time.Second, wantCap: time.Second},
		"with the cap's zero": {wantCap: 5 * time.Minute},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const failures = 100 // far more than any usual retry limit
				var delays, want []time.Duration
				last := time.Now()
				q := newQueue(t, Config[string]{MaxDelay: tc.inMaxDelay, Sync: func(context.Context, string) (time.Duration, error) {
					delays, last = append(delays, time.Since(last)), time.Now()
					if len(delays) <= failures {
						return 0, errBoom
					}
					return 0, nil
				}})
				q.Add("key")
				defer start(t, q)()
				wait(10 * time.Hour)

				want = append(want, 0)
				for i, d := 1, 5*time.Millisecond; i <= failures; i, d = i+1, min(2*d, tc.wantCap) {
					want = append(want, d)
				}
				if diff := cmp.Diff(want, delays); diff != "" {
					t.Errorf("delays (-want +got):\n%s", diff)
				}
			})
		})
	}
}

func TestAFailureIsReportedOnceUntilSuccess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// The second and third failures ask for a report.
		outcomes := []struct {
			err    error
			report bool
		}{{errBoom, false}, {errBoom, true}, {errBoom, true}, {nil, false}, {errBoom, true}, {nil, false}}
		var delays []time.Duration
		var reported []bool
		last := time.Now()
		q := newQueue(t, Config[string]{Sync: func(ctx context.Context, _ string) (time.Duration, error) {
			delays, last = append(delays, time.Since(last)), time.Now()
			outcome := outcomes[len(reported)]
			reported = append(reported, outcome.report && Report(ctx))
			return 0, outcome.err
		}})
		defer start(t, q)()
		q.Add("key")
		wait(time.Minute)
		last = time.Now()
		q.Add("key")
		wait(time.Minute)
		if diff := cmp.Diff([]bool{false, true, false, false, true, false}, reported); diff != "" {
			t.Errorf("reported (-want +got):\n%s", diff)
		}
		if delays[5] != 5*time.Millisecond {
			t.Errorf("success did not forget earlier failures: retried after %v", delays[5])
		}
	})
}

func TestOutsideAQueueEverythingIsReported(t *testing.T) {
	for range 2 {
		if !Report(t.Context()) {
			t.Error("not reported")
		}
	}
}

func TestRequeueAfterAndAddAfterSyncLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var at []time.Duration
		began := time.Now()
		q := newQueue(t, Config[string]{Sync: func(context.Context, string) (time.Duration, error) {
			if at = append(at, time.Since(began)); len(at) < 4 {
				return time.Minute, nil
			}
			return 0, nil
		}})
		defer start(t, q)()
		q.AddAfter("key", time.Hour)
		q.AddAfter("key", time.Second) // the shortest counts
		wait(30 * time.Minute)
		want := []time.Duration{time.Second, 61 * time.Second, 121 * time.Second, 181 * time.Second}
		if diff := cmp.Diff(want, at); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
	})
}

func TestAKeyIsSyncedByOneWorkerAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var running, most, syncs atomic.Int32
		q := newQueue(t, Config[string]{Workers: 4, Sync: func(context.Context, string) (time.Duration, error) {
			if n := running.Add(1); n > most.Load() {
				most.Store(n)
			}
			defer running.Add(-1)
			syncs.Add(1)
			time.Sleep(time.Second)
			return 0, nil
		}})
		defer start(t, q)()
		q.Add("key")
		wait(500 * time.Millisecond)
		q.Add("key") // while it is synced: once more, however often
		q.Add("key")
		wait(time.Minute)
		if most.Load() != 1 || syncs.Load() != 2 {
			t.Errorf("%d syncs, at most %d at a time; want 2 and 1", syncs.Load(), most.Load())
		}
	})
}

func TestWorkersSyncDifferentKeysAtATime(t *testing.T) {
	cases := map[string]struct {
		inWorkers int
		want      []time.Duration
	}{
		"no number means one worker": {inWorkers: 0, want: []time.Duration{1e9, 2e9, 3e9}},
		"two workers":                {inWorkers: 2, want: []time.Duration{1e9, 1e9, 2e9}},
		"more workers than keys":     {inWorkers: 5, want: []time.Duration{1e9, 1e9, 1e9}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ended := make(chan time.Duration, 3)
				began := time.Now()
				q := newQueue(t, Config[string]{Workers: tc.inWorkers, Sync: func(context.Context, string) (time.Duration, error) {
					time.Sleep(time.Second)
					ended <- time.Since(began)
					return 0, nil
				}})
				for _, key := range []string{"a", "b", "c"} {
					q.Add(key)
				}
				defer start(t, q)()
				got := []time.Duration{<-ended, <-ended, <-ended}
				if diff := cmp.Diff(tc.want, got); diff != "" {
					t.Errorf("ends (-want +got):\n%s", diff)
				}
			})
		})
	}
}

func TestAFailingKeyDoesNotHoldUpOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var good []string
		q := newQueue(t, Config[string]{Sync: func(_ context.Context, key string) (time.Duration, error) {
			if key == "bad" {
				return 0, errBoom
			}
			good = append(good, key)
			return 0, nil
		}})
		defer start(t, q)()
		q.Add("bad")
		wait(time.Minute)
		began := time.Now()
		q.Add("good")
		synctest.Wait()
		if !slices.Equal(good, []string{"good"}) || time.Since(began) != 0 {
			t.Errorf("synced %v after %v", good, time.Since(began))
		}
	})
}

func TestAPanicIsAFailureOfItsKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logger := ktesting.NewLogger(t, ktesting.NewConfig(ktesting.BufferLogs(true)))
		synced := map[string]int{}
		q := newQueue(t, Config[string]{Sync: func(_ context.Context, key string) (time.Duration, error) {
			if synced[key]++; key == "bad" && synced[key] < 3 {
				panic("eyJ-a-token")
			}
			return 0, nil
		}})
		defer startWith(t, klog.NewContext(context.Background(), logger), q)()
		q.Add("bad")
		q.Add("good")
		wait(time.Minute)
		if diff := cmp.Diff(map[string]int{"bad": 3, "good": 1}, synced); diff != "" {
			t.Errorf("syncs (-want +got):\n%s", diff)
		}
		logs := logger.GetSink().(ktesting.Underlier).GetBuffer().String()
		if !strings.Contains(logs, "sync panicked (string)") || !strings.Contains(logs, "queue_test.go") {
			t.Errorf("the log does not say that there was a panic, or where:\n%s", logs)
		}
		if strings.Contains(logs, "eyJ-a-token") {
			t.Error("the log holds the value of the panic")
		}
	})
}

func TestRunReturnsAfterTheLastWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ended atomic.Int32
		q := newQueue(t, Config[string]{Workers: 3, Sync: func(ctx context.Context, _ string) (time.Duration, error) {
			<-ctx.Done()
			time.Sleep(time.Second) // as a running request may take
			ended.Add(1)
			return 0, ctx.Err()
		}})
		q.Add("a")
		q.Add("b")
		stop := start(t, q)
		synctest.Wait()
		began := time.Now()
		stop()
		if ended.Load() != 2 || time.Since(began) != time.Second {
			t.Errorf("Run returned after %v, when %d of 2 syncs had ended", time.Since(began), ended.Load())
		}
	})
}

func TestWhatIsQueuedWhenTheQueueStopsIsNotSynced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var synced []string
		q := newQueue(t, Config[string]{Sync: func(ctx context.Context, key string) (time.Duration, error) {
			synced = append(synced, key)
			<-ctx.Done()
			return 0, nil
		}})
		q.Add("a")
		q.Add("b")
		stop := start(t, q)
		synctest.Wait()
		stop()
		if diff := cmp.Diff([]string{"a"}, synced); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
	})
}

func TestNothingIsSyncedBeforeTheCachesAre(t *testing.T) {
	cases := map[string]struct {
		inOpen int // of two caches
		want   []string
	}{
		"no cache is synced":    {inOpen: 0},
		"one cache is synced":   {inOpen: 1},
		"all caches are synced": {inOpen: 2, want: []string{"key"}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var synced []string
				q := newQueue(t, Config[string]{Sync: func(_ context.Context, key string) (time.Duration, error) {
					synced = append(synced, key)
					return 0, nil
				}})
				q.Add("key")
				gates := []gate{make(gate), make(gate)}
				stop := start(t, q, gates[0], gates[1])
				for _, g := range gates[:tc.inOpen] {
					close(g)
				}
				wait(time.Hour)
				if ready, want := q.Ready(), tc.want != nil; ready != want {
					t.Errorf("Ready is %t, want %t", ready, want)
				}
				stop()
				if diff := cmp.Diff(tc.want, synced); diff != "" {
					t.Errorf("-want +got:\n%s", diff)
				}
			})
		})
	}
}

func TestAKeyThatIsRequeuedLaterHasNeitherSucceededNorFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answers := []error{errBoom, fmt.Errorf("not yet: %w", ErrRequeueLater), errBoom, nil, errBoom}
		var attempts, reports atomic.Int32
		q := newQueue(t, Config[string]{Sync: func(ctx context.Context, _ string) (time.Duration, error) {
			err := answers[min(int(attempts.Add(1)), len(answers))-1]
			if errors.Is(err, errBoom) && Report(ctx) {
				reports.Add(1)
			}
			return 0, err
		}})
		q.Add("a")
		defer start(t, q)()
		wait(time.Hour)
		if got := attempts.Load(); got != 2 || !q.Ready() {
			t.Errorf("%d attempts, ready %t: it must wait until it is added again", got, q.Ready())
		}
		q.Add("a") // fails again, and succeeds
		wait(time.Hour)
		if got := reports.Load(); got != 1 {
			t.Errorf("one failure was reported %d times", got)
		}
		q.Add("a")
		wait(time.Second)
		if got := reports.Load(); got != 2 {
			t.Errorf("%d reports after a success and another failure", got)
		}
	})
}

func TestAKeyThatIsRequeuedLaterKeepsItsRetryDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var attempts, failures int
		q := newQueue(t, Config[string]{Sync: func(context.Context, string) (time.Duration, error) {
			attempts++
			if attempts%2 == 1 { // requeued a tenth of a second later
				return 100 * time.Millisecond, ErrRequeueLater
			}
			failures++
			return 0, errBoom
		}})
		q.Add("a")
		defer start(t, q)()
		wait(time.Minute)
		if failures < 10 || failures > 16 {
			t.Errorf("%d failures in a minute, want a dozen", failures)
		}
	})
}
