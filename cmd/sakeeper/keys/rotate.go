package keys

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/spf13/cobra"
	"k8s.io/client-go/kubernetes"
	cliflag "k8s.io/component-base/cli/flag"

	"k8s.io/utils/clock"

	"github.com/sakeeper/sakeeper/cmd/sakeeper/options"
	"github.com/sakeeper/sakeeper/pkg/keys"
	"github.com/sakeeper/sakeeper/pkg/keys/rotation"
)

// algorithm returns that of the flag, or that of the key that signs, so that a rotation changes
// nothing else.
func algorithm(flag string, ring *keys.Keyring) jose.SignatureAlgorithm {
	if signing, ok := ring.Signing(); flag == "" && ok {
		return signing.Public().Algorithm()
	}
	if flag == "" {
		return jose.RS256
	}
	return jose.SignatureAlgorithm(flag)
}

func newRotateCommand(version string, clock clock.Clock) *cobra.Command {
	o := newOptions(version, clock)
	var flagAlgorithm string
	var wait bool
	cmd := &cobra.Command{
		Use:   "rotate",
		Short: "Do the next step of a rotation: publish the next key, or let it sign and retire the old one",
		Long: `Does the next step of a rotation. The first run publishes a new key. A run that comes
when all verifiers have had time to fetch it lets it sign, and destroys the private
half of the old one, which verifies until 'sakeeper keys prune' removes it. A run
that comes too early changes nothing and says when the next step can be done.`,
		Example:     `  sakeeper keys rotate --key-dir=/etc/kubernetes/pki/sakeeper`,
		Annotations: map[string]string{options.Chapter: chapter},
		Args:        cobra.NoArgs,
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
		"Let the published key sign now, though verifiers may not have it yet: tokens may be refused for up to --publish-for.")
	fs.BoolVar(&wait, "wait", wait, "Wait until the rotation that was begun is done.")
	fs.StringVar(&flagAlgorithm, "algorithm", flagAlgorithm, "Of new keys: RS256, ES256, ES384 or ES512. Empty: that of the key that signs, and RS256 for the first.")
	options.AddSections(cmd, sections)
	return cmd
}

// rotate does steps until one is not due yet, or the published key signs.
func rotate(ctx context.Context, out io.Writer, o *Options, s rotation.Store, flagAlgorithm string, wait bool) error {
	for promoted := false; ; {
		ring, err := s.Load(ctx)
		if err != nil {
			return err
		}
		step := rotation.PlanRotation(ring, o.clock.Now(), o.settings)
		switch {
		case promoted && slices.Contains([]rotation.Action{rotation.ActionPublish, rotation.ActionPromote, rotation.ActionNone}, step.Action):
			return nil // the next rotation is left to the next run
		case step.Action == rotation.ActionNone && wait && step.Key.State == keys.StatePublished && !step.NotBefore.IsZero():
			fmt.Fprintf(out, "waiting until %s: %s\n", step.NotBefore.UTC().Format(time.RFC3339), step.Reason)
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-o.clock.After(step.NotBefore.Sub(o.clock.Now())):
			}
			continue
		case step.Action == rotation.ActionNone:
			fmt.Fprintf(out, "nothing to do%s: %s\n", formatTime(" before ", step.NotBefore), step.Reason)
			return nil
		}
		if err := applyStep(ctx, out, s, step, algorithm(flagAlgorithm, ring), o.settings); err != nil {
			return err
		}
		// Retiring may be the last step of a rotation that an earlier run began.
		promoted = promoted || slices.Contains([]rotation.Action{rotation.ActionPromote, rotation.ActionFirst, rotation.ActionRetire}, step.Action)
		if step.Action == rotation.ActionPublish {
			o.settings.Force = false // it applies to a key that was published before this run
		}
	}
}
