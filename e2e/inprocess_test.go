package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/textlogger"
	"k8s.io/utils/clock"

	"github.com/sakeeper/sakeeper/pkg/cabundle"
	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/controllers/tokensecret"
	"github.com/sakeeper/sakeeper/pkg/keys"
	"github.com/sakeeper/sakeeper/pkg/signingkey"
	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
	"github.com/sakeeper/sakeeper/pkg/token"
)

// inProcess is the token controller in the process of the test, which gives it what
// the binary takes from the world: keys, a signer, the time. It is assembled as the
// binary does it and has the same identity. No other may run on its plane.
type inProcess struct {
	gate       *signingkey.Check
	controller *tokensecret.Controller
	registry   *prometheus.Registry
	set        atomic.Pointer[keys.Set]
	// stop ends it, as often as it is called.
	stop func()
}

type inProcessOptions struct {
	keys   *keys.Set
	signer signingkey.Signer  // nil: signs with keys
	clock  clock.PassiveClock // nil: the real one
}

// startInProcess runs it until the test ends, or it is stopped.
func startInProcess(t *testing.T, p plane, opts inProcessOptions) *inProcess {
	t.Helper()
	config, err := p.ServiceAccount(controlplane.Namespace, controlplane.Account)
	must(t, err)
	config.ContentType = runtime.ContentTypeProtobuf
	config.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	client := mustClient(t, config)
	if opts.clock == nil {
		opts.clock = clock.RealClock{}
	}
	logs := &syncBuffer{}
	logger := textlogger.NewLogger(textlogger.NewConfig(textlogger.Output(logs), textlogger.Verbosity(2)))
	ctx, stop := context.WithCancel(klog.NewContext(t.Context(), logger))
	broadcaster := record.NewBroadcaster(record.WithContext(context.WithoutCancel(ctx)))
	broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: client.CoreV1().Events("")})

	i := &inProcess{registry: prometheus.NewRegistry()}
	i.set.Store(opts.keys)
	watched := i.assemble(t, config, opts, broadcaster.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "sakeeper-controllers"}))
	group, ctx := errgroup.WithContext(ctx)
	for _, informer := range watched {
		group.Go(func() error {
			informer.RunWithContext(ctx)
			return nil
		})
	}
	group.Go(func() error { return i.gate.Run(ctx) })
	group.Go(func() error { return i.controller.Run(ctx) })
	i.stop = sync.OnceFunc(func() {
		stop()
		if err := group.Wait(); err != nil {
			t.Errorf("it ended with %v", err)
		}
		broadcaster.Shutdown()
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

func (i *inProcess) assemble(t *testing.T, config *rest.Config, opts inProcessOptions, recorder record.EventRecorder) (watched []toolscache.SharedIndexInformer) {
	t.Helper()
	client, err := kubernetes.NewForConfig(config)
	must(t, err)
	meta, err := metadata.NewForConfig(config)
	must(t, err)
	namespaces, err := cache.Namespaces(client)
	must(t, err)
	accounts, err := cache.ServiceAccounts(client)
	must(t, err)
	secrets, err := cache.TokenSecrets(client, token.NewVerifier(i.set.Load).Inspect)
	must(t, err)
	signer := opts.signer
	if signer == nil {
		signer = token.NewSigner(i.set.Load)
	}
	i.gate, err = signingkey.New(signingkey.Config{
		Signer: signer, TokenReviews: client.AuthenticationV1().TokenReviews(),
		Secrets: client.CoreV1(), Recorder: recorder, Clock: opts.clock, Registerer: i.registry,
	})
	must(t, err)
	ca, err := cabundle.Parse(config.CAData)
	must(t, err)
	i.controller, err = tokensecret.New(tokensecret.Config{
		Client: client.CoreV1(), Metadata: meta,
		Namespaces: namespaces, Secrets: secrets, ServiceAccounts: accounts,
		Tokens: i.gate, Keys: i.set.Load, CA: func() cabundle.Bundle { return ca },
		TokenReviews: client.AuthenticationV1().TokenReviews(),
		Recorder:     recorder, Clock: opts.clock,
		Resign: tokensecret.ResignDead, Workers: 10,
		Registerer: i.registry,
	})
	must(t, err)
	return []toolscache.SharedIndexInformer{namespaces, accounts, secrets}
}

// use changes the keys as a change of their files does.
func (i *inProcess) use(set *keys.Set) {
	i.set.Store(set)
	i.gate.Reset()
	i.controller.EnqueueAll()
}

// ready says as the probe does why it is not ready.
func (i *inProcess) ready(context.Context) error {
	if !i.controller.Ready() {
		return errors.New("not everything of the start was handled")
	}
	return i.gate.Ready()
}

// metric is the value of a gauge or counter with these labels ("name=value").
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

// expectExams compares how often the API server was asked about tokens that look dead. It
// may be asked about a canary more than once: API servers lag.
func (i *inProcess) expectExams(t *testing.T, want float64, why string) {
	t.Helper()
	families, err := i.registry.Gather()
	must(t, err)
	got := 0.0
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			if family.GetName() == "sakeeper_token_reviews_total" && metric.GetLabel()[0].GetValue() == "repair" {
				got += metric.GetCounter().GetValue()
			}
		}
	}
	if got != want {
		t.Errorf("%v reviews of tokens that look dead, want %v: %s", got, want, why)
	}
}

// expectCounts compares how many Secrets hang on each key.
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
