package main

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

	"github.com/sakeeper/sakeeper/pkg/keys"
	"github.com/sakeeper/sakeeper/pkg/keys/rotation"
)

// algorithm is what --algorithm says, else that of the key that signs, so that a rotation
// changes nothing else.
func algorithm(flag string, ring *keys.Keyring) jose.SignatureAlgorithm {
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
		step := rotation.PlanRotation(ring, o.clock.Now(), o.settings)
		switch {
		case promoted && slices.Contains([]rotation.Action{rotation.ActionPublish, rotation.ActionPromote, rotation.ActionNone}, step.Action):
			return nil // the next rotation is another command's
		case step.Action == rotation.ActionNone && wait && step.Key.State == keys.StatePublished && !step.NotBefore.IsZero():
			fmt.Fprintf(out, "waiting until %s: %s\n", step.NotBefore.UTC().Format(time.RFC3339), step.Reason)
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-o.clock.After(step.NotBefore.Sub(o.clock.Now())):
			}
			continue
		case step.Action == rotation.ActionNone:
			fmt.Fprintf(out, "nothing to do%s: %s\n", when(" before ", step.NotBefore), step.Reason)
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
