package main

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"

	"k8s.io/klog/v2"
)

// How much the heap may grow, in percent of what is alive, before garbage is collected:
// while there is work, and while there is none. A small heap that is collected whenever it
// has grown by half costs a quarter of all CPU time of a thousand namespaces at once.
const (
	growthAtWork = 200
	growthAtRest = 25
)

const (
	// restful is how long nothing must have been collected until the process is at rest.
	restful = 5 * time.Second
	// busy is how many collections in a second end that. What goes on while nothing
	// happens, a lease and a scrape, needs one in a minute.
	busy = 2
)

// thrift keeps little memory in processes that mostly wait: when one comes to rest, what it
// needed for its work goes back to the operating system, heap and code. It returns when ctx
// ends.
func thrift(ctx context.Context) {
	debug.SetGCPercent(growthAtWork)
	atWork, last, seen := true, time.Now(), collections()
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		before := seen
		if seen = collections(); seen != before {
			last = time.Now()
		}
		switch {
		case !atWork && seen-before >= busy:
			atWork = true
			debug.SetGCPercent(growthAtWork)
		case atWork && time.Since(last) >= restful:
			atWork = false
			debug.SetGCPercent(growthAtRest)
			debug.FreeOSMemory()
			if err := forgetCode(); err != nil {
				klog.FromContext(ctx).V(4).Info("Kept the pages of the program", "reason", err.Error())
			}
		}
	}
}

// collections is how often garbage was collected because the heap had grown.
func collections() uint64 {
	sample := []metrics.Sample{{Name: "/gc/cycles/automatic:gc-cycles"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}
