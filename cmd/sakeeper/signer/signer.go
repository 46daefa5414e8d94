// Package signer is the subcommand that signs tokens for kube-apiserver. Its work is that of
// [github.com/sakeeper/sakeeper/pkg/signer].
package signer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os/user"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"
	cliflag "k8s.io/component-base/cli/flag"

	"github.com/sakeeper/sakeeper/cmd/sakeeper/options"
	"github.com/sakeeper/sakeeper/cmd/sakeeper/process"
	"github.com/sakeeper/sakeeper/pkg/keys"
	"github.com/sakeeper/sakeeper/pkg/kube"
	"github.com/sakeeper/sakeeper/pkg/signer"
)

const component = "sakeeper-signer"

// NewCommand makes the command, which calls start with the config that its flags result in.
func NewCommand(version string, start func(context.Context, *Config) error) *cobra.Command {
	opts := newOptions()
	cmd := &cobra.Command{
		Use:   "signer",
		Short: "Run the signer that kube-apiserver asks to sign its tokens",
		Long: `Runs the signer that kube-apiserver asks to sign its tokens and for the keys that
verify them (--service-account-signing-endpoint), on a unix socket. A process
that may open it may have any token signed. A second socket signs nothing but legacy
tokens, for 'sakeeper controllers'.`,
		Example: `  # On a control plane node; kube-apiserver has --service-account-signing-endpoint=/run/sakeeper/signer.sock.
  sakeeper signer --key-dir=/etc/kubernetes/pki/sakeeper --socket=/run/sakeeper/signer.sock \
    --legacy-socket=/run/sakeeper/legacy.sock`,
		Annotations: map[string]string{options.Chapter: "cmd/sakeeper/signing-keys.md"},
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
	return cmd
}

// Options are the flags of sakeeper signer.
type Options struct {
	servers *options.Servers
	logs    *options.Logs

	keys          options.Keys
	socket        string
	legacySocket  string
	mode          uint32
	group         string
	legacyMode    uint32
	legacyGroup   string
	refreshHint   time.Duration
	maxExpiration time.Duration
}

func newOptions() *Options {
	return &Options{
		servers: options.NewServers(), logs: options.NewLogs(),
		socket: "/var/run/sakeeper/signer.sock", mode: 0o600, legacyMode: 0o600,
		refreshHint: time.Minute, maxExpiration: 8760 * time.Hour,
	}
}

func (o *Options) sections() *cliflag.NamedFlagSets {
	sections := &cliflag.NamedFlagSets{}
	o.addFlags(sections.FlagSet("signer"))
	o.servers.AddFlags(sections.FlagSet("metrics and probes"))
	o.logs.AddFlags(sections.FlagSet("logs"))
	return sections
}

func (o *Options) addFlags(fs *pflag.FlagSet) {
	o.keys.AddFlags(fs)
	fs.StringVar(&o.socket, "socket", o.socket,
		"Unix socket for kube-apiserver. Its directory must exist.")
	fs.StringVar(&o.legacySocket, "legacy-socket", o.legacySocket,
		"Unix socket that signs exactly the claims of legacy tokens, for 'sakeeper controllers'. Empty: there is none.")
	fs.Var((*octal)(&o.mode), "socket-mode", "Mode of --socket, octal. A process that may write to it may have any token signed.")
	fs.StringVar(&o.group, "socket-group", o.group, "Group of --socket, a name or a number. Empty: that of the process.")
	fs.Var((*octal)(&o.legacyMode), "legacy-socket-mode", "Mode of --legacy-socket, octal.")
	fs.StringVar(&o.legacyGroup, "legacy-socket-group", o.legacyGroup, "Group of --legacy-socket, a name or a number. Empty: that of the process.")
	fs.DurationVar(&o.refreshHint, "refresh-hint", o.refreshHint,
		"How often kube-apiserver is to fetch the keys, in whole seconds. A removed key is refused after this time.")
	fs.DurationVar(&o.maxExpiration, "max-token-expiration", o.maxExpiration,
		"Longest lifetime of tokens that kube-apiserver may grant, at least 1h. It asks when it starts: after lowering it, restart all API servers before 'sakeeper keys' is told. Tell 'sakeeper keys' when it is not the default.")
}

func (o *Options) complete(version string) (*Config, error) {
	errs := append(o.servers.Validate(), o.logs.Validate()...)
	errs = append(errs, o.keys.Validate()...)
	if o.socket == "" {
		errs = append(errs, errors.New("--socket is required"))
	}
	if o.socket == o.legacySocket {
		errs = append(errs, errors.New("--legacy-socket: is the same as --socket"))
	}
	for flag, mode := range map[string]uint32{"--socket-mode": o.mode, "--legacy-socket-mode": o.legacyMode} {
		if mode > 0o777 {
			errs = append(errs, fmt.Errorf("%s: %#o is not between 0 and 0777", flag, mode))
		}
	}
	if o.refreshHint < time.Second || o.refreshHint%time.Second != 0 {
		errs = append(errs, fmt.Errorf("--refresh-hint: %v is not a whole number of seconds, at least 1s", o.refreshHint))
	}
	if o.maxExpiration < signer.MinExpiration || o.maxExpiration%time.Second != 0 {
		errs = append(errs, fmt.Errorf("--max-token-expiration: %v is not a whole number of seconds, at least %v", o.maxExpiration, signer.MinExpiration))
	}
	cfg := &Config{version: version, options: o}
	var err error
	if cfg.group, err = groupID(o.group); err != nil {
		errs = append(errs, fmt.Errorf("--socket-group: %w", err))
	}
	if cfg.legacyGroup, err = groupID(o.legacyGroup); err != nil {
		errs = append(errs, fmt.Errorf("--legacy-socket-group: %w", err))
	}
	if !o.keys.HasSigningKey() {
		errs = append(errs, errors.New("--key-dir or --service-account-private-key-file is required"))
	} else {
		cfg.keys, err = o.keys.Load()
		errs = append(errs, err)
	}
	return cfg, errors.Join(errs...)
}

// groupID returns the id of a group that is given by name or id, and -1, which changes nothing, for
// no name.
func groupID(name string) (int, error) {
	if name == "" {
		return -1, nil
	}
	if id, err := strconv.Atoi(name); err == nil && id >= 0 {
		return id, nil
	}
	group, err := user.LookupGroup(name)
	if err != nil {
		return 0, fmt.Errorf("there is no group %q", name)
	}
	return strconv.Atoi(group.Gid)
}

// octal is the value of a flag for a file mode.
type octal uint32

func (o *octal) String() string { return fmt.Sprintf("%#o", uint32(*o)) }

func (o *octal) Set(text string) error {
	mode, err := strconv.ParseUint(text, 8, 32)
	if err != nil {
		return fmt.Errorf("%q is not an octal number", text)
	}
	*o = octal(mode)
	return nil
}

func (o *octal) Type() string { return "mode" }

// Config is made from the flags and the files that they name.
type Config struct {
	version string
	options *Options
	keys    *keys.Loader
	// group and legacyGroup are the groups of the sockets; -1 is that of the process.
	group, legacyGroup int
}

// Run runs until ctx ends, which is no error, or until something fails that cannot be retried.
func Run(ctx context.Context, cfg *Config) error {
	ctx, listeners, err := process.Begin(ctx, component, cfg.version, cfg.options.logs, cfg.options.servers)
	if err != nil {
		return err
	}
	p, err := New(cfg)
	if err == nil {
		err = p.listen(ctx)
	}
	if err != nil {
		return errors.Join(err, listeners.Close())
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return listeners.Serve(ctx, p.registry, p.probesHandler()) })
	group.Go(func() error { return cfg.keys.Run(ctx) })
	group.Go(func() error { return p.server.Serve(ctx, p.main) })
	if p.legacy != nil {
		group.Go(func() error { return p.server.ServeLegacy(ctx, p.legacy) })
	}
	return group.Wait()
}

// Process is a process of sakeeper signer.
type Process struct {
	cfg          *Config
	registry     *prometheus.Registry
	server       *signer.Server
	main, legacy net.Listener // legacy is nil if it is off
}

// New makes a process, of which nothing is started.
func New(cfg *Config) (*Process, error) {
	p, o := &Process{cfg: cfg, registry: process.NewRegistry(cfg.version)}, cfg.options
	p.registry.MustRegister(keys.NewCollector(cfg.keys.Get))
	failures := kube.NewReloadFailures(p.registry, "keys")
	cfg.keys.OnError(failures.Count("keys", nil))
	var err error
	p.server, err = signer.New(signer.Config{
		Keys: cfg.keys.Get, ReadAt: cfg.keys.ReadAt, RefreshHint: o.refreshHint, MaxExpiration: o.maxExpiration, Registerer: p.registry,
	})
	return p, err
}

// Registry has the metrics of the process.
func (p *Process) Registry() *prometheus.Registry { return p.registry }

// listen opens the sockets.
func (p *Process) listen(ctx context.Context) (err error) {
	o := p.cfg.options
	socket := signer.Socket{Flag: "--socket", Path: o.socket, Mode: fs.FileMode(o.mode), Group: p.cfg.group}
	if p.main, err = socket.Listen(ctx); err != nil {
		return err
	}
	if o.legacySocket != "" {
		socket = signer.Socket{Flag: "--legacy-socket", Path: o.legacySocket, Mode: fs.FileMode(o.legacyMode), Group: p.cfg.legacyGroup}
		if p.legacy, err = socket.Listen(ctx); err != nil {
			return errors.Join(err, p.main.Close())
		}
	}
	return nil
}

// probesHandler asks on the sockets themselves, so that it fails when the file of a socket was
// removed: only a restart makes it again.
func (p *Process) probesHandler() http.Handler {
	checks := []kube.Check{{Name: "socket", Probe: probeSocket(p.cfg.options.socket)}}
	if p.legacy != nil {
		checks = append(checks, kube.Check{Name: "legacy socket", Probe: probeSocket(p.cfg.options.legacySocket)})
	}
	return process.ProbesHandler(checks, checks)
}

func probeSocket(path string) func(*http.Request) error {
	return func(r *http.Request) error {
		client, err := signer.Dial(r.Context(), path)
		if err != nil {
			return err
		}
		return client.Close()
	}
}
