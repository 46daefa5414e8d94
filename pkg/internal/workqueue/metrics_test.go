package workqueue

import (
	"context"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

func expectMetrics(t *testing.T, registry prometheus.Gatherer, want string, names ...string) {
	t.Helper()
	if err := testutil.GatherAndCompare(registry, strings.NewReader(want), names...); err != nil {
		t.Error(err)
	}
}

const failingHelp = `
# HELP sakeeper_failing_keys Keys whose last sync failed and that are being retried, by controller.
# TYPE sakeeper_failing_keys gauge
`

func TestFailingKeysAreVisibleUntilTheySucceed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		registry := prometheus.NewRegistry()
		var mended sync.Map
		q := newQueue(t, Config[string]{MaxDelay: time.Second, Registerer: registry, Sync: func(_ context.Context, key string) (time.Duration, error) {
			if _, ok := mended.Load(key); ok || key == "c" {
				return 0, nil
			}
			return 0, errBoom
		}})
		defer start(t, q)()
		for _, key := range []string{"a", "b", "c"} {
			q.Add(key)
		}
		wait(10 * time.Second)
		expectMetrics(t, registry, failingHelp+`sakeeper_failing_keys{controller="test"} 2`+"\n", "sakeeper_failing_keys")
		mended.Store("a", nil)
		wait(2 * time.Second)
		expectMetrics(t, registry, failingHelp+`sakeeper_failing_keys{controller="test"} 1`+"\n", "sakeeper_failing_keys")
		mended.Store("b", nil)
		wait(2 * time.Second)
		expectMetrics(t, registry, failingHelp+`sakeeper_failing_keys{controller="test"} 0`+"\n", "sakeeper_failing_keys")
	})
}

func TestDurationsAndPanicsAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		registry := prometheus.NewRegistry()
		attempts := 0
		q := newQueue(t, Config[string]{Registerer: registry, Sync: func(context.Context, string) (time.Duration, error) {
			time.Sleep(2 * time.Second)
			switch attempts++; attempts {
			case 1:
				panic(errBoom)
			case 2:
				return 0, errBoom
			default:
				return 0, nil
			}
		}})
		defer start(t, q)()
		q.Add("key")
		wait(time.Minute)
		expectMetrics(t, registry, `
# HELP sakeeper_sync_duration_seconds Time to sync one key, by controller and result.
# TYPE sakeeper_sync_duration_seconds histogram
sakeeper_sync_duration_seconds_bucket{controller="test",result="error",le="0.001"} 0
sakeeper_sync_duration_seconds_bucket{controller="test",result="error",le="0.004"} 0
sakeeper_sync_duration_seconds_bucket{controller="test",result="error",le="0.016"} 0
sakeeper_sync_duration_seconds_bucket{controller="test",result="error",le="0.064"} 0
sakeeper_sync_duration_seconds_bucket{controller="test",result="error",le="0.256"} 0
sakeeper_sync_duration_seconds_bucket{controller="test",result="error",le="1.024"} 0
sakeeper_sync_duration_seconds_bucket{controller="test",result="error",le="4.096"} 2
sakeeper_sync_duration_seconds_bucket{controller="test",result="error",le="16.384"} 2
sakeeper_sync_duration_seconds_bucket{controller="test",result="error",le="+Inf"} 2
sakeeper_sync_duration_seconds_sum{controller="test",result="error"} 4
sakeeper_sync_duration_seconds_count{controller="test",result="error"} 2
sakeeper_sync_duration_seconds_bucket{controller="test",result="success",le="0.001"} 0
sakeeper_sync_duration_seconds_bucket{controller="test",result="success",le="0.004"} 0
sakeeper_sync_duration_seconds_bucket{controller="test",result="success",le="0.016"} 0
sakeeper_sync_duration_seconds_bucket{controller="test",result="success",le="0.064"} 0
sakeeper_sync_duration_seconds_bucket{controller="test",result="success",le="0.256"} 0
sakeeper_sync_duration_seconds_bucket{controller="test",result="success",le="1.024"} 0
sakeeper_sync_duration_seconds_bucket{controller="test",result="success",le="4.096"} 1
sakeeper_sync_duration_seconds_bucket{controller="test",result="success",le="16.384"} 1
sakeeper_sync_duration_seconds_bucket{controller="test",result="success",le="+Inf"} 1
sakeeper_sync_duration_seconds_sum{controller="test",result="success"} 2
sakeeper_sync_duration_seconds_count{controller="test",result="success"} 1
# HELP sakeeper_sync_panics_total Syncs that ended in a panic, by controller.
# TYPE sakeeper_sync_panics_total counter
sakeeper_sync_panics_total{controller="test"} 1
`, "sakeeper_sync_duration_seconds", "sakeeper_sync_panics_total")
	})
}

func TestBeingStoppedIsNoFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		registry := prometheus.NewRegistry()
		q := newQueue(t, Config[string]{Registerer: registry, Sync: func(ctx context.Context, _ string) (time.Duration, error) {
			<-ctx.Done()
			return 0, ctx.Err()
		}})
		q.Add("key")
		stop := start(t, q)
		synctest.Wait()
		stop()
		expectMetrics(t, registry, "", "sakeeper_failing_keys", "sakeeper_sync_duration_seconds")
	})
}

func TestTimeToReadyCountsForWhatCameAfterTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		registry := prometheus.NewRegistry()
		q := newQueue(t, Config[string]{Registerer: registry, Sync: func(context.Context, string) (time.Duration, error) { return 0, nil }})
		before := time.Now()
		q.Completed(before.Add(-time.Hour)) // nothing has started
		wait(time.Minute)
		stop := start(t, q)
		wait(time.Minute)
		q.Completed(before)
		q.Completed(time.Now().Add(-20 * time.Second))
		q.Completed(time.Now().Add(time.Second)) // a clock that is behind
		stop()
		expectMetrics(t, registry, `
# HELP sakeeper_creation_to_ready_seconds Time from the creation of a namespace or token Secret, which API servers note in whole seconds, until it has what the controller gives it, by controller. Objects from before its start do not count.
# TYPE sakeeper_creation_to_ready_seconds histogram
sakeeper_creation_to_ready_seconds_bucket{controller="test",le="0.25"} 1
sakeeper_creation_to_ready_seconds_bucket{controller="test",le="0.5"} 1
sakeeper_creation_to_ready_seconds_bucket{controller="test",le="1"} 1
sakeeper_creation_to_ready_seconds_bucket{controller="test",le="1.5"} 1
sakeeper_creation_to_ready_seconds_bucket{controller="test",le="2"} 1
sakeeper_creation_to_ready_seconds_bucket{controller="test",le="3"} 1
sakeeper_creation_to_ready_seconds_bucket{controller="test",le="5"} 1
sakeeper_creation_to_ready_seconds_bucket{controller="test",le="10"} 1
sakeeper_creation_to_ready_seconds_bucket{controller="test",le="30"} 2
sakeeper_creation_to_ready_seconds_bucket{controller="test",le="60"} 2
sakeeper_creation_to_ready_seconds_bucket{controller="test",le="300"} 2
sakeeper_creation_to_ready_seconds_bucket{controller="test",le="+Inf"} 2
sakeeper_creation_to_ready_seconds_sum{controller="test"} 20
sakeeper_creation_to_ready_seconds_count{controller="test"} 2
`, "sakeeper_creation_to_ready_seconds")
	})
}
