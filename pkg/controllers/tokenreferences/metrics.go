package tokenreferences

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	toolscache "k8s.io/client-go/tools/cache"
)

// dangling counts, by account, references to Secrets that do not exist and that stay.
type dangling struct {
	gauge prometheus.Gauge

	mu        sync.Mutex
	byAccount map[toolscache.ObjectName]int
}

func newDangling() *dangling {
	return &dangling{byAccount: map[toolscache.ObjectName]int{}, gauge: prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "sakeeper_dangling_references",
		Help: "Names in the secrets of ServiceAccounts for which there is no Secret. They stay, because a user may create the Secret later.",
	})}
}

func (d *dangling) register(registerer prometheus.Registerer) error {
	if registerer == nil {
		return nil
	}
	return registerer.Register(d.gauge)
}

func (d *dangling) get(account toolscache.ObjectName) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.byAccount[account]
}

func (d *dangling) set(account toolscache.ObjectName, n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.gauge.Add(float64(n - d.byAccount[account]))
	if n == 0 {
		delete(d.byAccount, account)
		return
	}
	d.byAccount[account] = n
}
