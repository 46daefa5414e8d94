package e2e

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/textlogger"
	"k8s.io/utils/clock"

	"github.com/sakeeper/sakeeper/pkg/cabundle"
	"github.com/sakeeper/sakeeper/pkg/controllers"
	"github.com/sakeeper/sakeeper/pkg/controllers/tokensecret"
	"github.com/sakeeper/sakeeper/pkg/keys"
	"github.com/sakeeper/sakeeper/pkg/signingkey"
	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
)

// inProcess is the token controller in the test process, with keys, a signer and a clock of the
// test. It has the credentials of the binary. No other one may run on its control plane.
type inProcess struct {
	suite    *controllers.Suite
	registry *prometheus.Registry
	keys     *changing[*keys.Set]
	ca       *changing[cabundle.Bundle]
	// stop stops it. Further calls do nothing.
	stop func()
}

type inProcessOptions struct {
	keys   *keys.Set
	signer signingkey.Signer  // nil: signs with keys
	clock  clock.PassiveClock // nil: the real one
}

// startInProcess runs one until the test ends or stop is called.
func startInProcess(t *testing.T, p controlPlane, opts inProcessOptions) *inProcess {
	t.Helper()
	config, err := p.ServiceAccount(controlplane.Namespace, controlplane.Account)
	must(t, err)
	ca, err := cabundle.Parse(config.CAData)
	must(t, err)
	i := &inProcess{registry: prometheus.NewRegistry(), keys: &changing[*keys.Set]{}, ca: &changing[cabundle.Bundle]{}}
	i.keys.current.Store(&opts.keys)
	i.ca.current.Store(&ca)
	source := controllers.KeysFrom(i.keys)
	if opts.signer != nil {
		source = controllers.KeysFrom(signing{i.keys, opts.signer})
	}
	i.suite, err = controllers.New(controllers.Options{
		Config:      config,
		Controllers: []string{tokensecret.Name},
		Keys:        source,
		RootCA:      controllers.CAFrom(i.ca),
		Registerer:  i.registry,
		Clock:       opts.clock,
		// A source that is the test's own: enqueueAll tells of a change that is none.
		RootCAUnverified: true,
	})
	must(t, err)

	logs := &syncBuffer{}
	logger := textlogger.NewLogger(textlogger.NewConfig(textlogger.Output(logs), textlogger.Verbosity(2)))
	ctx, stop := context.WithCancel(klog.NewContext(t.Context(), logger))
	ended := make(chan error, 1)
	go func() { ended <- i.suite.Run(ctx) }()
	i.stop = sync.OnceFunc(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("it ended with %v", err)
		}
		if err := checkLogs(logs.String()); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("log of the controller:\n%s", tail(logs.String(), 1500))
		}
	})
	t.Cleanup(i.stop)
	return i
}

// changing is a source of keys or certificates that the test changes.
type changing[T any] struct {
	current atomic.Pointer[T]

	mu       sync.Mutex
	onChange []func()
}

func (c *changing[T]) Get() T { return *c.current.Load() }

func (c *changing[T]) OnChange(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.onChange = append(c.onChange, f)
}

func (*changing[T]) OnError(func(error)) {}

func (*changing[T]) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

func (c *changing[T]) set(value T) {
	c.current.Store(&value)
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range c.onChange {
		f()
	}
}

// signing are keys with which another part of the test signs.
type signing struct {
	*changing[*keys.Set]
	signingkey.Signer
}

// enqueueAll enqueues every Secret, as a change of the CA does.
func (i *inProcess) enqueueAll() { i.ca.set(i.ca.Get()) }

// ready returns the error of the readiness check.
func (i *inProcess) ready(context.Context) error { return i.suite.Ready() }

// metric returns the value of a gauge or counter with these labels ("name=value").
func (i *inProcess) metric(t *testing.T, name string, labels ...string) float64 {
	t.Helper()
	families, err := i.registry.Gather()
	must(t, err)
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			var got []string
			for _, label := range metric.GetLabel() {
				got = append(got, fmt.Sprintf("%s=%s", label.GetName(), label.GetValue()))
			}
			if family.GetName() == name && strings.Join(got, ",") == strings.Join(labels, ",") {
				return metric.GetGauge().GetValue() + metric.GetCounter().GetValue()
			}
		}
	}
	t.Fatalf("there is no %s %v", name, labels)
	return 0
}

// awaitReviews waits until the API server has answered so many reviews. More are an error. The clock
// must not go on before, because an answer counts from when it comes.
func (i *inProcess) awaitReviews(t *testing.T, want int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d reviews", want), func(context.Context) error {
		if got := i.reviews(t); got < want {
			return fmt.Errorf("there were %d", got)
		}
		return nil
	})
	i.expectReviews(t, want, "no more")
}

// expectReviews compares how often the API server was asked about tokens.
func (i *inProcess) expectReviews(t *testing.T, want int, why string) {
	t.Helper()
	if got := i.reviews(t); got != want {
		t.Errorf("%d reviews, want %d: %s", got, want, why)
	}
}

func (i *inProcess) reviews(t *testing.T) int {
	t.Helper()
	families, err := i.registry.Gather()
	must(t, err)
	got := 0.0
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			if family.GetName() == "sakeeper_token_reviews_total" {
				got += metric.GetCounter().GetValue()
			}
		}
	}
	return int(got)
}

// expectCounts compares the number of Secrets with a token of each key.
func expectCounts(t *testing.T, c *inProcess, want map[string]float64) {
	t.Helper()
	got := map[string]float64{}
	for keyID := range want {
		got[keyID] = c.metric(t, "sakeeper_token_secrets", "key_id="+keyID)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("secrets by key (-want +got):\n%s", diff)
	}
}

type syncBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}
