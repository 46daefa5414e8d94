// Package agent is the subcommand that keeps tokens of a ServiceAccount in files. Its work is that of
// [github.com/sakeeper/sakeeper/pkg/agent].
package agent

import (
	"context"
	"errors"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"github.com/sakeeper/sakeeper/cmd/sakeeper/options"
	"github.com/sakeeper/sakeeper/cmd/sakeeper/process"
	"github.com/sakeeper/sakeeper/pkg/agent"
	"github.com/sakeeper/sakeeper/pkg/kube"
	"github.com/sakeeper/sakeeper/pkg/kube/rights"
)

const component = "sakeeper-agent"

// NewCommand makes the command, which calls start with the config that its flags result in.
func NewCommand(version string, start func(context.Context, *Config) error) *cobra.Command {
	opts := newOptions()
	cmd := &cobra.Command{
		Use:   "agent",
		Short: "Keep tokens of a ServiceAccount in files, and renew them",
		Long: `Keeps tokens of a ServiceAccount in files and renews them after 70 to 80 % of their
lifetime: as a sidecar, as an init container (--once), or on a machine outside the
cluster. The old token stays in its file until the new one is there.`,
		Example: `  # On a machine: a token for the API server, and one for Vault.
  sakeeper agent --kubeconfig=agent.kubeconfig --namespace=ci --service-account=builder \
    --token-file=/run/ci/token --token-file=/run/ci/vault=https://vault.example.com --signal=HUP:/run/app.pid

  # In a pod: its own ServiceAccount, bound to the pod.
  sakeeper agent --token-file=/tokens/vault=https://vault.example.com`,
		Annotations: map[string]string{options.Chapter: "cmd/sakeeper/agent.md"},
		Args:        cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := opts.complete(version)
			if err != nil {
				return err
			}
			return start(cmd.Context(), cfg)
		},
	}
	options.AddSections(cmd, opts.sections())
	opts.changed = cmd.Flags().Changed
	return cmd
}

// Run runs until ctx ends, which is no error, until every file is written (with --once), or until
// something fails that cannot be retried.
func Run(ctx context.Context, cfg *Config) error {
	if cfg.options.once {
		cfg.options.servers.Metrics, cfg.options.servers.Probes = "0", "0" // it ends before a probe or a scrape would come
	}
	ctx, listeners, err := process.Begin(ctx, component, cfg.version, cfg.options.logs, cfg.options.servers)
	if err != nil {
		return err
	}
	registry := process.NewRegistry(cfg.version)
	a, monitor, err := newAgent(cfg, registry)
	if err != nil {
		return errors.Join(err, listeners.Close())
	}
	klog.FromContext(ctx).Info("Fetching tokens", "serviceAccount", klog.KRef(cfg.namespace, cfg.account), "boundTo", cfg.boundTo(), "files", len(cfg.tokens))
	cfg.warn(ctx)
	if cfg.options.once {
		return a.Once(ctx)
	}
	ctx, stop := delayShutdown(ctx, cfg.options.shutdownDelay, func(signals chan<- os.Signal) { signal.Notify(signals, os.Interrupt, syscall.SIGTERM) })
	defer stop()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return listeners.Serve(ctx, registry, agentProbes(a, monitor)) })
	group.Go(func() error { return monitor.Run(ctx) })
	group.Go(func() error { return a.Run(ctx) })
	return group.Wait()
}

// warn logs that the agent renews its own credential.
func (c *Config) warn(ctx context.Context) {
	if c.ownCredential == "" {
		return
	}
	klog.FromContext(ctx).Error(nil, "The credential of this agent is a token that it renews itself: if it expires, as in an outage, the agent cannot recover. Give it another credential",
		"credential", c.rest.BearerTokenFile, "tokenFile", c.ownCredential)
}

// delayShutdown returns a context that ends the delay after ctx has, or at the next signal of those
// that notify subscribes to.
func delayShutdown(ctx context.Context, delay time.Duration, notify func(chan<- os.Signal)) (context.Context, context.CancelFunc) {
	delayed, cancel := context.WithCancel(context.WithoutCancel(ctx))
	signals := make(chan os.Signal, 1)
	end := context.AfterFunc(ctx, func() {
		defer cancel()
		if delay == 0 {
			return
		}
		notify(signals)
		klog.FromContext(ctx).Info("Delayed the shutdown", "duration", delay)
		select {
		case <-time.After(delay):
		case <-signals:
		case <-delayed.Done():
		}
	})
	return delayed, func() {
		end()
		signal.Stop(signals)
		cancel()
	}
}

func newAgent(cfg *Config, registry *prometheus.Registry) (*agent.Agent, *rights.Monitor, error) {
	config := rest.CopyConfig(cfg.rest)
	serverClock := kube.FollowServerClock(config, clock.RealClock{})
	review, err := agent.NewReviewer(config)
	if err != nil {
		return nil, nil, err
	}
	monitor, err := rights.Follow(config) // not the reviews, which other credentials make
	if err != nil {
		return nil, nil, err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, nil, err
	}
	a, err := agent.New(agent.Config{
		Client: client.CoreV1(), Namespace: cfg.namespace, ServiceAccount: cfg.account,
		Tokens: cfg.tokens, Lifetime: cfg.options.lifetime, Bound: cfg.bound, Review: review, OwnCredential: cfg.ownCredential,
		Writer: cfg.writer, Hooks: cfg.hooks, Clock: serverClock, Local: clock.RealClock{}, Seed: cfg.seed,
		Registerer: registry,
	})
	return a, monitor, err
}

func agentProbes(a *agent.Agent, monitor *rights.Monitor) http.Handler {
	return process.ProbesHandler(nil, []kube.Check{
		{Name: "tokens", Probe: func(*http.Request) error { return a.Ready() }},
		process.Rights(monitor),
	})
}
