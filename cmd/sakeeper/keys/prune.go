package keys

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/client-go/kubernetes"
	cliflag "k8s.io/component-base/cli/flag"

	"k8s.io/utils/clock"

	"github.com/sakeeper/sakeeper/cmd/sakeeper/options"
	"github.com/sakeeper/sakeeper/pkg/keys"
	"github.com/sakeeper/sakeeper/pkg/keys/rotation"
)

func newPruneCommand(version string, clock clock.Clock) *cobra.Command {
	o := newOptions(version, clock)
	var id string
	cmd := &cobra.Command{
		Use:   "prune",
		Short: "Remove keys of which no token can be alive",
		Long: `Removes keys of which no token can be alive: those that were retired for longer than
any token of theirs lives, which is 8760h at least unless you say
--service-account-extend-token-expiration=false, and that no token Secret carries. To know the latter, it
asks the API server: give it --kubeconfig. A key that only token Secrets carry
becomes legacy: it verifies, and discovery does not show it.`,
		Example:     `  sakeeper keys prune --key-dir=/etc/kubernetes/pki/sakeeper --kubeconfig=/etc/kubernetes/admin.conf`,
		Annotations: map[string]string{options.Chapter: chapter},
		Args:        cobra.NoArgs,
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
	o.addExtension(fs)
	fs.StringVar(&id, "key", id, "Look at this key alone: the beginning of its id.")
	fs.BoolVar(&o.settings.Force, "force", o.settings.Force,
		"Remove the key of --key, whatever it is needed for, unless it is the one that signs: all its tokens are refused from then on.")
	options.AddSections(cmd, sections)
	return cmd
}

func prune(ctx context.Context, out io.Writer, o *Options, s rotation.Store, client *kubernetes.Clientset, id string) error {
	if err := tidy(ctx, out, o, s); err != nil {
		return err
	}
	ring, carriers, err := loadWithCarriers(ctx, s, client)
	if err != nil {
		return err
	}
	if o.settings.Force {
		return forceRemove(ctx, out, o, s, ring, id)
	}
	steps := rotation.PlanRemovals(ring, o.clock.Now(), carriers, o.settings)
	steps = slices.DeleteFunc(steps, func(step rotation.Step) bool { return id != "" && !strings.HasPrefix(step.Key.ID(), id) })
	switch {
	case len(steps) == 0 && id != "":
		return fmt.Errorf("--key: no key that signs no more has an id that begins with %q", id)
	case len(steps) == 0:
		fmt.Fprintln(out, "nothing to remove: no key was retired")
	}
	for _, step := range steps {
		if step.Action == rotation.ActionNone {
			fmt.Fprintf(out, "key %s: stays%s: %s\n", step.Key.ID(), formatTime(" until ", step.NotBefore), step.Reason)
			continue
		}
		if err := applyStep(ctx, out, s, step, "", o.settings); err != nil {
			return err
		}
	}
	return nil
}

// tidy finishes what an earlier run began: it removes files of states that a key has left, which
// would bring the key back when the file of its present state is removed.
func tidy(ctx context.Context, out io.Writer, o *Options, s rotation.Store) error {
	for {
		ring, err := s.Load(ctx)
		if err != nil {
			return err
		}
		step, ok := rotation.PlanCleanUp(ring)
		if !ok {
			return nil
		}
		if err := applyStep(ctx, out, s, step, "", o.settings); err != nil {
			return err
		}
	}
}

// forceRemove removes the one key whose id begins with id.
func forceRemove(ctx context.Context, out io.Writer, o *Options, s rotation.Store, ring *keys.Keyring, id string) error {
	found := slices.DeleteFunc(ring.Entries(), func(m keys.Entry) bool { return !strings.HasPrefix(m.ID(), id) })
	if len(found) != 1 {
		return fmt.Errorf("--key: %d keys have an id that begins with %q", len(found), id)
	}
	if signing, _ := ring.Signing(); signing.ID() == found[0].ID() {
		return fmt.Errorf("--key: %s signs; rotate first", found[0].ID())
	}
	return applyStep(ctx, out, s, rotation.Step{Action: rotation.ActionRemove, Key: found[0], Reason: "forced"}, "", o.settings)
}

// formatTime returns word and the time, or nothing if the time is zero.
func formatTime(word string, t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return word + t.UTC().Format(time.RFC3339)
}
