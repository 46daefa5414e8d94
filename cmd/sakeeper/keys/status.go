package keys

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/util/duration"
	cliflag "k8s.io/component-base/cli/flag"

	"k8s.io/utils/clock"

	"github.com/sakeeper/sakeeper/cmd/sakeeper/options"
	"github.com/sakeeper/sakeeper/pkg/keys"
	"github.com/sakeeper/sakeeper/pkg/keys/rotation"
)

func newStatusCommand(version string, clock clock.Clock) *cobra.Command {
	o := newOptions(version, clock)
	output := "table"
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the keys with their states, and the earliest safe next step of each",
		Long: `Shows the keys with their states, since when they have them, how many token Secrets
carry a token of each (with --kubeconfig or --secret), and the earliest safe next
step of each. It changes nothing.`,
		Example:     `  sakeeper keys status --key-dir=/etc/kubernetes/pki/sakeeper --kubeconfig=/etc/kubernetes/admin.conf`,
		Annotations: map[string]string{options.Chapter: chapter},
		Args:        cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if output != "table" && output != "json" {
				return fmt.Errorf("--output: %q is not one of table, json", output)
			}
			store, client, err := o.open()
			if err != nil {
				return err
			}
			ring, carriers, err := loadWithCarriers(cmd.Context(), store, client)
			if err != nil {
				return err
			}
			lines := statusOf(ring, o.clock.Now(), carriers, o.settings)
			if output == "json" {
				encoder := json.NewEncoder(cmd.OutOrStdout())
				encoder.SetIndent("", "  ")
				return encoder.Encode(lines)
			}
			return printStatus(cmd.OutOrStdout(), lines, o.clock.Now())
		},
	}
	sections := &cliflag.NamedFlagSets{}
	fs := sections.FlagSet("keys")
	o.addFlags(fs)
	o.addExtension(fs)
	o.addWaits(fs)
	fs.DurationVar(&o.settings.RotateAfter, "rotate-after", o.settings.RotateAfter, "How long a key signs before the next one is published.")
	fs.StringVarP(&output, "output", "o", output, "table or json.")
	options.AddSections(cmd, sections)
	return cmd
}

// keyStatus is a line of 'sakeeper keys status'.
type keyStatus struct {
	ID        string    `json:"id"`
	Algorithm string    `json:"algorithm"`
	State     string    `json:"state"`
	Since     time.Time `json:"since"`
	// Signs is true for the newest key in the state signing.
	Signs bool `json:"signs"`
	// Secrets is nil if the API server was not asked.
	Secrets *int `json:"tokenSecrets,omitempty"`
	// Next is the next step. Reason says why it is due, or why there is none.
	Next      rotation.Action `json:"next"`
	NotBefore *time.Time      `json:"notBefore,omitempty"`
	Reason    string          `json:"reason"`
}

// statusOf returns a line per key. It is a pure function.
func statusOf(ring *keys.Keyring, now time.Time, carriers rotation.TokenSecretCounts, s rotation.Settings) []keyStatus {
	rotate := rotation.PlanRotation(ring, now, s)
	signing, _ := ring.Signing()
	lines := []keyStatus{}
	for _, m := range ring.Entries() {
		step := rotation.PlanRemoval(ring, m, now, carriers, s)
		switch {
		case rotate.Key.ID() == m.ID():
			step = rotate
		case m.ID() == signing.ID() && rotate.Action == rotation.ActionPublish:
			step = rotate
		}
		line := keyStatus{
			ID: m.ID(), Algorithm: string(m.Public().Algorithm()), State: string(m.State), Since: m.Since, Signs: m.ID() == signing.ID(),
			Next: step.Action, Reason: step.Reason,
		}
		if carriers != nil {
			count := carriers[m.ID()]
			line.Secrets = &count
		}
		if !step.NotBefore.IsZero() {
			at := step.NotBefore.UTC()
			line.NotBefore = &at
		}
		lines = append(lines, line)
	}
	return lines
}

func printStatus(out io.Writer, lines []keyStatus, now time.Time) error {
	if len(lines) == 0 {
		_, err := fmt.Fprintln(out, "there is no key: 'sakeeper keys rotate' makes the first, 'sakeeper keys import' brings one that exists")
		return err
	}
	table := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(table, "KEY\tALGORITHM\tSTATE\tSINCE\tTOKEN SECRETS\tNEXT STEP")
	for _, line := range lines {
		secrets, next := "?", string(line.Next)+" now"
		if line.Secrets != nil {
			secrets = strconv.Itoa(*line.Secrets)
		}
		switch {
		case line.NotBefore != nil:
			next = "not before " + line.NotBefore.Format(time.RFC3339)
		case line.Next == rotation.ActionNone:
			next = "-"
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s ago\t%s\t%s: %s\n", line.ID[:16], line.Algorithm, line.State, duration.HumanDuration(now.Sub(line.Since)), secrets, next, line.Reason)
	}
	return table.Flush()
}
