package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	cliflag "k8s.io/component-base/cli/flag"
	"k8s.io/utils/clock"

	"github.com/sakeeper/sakeeper/pkg/keys"
	"github.com/sakeeper/sakeeper/pkg/kube"
	"github.com/sakeeper/sakeeper/pkg/rotation"
)

// keysClock is the clock of the commands below; tests set another.
type keysClock = clock.Clock

func newKeysCommand(clock keysClock) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "keys",
		Short: "Rotate and inspect the signing keys of a directory or a Secret",
		Long: `Rotates and inspects the signing keys of a directory (--key-dir) or of a Secret
(--secret), from which 'sakeeper signer' and 'sakeeper controllers' have them. Each
command can be run again at any time: it does what is left to do, and refuses
what would be too early.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newKeysStatusCommand(clock), newKeysRotateCommand(clock), newKeysPruneCommand(clock), newKeysImportCommand(clock))
	return cmd
}

// keysOptions are the flags that all of them have.
type keysOptions struct {
	clock      keysClock
	dir        string
	secret     string
	kubeconfig string
	settings   rotation.Settings
	hint       time.Duration
	maxAge     time.Duration
	publishFor time.Duration
}

func newKeysOptions(clock keysClock) *keysOptions {
	return &keysOptions{
		clock: clock, hint: time.Minute, maxAge: time.Hour, publishFor: time.Hour,
		settings: rotation.Settings{MaxExpiration: 8760 * time.Hour},
	}
}

func (o *keysOptions) addFlags(fs *pflag.FlagSet) {
	fs.StringVar(&o.dir, "key-dir", o.dir, "Directory with the keys. It is made where it does not exist.")
	fs.StringVar(&o.secret, "secret", o.secret,
		"Secret with the keys, as namespace/name; usually sakeeper-system/"+rotation.SecretName+". Its public halves go to the ConfigMap "+rotation.PublicName+" beside it.")
	fs.StringVar(&o.kubeconfig, "kubeconfig", o.kubeconfig,
		"File with the address of and the credentials for the API server. Empty with --secret: those that a pod finds in its file system.")
	fs.DurationVar(&o.settings.MaxExpiration, "max-token-expiration", o.settings.MaxExpiration,
		"Longest lifetime of tokens, as the signer has it in its flag of this name. Each key remembers the longest that it was told of.")
}

// addWaits adds what says how long a key is published before it signs.
func (o *keysOptions) addWaits(fs *pflag.FlagSet) {
	fs.DurationVar(&o.publishFor, "publish-for", o.publishFor,
		"How long a key is published at least before it signs.")
	fs.DurationVar(&o.hint, "refresh-hint", o.hint, "The signer's flag of this name: a key is published at least that long.")
	fs.DurationVar(&o.maxAge, "discovery-max-age", o.maxAge,
		"How long others may keep a copy of the JWKS, by the Cache-Control header of its server: a key is published at least that long.")
}

func (o *keysOptions) validate() error {
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
	o.settings.PublishFor = max(o.publishFor, o.hint, o.maxAge)
	return errors.Join(errs...)
}

// client is nil where nobody said how to reach the API server.
func (o *keysOptions) client() (*kubernetes.Clientset, error) {
	if o.secret == "" && o.kubeconfig == "" {
		return nil, nil //nolint:nilnil // none is an answer
	}
	config, err := kube.Connection{Kubeconfig: o.kubeconfig, QPS: -1, UserAgent: "sakeeper-keys/" + buildVersion()}.Config()
	if err != nil {
		return nil, err
	}
	return kubernetes.NewForConfig(config)
}

// open gives the store, and a client where one can be had.
func (o *keysOptions) open() (rotation.Store, *kubernetes.Clientset, error) {
	if err := o.validate(); err != nil {
		return nil, nil, err
	}
	client, err := o.client()
	if err != nil {
		return nil, nil, err
	}
	if o.dir != "" {
		return rotation.OpenDirectory(o.dir), client, nil
	}
	namespace, name, _ := strings.Cut(o.secret, "/")
	return rotation.OpenSecret(client.CoreV1(), cache.ObjectName{Namespace: namespace, Name: name}, o.clock), client, nil
}

// change opens the store for a command that changes it.
func (o *keysOptions) change(ctx context.Context, do func(rotation.Store, *kubernetes.Clientset) error) (err error) {
	store, client, err := o.open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	if err := store.Begin(ctx); err != nil {
		return err
	}
	return do(store, client)
}

// algorithm is what --algorithm says, else that of the key that signs, so that a rotation
// changes nothing else.
func algorithm(flag string, ring *keys.Ring) jose.SignatureAlgorithm {
	if signing, ok := ring.Signing(); flag == "" && ok {
		return signing.Public().Algorithm()
	}
	if flag == "" {
		return jose.RS256
	}
	return jose.SignatureAlgorithm(flag)
}

func newKeysRotateCommand(clock keysClock) *cobra.Command {
	o := newKeysOptions(clock)
	var flagAlgorithm string
	var wait bool
	cmd := &cobra.Command{
		Use:   "rotate",
		Short: "Do the next step of a rotation: publish the next key, or let it sign and retire the old one",
		Long: `Does the next step of a rotation. The first run publishes a new key. A run that comes
when everybody has had the time to fetch it lets it sign, and destroys the private
half of the old one, which verifies until 'sakeeper keys prune' removes it. A run
that comes too early changes nothing and says when the next step can be done.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if flagAlgorithm != "" && !slices.Contains(keys.Algorithms(), jose.SignatureAlgorithm(flagAlgorithm)) {
				return fmt.Errorf("--algorithm: %q is not one of %v", flagAlgorithm, keys.Algorithms())
			}
			return o.change(cmd.Context(), func(s rotation.Store, _ *kubernetes.Clientset) error {
				return rotate(cmd.Context(), cmd.OutOrStdout(), o, s, flagAlgorithm, wait)
			})
		},
	}
	sections := &cliflag.NamedFlagSets{}
	fs := sections.FlagSet("keys")
	o.addFlags(fs)
	o.addWaits(fs)
	fs.DurationVar(&o.settings.RotateAfter, "rotate-after", o.settings.RotateAfter,
		"How long a key signs before the next one is published. 0: begin now. For jobs that run again and again.")
	fs.BoolVar(&o.settings.Force, "force", o.settings.Force,
		"Let the published key sign now, though not everybody may have it: tokens may be refused for up to --publish-for.")
	fs.BoolVar(&wait, "wait", wait, "Wait until the rotation that was begun is done.")
	fs.StringVar(&flagAlgorithm, "algorithm", flagAlgorithm, "Of new keys: RS256, ES256, ES384 or ES512. Empty: that of the key that signs, and RS256 for the first.")
	withSections(cmd, sections)
	return cmd
}

// rotate does steps until one has to wait, or the published key signs.
func rotate(ctx context.Context, out io.Writer, o *keysOptions, s rotation.Store, flagAlgorithm string, wait bool) error {
	for promoted := false; ; {
		ring, err := s.Load(ctx)
		if err != nil {
			return err
		}
		step := rotation.Rotate(ring, o.clock.Now(), o.settings)
		switch {
		case promoted && (step.Action == rotation.ActionPublish || step.Action == rotation.ActionNone):
			return nil // the next rotation is another command's
		case step.Action == rotation.ActionNone && wait && step.Key.State == keys.StatePublished:
			fmt.Fprintf(out, "waiting until %s: %s\n", step.NotBefore.UTC().Format(time.RFC3339), step.Reason)
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-o.clock.After(step.NotBefore.Sub(o.clock.Now())):
			}
			continue
		case step.Action == rotation.ActionNone:
			fmt.Fprintf(out, "nothing to do before %s: %s\n", step.NotBefore.UTC().Format(time.RFC3339), step.Reason)
			return nil
		}
		if err := do(ctx, out, s, step, algorithm(flagAlgorithm, ring), o.settings); err != nil {
			return err
		}
		// To retire is the last step of what an earlier run may have begun.
		promoted = promoted || slices.Contains([]rotation.Action{rotation.ActionPromote, rotation.ActionFirst, rotation.ActionRetire}, step.Action)
		if step.Action == rotation.ActionPublish {
			o.settings.Force = false // it is for a key that was published before
		}
	}
}

// do does a step and says so.
func do(ctx context.Context, out io.Writer, s rotation.Store, step rotation.Step, algorithm jose.SignatureAlgorithm, settings rotation.Settings) error {
	m, err := rotation.Do(ctx, s, step, algorithm, settings)
	if err != nil {
		return err
	}
	what := map[rotation.Action]string{
		rotation.ActionTidy: "removed the file " + step.File, rotation.ActionFirst: "made the first key", rotation.ActionPublish: "published",
		rotation.ActionPromote: "signs now", rotation.ActionRetire: "retired, and its private half destroyed", rotation.ActionHide: "made legacy", rotation.ActionRemove: "removed",
	}[step.Action]
	if step.Action != rotation.ActionTidy {
		what = "key " + m.ID() + ": " + what
	}
	fmt.Fprintf(out, "%s (%s)\n", what, step.Reason)
	return nil
}

func newKeysPruneCommand(clock keysClock) *cobra.Command {
	o := newKeysOptions(clock)
	var id string
	cmd := &cobra.Command{
		Use:   "prune",
		Short: "Remove keys of which no token can be alive",
		Long: `Removes keys of which no token can be alive: those that were retired for longer than
any token of theirs lives, and that no token Secret carries. To know the latter, it
asks the API server: give it --kubeconfig. A key that only token Secrets carry
becomes legacy: it verifies, and discovery does not show it.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.settings.Force && len(id) < 8 {
				return errors.New("--force needs --key, with 8 characters of the key's id at least")
			}
			return o.change(cmd.Context(), func(s rotation.Store, client *kubernetes.Clientset) error {
				return prune(cmd.Context(), cmd.OutOrStdout(), o, s, client, id)
			})
		},
	}
	sections := &cliflag.NamedFlagSets{}
	fs := sections.FlagSet("keys")
	o.addFlags(fs)
	fs.StringVar(&id, "key", id, "Look at this key alone: the beginning of its id.")
	fs.BoolVar(&o.settings.Force, "force", o.settings.Force,
		"Remove the key of --key, whatever it is needed for, unless it is the one that signs: all its tokens are refused from then on.")
	withSections(cmd, sections)
	return cmd
}

func prune(ctx context.Context, out io.Writer, o *keysOptions, s rotation.Store, client *kubernetes.Clientset, id string) error {
	ring, carriers, err := survey(ctx, s, client)
	if err != nil {
		return err
	}
	if o.settings.Force {
		return remove(ctx, out, o, s, ring, id)
	}
	steps := rotation.Prunable(ring, o.clock.Now(), carriers, o.settings)
	steps = slices.DeleteFunc(steps, func(step rotation.Step) bool { return id != "" && !strings.HasPrefix(step.Key.ID(), id) })
	if len(steps) == 0 {
		fmt.Fprintln(out, "nothing to remove: no key was retired")
	}
	for _, step := range steps {
		if step.Action == rotation.ActionNone {
			fmt.Fprintf(out, "key %s: stays%s: %s\n", step.Key.ID(), until(step.NotBefore), step.Reason)
			continue
		}
		if err := do(ctx, out, s, step, "", o.settings); err != nil {
			return err
		}
	}
	return nil
}

// remove is for --force.
func remove(ctx context.Context, out io.Writer, o *keysOptions, s rotation.Store, ring *keys.Ring, id string) error {
	found := slices.DeleteFunc(ring.Members(), func(m keys.Member) bool { return !strings.HasPrefix(m.ID(), id) })
	if len(found) != 1 {
		return fmt.Errorf("--key: %d keys have an id that begins with %q", len(found), id)
	}
	if signing, _ := ring.Signing(); signing.ID() == found[0].ID() {
		return fmt.Errorf("--key: %s signs; rotate first", found[0].ID())
	}
	return do(ctx, out, s, rotation.Step{Action: rotation.ActionRemove, Key: found[0], Reason: "forced"}, "", o.settings)
}

func until(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return " until " + t.UTC().Format(time.RFC3339)
}

// survey reads the keys, and asks who carries tokens of them where that can be asked.
func survey(ctx context.Context, s rotation.Store, client *kubernetes.Clientset) (*keys.Ring, rotation.Carriers, error) {
	ring, err := s.Load(ctx)
	if err != nil || client == nil {
		return ring, nil, err
	}
	carriers, err := rotation.AskCarriers(ctx, client.CoreV1(), ring)
	return ring, carriers, err
}

func newKeysImportCommand(clock keysClock) *cobra.Command {
	o := newKeysOptions(clock)
	var file, state string
	cmd := &cobra.Command{
		Use:   "import",
		Short: "Bring a key that exists, such as kubeadm's sa.key, into the directory or Secret",
		Long: `Brings a key that exists, such as kubeadm's sa.key, into the directory or Secret. The
file stays as it is. Again, it does nothing.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			m, err := readMember(file, keys.State(state))
			if err != nil {
				return err
			}
			m.Note.MaxExpiration = o.settings.MaxExpiration
			return o.change(cmd.Context(), func(s rotation.Store, _ *kubernetes.Clientset) error {
				m := m.In(m.State, clock.Now())
				added, err := rotation.Import(cmd.Context(), s, m)
				switch {
				case err != nil:
					return err
				case added:
					fmt.Fprintf(cmd.OutOrStdout(), "key %s: imported as %s\n", m.ID(), m.State)
				default:
					fmt.Fprintf(cmd.OutOrStdout(), "key %s: is %s already\n", m.ID(), m.State)
				}
				return nil
			})
		},
	}
	sections := &cliflag.NamedFlagSets{}
	fs := sections.FlagSet("keys")
	o.addFlags(fs)
	fs.StringVar(&file, "file", file, "PEM file with the key. A private key is needed for the states published and signing.")
	fs.StringVar(&state, "state", string(keys.StateSigning), "State that the key is to have: signing, published, retired or legacy.")
	withSections(cmd, sections)
	return cmd
}

func readMember(file string, state keys.State) (keys.Member, error) {
	if !slices.Contains(keys.States(), state) {
		return keys.Member{}, fmt.Errorf("--state: %q is not one of %v", state, keys.States())
	}
	if file == "" {
		return keys.Member{}, errors.New("--file is required")
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return keys.Member{}, fmt.Errorf("--file: %w", err)
	}
	m := keys.Member{State: state}
	if state == keys.StatePublished || state == keys.StateSigning {
		m.Private, err = keys.ParsePrivate(data)
	} else {
		var found []keys.PublicKey
		if found, err = keys.ParsePublic(data); err == nil {
			m.Private = keys.Elsewhere(found[0])
			if len(found) > 1 {
				err = fmt.Errorf("holds %d keys; import each of a file of its own", len(found))
			}
		}
	}
	if err != nil {
		return keys.Member{}, fmt.Errorf("--file: %s: %w", file, err)
	}
	return m, nil
}
