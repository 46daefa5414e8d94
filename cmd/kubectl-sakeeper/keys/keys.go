// Package keys is the subcommand that counts the tokens of each key that the API server publishes.
package keys

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/sakeeper/sakeeper/cmd/kubectl-sakeeper/options"
	"github.com/sakeeper/sakeeper/cmd/kubectl-sakeeper/printer"
	"github.com/sakeeper/sakeeper/pkg/inventory"
	"github.com/sakeeper/sakeeper/pkg/inventory/collect"
)

// NewCommand makes the command.
func NewCommand(o *options.Options) *cobra.Command {
	var format printer.Format
	var deep bool
	cmd := &cobra.Command{
		Use:   "keys",
		Short: "Show which keys the API server publishes, and how many tokens hang on each",
		Long: `Shows the signing keys that the API server publishes (/openid/v1/jwks), and those
that tokens in Secrets name, with the number of tokens of each, in all namespaces.

Tokens of pods are not in Secrets, and are not counted: they live an hour, or with
clients that do not renew them, a year at most.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return run(cmd.Context(), o, deep, format) },
	}
	cmd.Flags().BoolVar(&deep, "deep", false, "Count tokens in every Secret, of any type and under any key.")
	format.AddFlag(cmd)
	return cmd
}

// key is what is known about a signing key.
type key struct {
	// ID is the kid of tokens; empty for tokens that name none.
	ID        string           `json:"id"`
	Algorithm string           `json:"algorithm,omitempty"`
	Published inventory.Answer `json:"published"`
	// Tokens is how many tokens in Secrets have it, NeverExpire how many of them are alive and do
	// not expire, InUse how many of these are known to be used, and Expiring how many expire.
	Tokens      int `json:"tokens"`
	NeverExpire int `json:"neverExpire"`
	InUse       int `json:"inUse"`
	Expiring    int `json:"expiring"`
	// Conclusion says whether the key is needed.
	Conclusion string `json:"conclusion"`
}

func run(ctx context.Context, o *options.Options, deep bool, format printer.Format) error {
	result, err := o.Collect(ctx, collect.Config{Deep: deep}, true)
	if err != nil {
		return err
	}
	result.UnusedAfter = inventory.DefaultUnusedAfter
	keys := count(result)
	table := printer.Table{
		Columns: []printer.Column{
			{Name: "Key id"}, {Name: "Algorithm", Dispensable: 5}, {Name: "Published", Dispensable: 4}, {Name: "Tokens"}, {Name: "Never expire", Dispensable: 2},
			{Name: "In use", Dispensable: 3}, {Name: "Expiring", Dispensable: 3}, {Name: "Conclusion", Dispensable: 1},
		},
		Document: struct {
			Keys    []key             `json:"keys"`
			Missing []collect.Missing `json:"missing,omitempty"`
		}{keys, result.Missing},
	}
	for _, k := range keys {
		table.Rows = append(table.Rows, []string{
			cmp.Or(k.ID, "none"), k.Algorithm, string(k.Published), strconv.Itoa(k.Tokens), strconv.Itoa(k.NeverExpire), strconv.Itoa(k.InUse), strconv.Itoa(k.Expiring), k.Conclusion,
		})
	}
	return errors.Join(table.Write(o.Out, format, o.Width), o.PrintMissing(result))
}

// count returns the published keys, in the order of the API server, and then the others.
func count(result *collect.Result) []key {
	var keys []key
	find := func(id string) *key {
		i := slices.IndexFunc(keys, func(k key) bool { return k.ID == id })
		if i < 0 {
			published := inventory.No
			if result.Published == nil {
				published = inventory.Unknown
			}
			keys, i = append(keys, key{ID: id, Published: published}), len(keys)
		}
		return &keys[i]
	}
	if result.Published != nil {
		for _, public := range result.Published.Verification() {
			keys = append(keys, key{ID: public.ID(), Algorithm: string(public.Algorithm()), Published: inventory.Yes})
		}
	}
	for _, t := range inventory.Find(result.Objects) {
		k := find(t.KeyID)
		k.Tokens++
		switch {
		case !t.Verdict.Alive():
		case t.Expires != nil:
			k.Expiring++
		default:
			k.NeverExpire++
			if t.Verdict == inventory.InUse {
				k.InUse++
			}
		}
	}
	published := 0
	for _, k := range keys {
		if k.Published == inventory.Yes {
			published++
		}
	}
	for i := range keys {
		keys[i].Conclusion = conclude(keys[i], published, result.TokensMissing())
	}
	return keys
}

// conclude says whether the API server needs a key. published is how many keys it publishes.
func conclude(k key, published int, incomplete bool) string {
	switch {
	case k.Published == inventory.Unknown:
		return "unknown: the published keys could not be read"
	case k.Published == inventory.No && k.ID == "":
		return "these tokens name no key, and no published key verifies them"
	case k.Published == inventory.No:
		return "not published: its tokens are dead, unless the API server has it without publishing it"
	case incomplete:
		return "unknown: not all token Secrets could be read"
	case k.InUse > 0:
		return fmt.Sprintf("needed: %d tokens in use hang on it", k.InUse)
	case k.NeverExpire > 0:
		return fmt.Sprintf("needed, if one of %d tokens that never expire is used", k.NeverExpire)
	case k.Expiring > 0:
		return fmt.Sprintf("needed until %d tokens have expired", k.Expiring)
	case published == 1:
		return "the only key: it signs"
	default:
		return "no token in a Secret needs it; if it does not sign, it can go when the tokens of pods have expired"
	}
}
