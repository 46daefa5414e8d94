// Package keys is the subcommand by which an administrator rotates and inspects signing keys. Which step is due is
// decided by [github.com/sakeeper/sakeeper/pkg/keys/rotation].
package keys

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/client-go/kubernetes"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/utils/clock"

	"github.com/sakeeper/sakeeper/cmd/sakeeper/options"
	"github.com/sakeeper/sakeeper/pkg/keys"
	"github.com/sakeeper/sakeeper/pkg/keys/rotation"
)

// chapter is about all of them.
const chapter = "cmd/sakeeper/signing-keys.md"

// NewCommand makes the command and its subcommands.
func NewCommand(version string, clock clock.Clock) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "keys",
		Short: "Rotate and inspect the signing keys of a directory or a Secret",
		Long: `Rotates and inspects the signing keys of a directory (--key-dir) or of a Secret
(--secret), from which 'sakeeper signer' and 'sakeeper controllers' have them. Each
command can be run again at any time: it does what is left to do, and refuses
what would be too early.`,
		Example: `  # Publishes the next key; an hour later, the same command lets it sign.
  sakeeper keys rotate --key-dir=/etc/kubernetes/pki/sakeeper`,
		Annotations: map[string]string{options.Chapter: chapter},
		Args:        cobra.NoArgs,
		RunE:        func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	options.AddCommands(cmd, newStatusCommand(version, clock), newRotateCommand(version, clock), newPruneCommand(version, clock), newImportCommand(version, clock))
	return cmd
}

// Options are the flags that all keys subcommands have.
type Options struct {
	version    string
	clock      clock.Clock
	dir        string
	secret     string
	kubeconfig string
	settings   rotation.Settings
	hint       time.Duration
	maxAge     time.Duration
	publishFor time.Duration
	// extended: kube-apiserver extends tokens of pods, whatever settings.MaxExpiration is.
	extended bool
}

// extendedExpiration is the lifetime that kube-apiserver gives to the tokens of pods of which
// kubelet requests an hour (3607 s), unless --service-account-extend-token-expiration is false.
// --service-account-max-token-expiration does not limit it (KEP-1205).
const extendedExpiration = 8760 * time.Hour

func newOptions(version string, clock clock.Clock) *Options {
	return &Options{
		version: version, clock: clock, hint: time.Minute, maxAge: time.Hour, publishFor: time.Hour,
		settings: rotation.Settings{MaxExpiration: extendedExpiration},
	}
}

func (o *Options) addFlags(fs *pflag.FlagSet) {
	fs.StringVar(&o.dir, "key-dir", o.dir, "Directory with the keys. It is made where it does not exist.")
	fs.StringVar(&o.secret, "secret", o.secret,
		"Secret with the keys, as namespace/name; usually sakeeper-system/"+rotation.SecretName+". Its public halves go to the ConfigMap "+rotation.PublicConfigMapName+" beside it.")
	fs.StringVar(&o.kubeconfig, "kubeconfig", o.kubeconfig,
		"File with the address of and the credentials for the API server. Empty with --secret: those that a pod finds in its file system.")
	fs.DurationVar(&o.settings.MaxExpiration, "max-token-expiration", o.settings.MaxExpiration,
		"Longest lifetime of tokens, as the signer has it in its flag of this name. Each key remembers the longest that it was told of.")
}

// addExtension adds the flag that says whether tokens may live longer than the longest that a client
// can request.
func (o *Options) addExtension(fs *pflag.FlagSet) {
	o.extended = true
	fs.BoolVar(&o.extended, "service-account-extend-token-expiration", o.extended,
		"The flag of this name of kube-apiserver: tokens of pods live 8760h, whatever --max-token-expiration says. False: kube-apiserver has it off, or a signer with a shorter --max-token-expiration has made all bound tokens.")
}

// addWaits adds the flags that decide how long a key is published before it signs.
func (o *Options) addWaits(fs *pflag.FlagSet) {
	fs.DurationVar(&o.publishFor, "publish-for", o.publishFor,
		"How long a key is published at least before it signs.")
	fs.DurationVar(&o.hint, "refresh-hint", o.hint, "The signer's flag of this name: a key is published at least that long.")
	fs.DurationVar(&o.maxAge, "discovery-max-age", o.maxAge,
		"How long others may keep a copy of the JWKS, by the Cache-Control header of its server: a key is published at least that long.")
}

func (o *Options) validate() error {
	var errs []error
	if (o.dir == "") == (o.secret == "") {
		errs = append(errs, errors.New("either --key-dir or --secret is required"))
	}
	if namespace, name, ok := strings.Cut(o.secret, "/"); o.secret != "" && (!ok || namespace == "" || name == "" || strings.Contains(name, "/")) {
		errs = append(errs, fmt.Errorf("--secret: %q is not namespace/name", o.secret))
	}
	for flag, value := range map[string]time.Duration{
		"--publish-for": o.publishFor, "--refresh-hint": o.hint, "--discovery-max-age": o.maxAge, "--rotate-after": o.settings.RotateAfter,
	} {
		if value < 0 {
			errs = append(errs, fmt.Errorf("%s: %v is negative", flag, value))
		}
	}
	if o.settings.MaxExpiration < 10*time.Minute {
		errs = append(errs, fmt.Errorf("--max-token-expiration: %v is less than 10m, the least that an API server grants", o.settings.MaxExpiration))
	}
	if o.extended {
		o.settings.MaxExpiration = max(o.settings.MaxExpiration, extendedExpiration)
	}
	o.settings.PublishFor = max(o.publishFor, o.hint, o.maxAge)
	return errors.Join(errs...)
}

func (o *Options) client() (*kubernetes.Clientset, error) {
	config, err := (&options.API{Kubeconfig: o.kubeconfig, QPS: -1}).RESTConfig("sakeeper-keys", o.version)
	if err != nil {
		return nil, err
	}
	return kubernetes.NewForConfig(config)
}

// open returns the store, and the client, which is nil if no flag says how to connect to the API
// server.
func (o *Options) open() (rotation.Store, *kubernetes.Clientset, error) {
	if err := o.validate(); err != nil {
		return nil, nil, err
	}
	var client *kubernetes.Clientset
	if o.secret != "" || o.kubeconfig != "" {
		var err error
		if client, err = o.client(); err != nil {
			return nil, nil, err
		}
	}
	if o.dir != "" {
		return rotation.OpenDirectory(o.dir), client, nil
	}
	namespace, name, _ := strings.Cut(o.secret, "/")
	return rotation.OpenSecret(client.CoreV1(), toolscache.ObjectName{Namespace: namespace, Name: name}, o.clock), client, nil
}

// change opens the store for a command that changes it, calls f, and closes the store.
func (o *Options) change(ctx context.Context, f func(rotation.Store, *kubernetes.Clientset) error) (err error) {
	store, client, err := o.open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	if err := store.Begin(ctx); err != nil {
		return err
	}
	return f(store, client)
}

// applyStep does a step, and prints it.
func applyStep(ctx context.Context, out io.Writer, s rotation.Store, step rotation.Step, algorithm jose.SignatureAlgorithm, settings rotation.Settings) error {
	m, err := rotation.ApplyStep(ctx, s, step, algorithm, settings)
	if err != nil {
		return err
	}
	text := map[rotation.Action]string{
		rotation.ActionCleanUp: "removed the file " + step.File, rotation.ActionFirst: "made the first key", rotation.ActionPublish: "published",
		rotation.ActionPromote: "signs now", rotation.ActionRetire: "retired, and its private half destroyed", rotation.ActionHide: "made legacy", rotation.ActionRemove: "removed",
	}[step.Action]
	if step.Action != rotation.ActionCleanUp {
		text = "key " + m.ID() + ": " + text
	}
	fmt.Fprintf(out, "%s (%s)\n", text, step.Reason)
	return nil
}

// loadWithCarriers reads the keys, and counts the token Secrets that carry a token of each. Without a
// client it returns nil for the counts.
func loadWithCarriers(ctx context.Context, s rotation.Store, client *kubernetes.Clientset) (*keys.Keyring, rotation.TokenSecretCounts, error) {
	ring, err := s.Load(ctx)
	if err != nil || client == nil {
		return ring, nil, err
	}
	carriers, err := rotation.CountTokenSecrets(ctx, client.CoreV1(), ring)
	return ring, carriers, err
}
