package tokens

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"

	"github.com/sakeeper/sakeeper/cmd/kubectl-sakeeper/options"
	"github.com/sakeeper/sakeeper/pkg/inventory"
	"github.com/sakeeper/sakeeper/pkg/inventory/collect"
)

// Selection are the flags that say which tokens are looked for.
type Selection struct {
	AllNamespaces bool
	deep          bool
	unusedAfter   time.Duration
}

// AddFlags adds the flags.
func (s *Selection) AddFlags(cmd *cobra.Command) {
	cmd.Flags().BoolVarP(&s.AllNamespaces, "all-namespaces", "A", false, "Look at all namespaces.")
	cmd.Flags().BoolVar(&s.deep, "deep", false,
		"Look for tokens in every Secret, of any type and under any key, also in kubeconfigs and in the clusters of Argo CD.")
	cmd.Flags().DurationVar(&s.unusedAfter, "unused-after", inventory.DefaultUnusedAfter, "How long a token must not have been used to count as unused.")
}

// Collect reads what the flags ask for.
func (s *Selection) Collect(ctx context.Context, o *options.Options) (*collect.Result, error) {
	if s.unusedAfter < 24*time.Hour {
		return nil, errors.New("--unused-after: must be at least 24h, because uses are recorded once a day")
	}
	result, err := o.Collect(ctx, collect.Config{Deep: s.deep}, s.AllNamespaces)
	if err != nil {
		return nil, err
	}
	result.UnusedAfter = s.unusedAfter
	return result, nil
}
