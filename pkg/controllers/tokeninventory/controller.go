package tokeninventory

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/clock"

	"github.com/sakeeper/sakeeper/pkg/internal/workqueue"
	"github.com/sakeeper/sakeeper/pkg/inventory"
	"github.com/sakeeper/sakeeper/pkg/inventory/collect"
)

// Name is the name of this controller, which kube-controller-manager does not have.
const Name = "token-inventory-controller"

// firstRetry is the delay before the first retry of a pass: each reads all objects again.
const firstRetry = 10 * time.Second

// Config has the inputs of the controller. All but Registerer are required.
type Config struct {
	Client kubernetes.Interface
	// Interval is the time from the end of a pass to the start of the next.
	Interval time.Duration
	Clock    clock.PassiveClock
	// Registerer registers the metrics. Nil: they are not exported.
	Registerer prometheus.Registerer
}

// Controller counts tokens.
type Controller struct {
	cfg     Config
	queue   *workqueue.Queue[pass]
	metrics *metrics
}

// pass is the only key of the work queue.
type pass string

const everything pass = "everything"

// New checks cfg.
func New(cfg Config) (*Controller, error) {
	switch {
	case cfg.Client == nil, cfg.Clock == nil:
		return nil, fmt.Errorf("%s: Client and Clock are required", Name)
	case cfg.Interval <= 0:
		return nil, fmt.Errorf("%s: Interval must be positive, not %v", Name, cfg.Interval)
	}
	c := &Controller{cfg: cfg, metrics: &metrics{}}
	if cfg.Registerer != nil {
		if err := cfg.Registerer.Register(c.metrics); err != nil {
			return nil, err
		}
	}
	var err error
	c.queue, err = workqueue.New(workqueue.Config[pass]{Name: Name, Sync: c.sync, BaseDelay: firstRetry, Registerer: cfg.Registerer})
	return c, err
}

// Run counts until ctx ends. Afterwards there are no counts, because another process may count.
func (c *Controller) Run(ctx context.Context) error {
	defer c.metrics.clear()
	c.queue.Add(everything)
	return c.queue.Run(ctx)
}

// Ready returns true once the first pass has ended, also if not everything could be read.
func (c *Controller) Ready() bool { return c.queue.Ready() }

func (c *Controller) sync(ctx context.Context, _ pass) (time.Duration, error) {
	result, err := collect.Collect(ctx, collect.Config{Client: c.cfg.Client, NoOwners: true, Now: c.cfg.Clock.Now})
	if err != nil {
		return 0, err
	}
	if err := result.Interrupted(); err != nil {
		return 0, err
	}
	result.UnusedAfter = inventory.DefaultUnusedAfter
	err = missingRights(result.Missing)
	if result.TokensMissing() {
		c.metrics.clear()
	} else {
		c.metrics.set(count(result), result.Now, err == nil)
	}
	return c.cfg.Interval, err
}

// missingRights returns an error that names what the API server refused. That it does not have
// something, such as the keys that it publishes, is none.
func missingRights(missing []collect.Missing) error {
	var errs []error
	for _, m := range missing {
		if m.Forbidden {
			errs = append(errs, fmt.Errorf("%s: %w", m.Right, m.Err))
		}
	}
	return errors.Join(errs...)
}
