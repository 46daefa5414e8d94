// Package tokens is the subcommand that lists the tokens in Secrets.
package tokens

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/sakeeper/sakeeper/cmd/kubectl-sakeeper/options"
	"github.com/sakeeper/sakeeper/cmd/kubectl-sakeeper/printer"
	"github.com/sakeeper/sakeeper/pkg/inventory"
	"github.com/sakeeper/sakeeper/pkg/inventory/collect"
	"github.com/sakeeper/sakeeper/pkg/inventory/reach"
)

type command struct {
	*options.Options

	selection Selection
	format    printer.Format
	failOn    string
}

// NewCommand makes the command.
func NewCommand(o *options.Options) *cobra.Command {
	c := &command{Options: o}
	cmd := &cobra.Command{
		Use:   "tokens",
		Short: "List the tokens in Secrets: who uses each, and what could be done with it",
		Long: `Lists the tokens in Secrets of type kubernetes.io/service-account-token and in
managed Secrets, and with --deep in all Secrets: first those that are alive, with
the widest reach.`,
		Example: `  # All of the cluster
  kubectl sakeeper tokens -A

  # In a pipeline: exit code 2 if a token can become cluster-admin
  kubectl sakeeper tokens -A --fail-on=can-become-admin`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.run(cmd.Context()) },
	}
	c.selection.AddFlags(cmd)
	c.format.AddFlag(cmd)
	cmd.Flags().StringVar(&c.failOn, "fail-on", "",
		"Exit with code 2 if a token that is alive has this reach or a wider one, or if its reach is unknown: admin, can-become-admin, secrets, write, read.")
	return cmd
}

func (c *command) run(ctx context.Context) error {
	failOn, err := parseFailOn(c.failOn)
	if err != nil {
		return err
	}
	result, err := c.selection.Collect(ctx, c.Options)
	if err != nil {
		return err
	}
	found := inventory.Find(result.Objects)
	if err := NewTable(result, found, c.selection.AllNamespaces).Write(c.Out, c.format, c.Width); err != nil {
		return err
	}
	return errors.Join(c.PrintMissing(result), failure(found, result, failOn))
}

func parseFailOn(text string) (reach.Level, error) {
	if text == "" {
		return reach.Unknown, nil
	}
	level, err := reach.ParseLevel(text)
	if err == nil && level <= reach.Nothing {
		err = fmt.Errorf("%q is the reach of every token", text)
	}
	if err != nil {
		return level, fmt.Errorf("--fail-on: %w", err)
	}
	return level, nil
}

// failure returns an error if tokens that are alive reach as far as level.
func failure(found []inventory.Token, result *collect.Result, level reach.Level) error {
	if level == reach.Unknown {
		return nil
	}
	reached, unknown := 0, 0
	for i := range found {
		switch {
		case !found[i].Verdict.Alive():
		case found[i].Reach >= level:
			reached++
		case found[i].Reach == reach.Unknown:
			unknown++
		}
	}
	switch {
	case reached > 0:
		return &options.FoundError{Text: fmt.Sprintf("%d tokens have the reach %q or a wider one", reached, level)}
	case unknown > 0:
		return &options.FoundError{Text: fmt.Sprintf("the reach of %d tokens is unknown", unknown)}
	case result.TokensMissing():
		return &options.FoundError{Text: "not all tokens could be read"}
	}
	return nil
}

// Document is what -o json prints.
type Document struct {
	// GeneratedAt is when the objects were read.
	GeneratedAt time.Time `json:"generatedAt"`
	// Namespace is the only one whose Secrets were read; empty for all.
	Namespace string            `json:"namespace,omitempty"`
	Tokens    []inventory.Token `json:"tokens"`
	// Missing is what could not be read.
	Missing []collect.Missing `json:"missing,omitempty"`
}

// NewTable returns the table of tokens.
func NewTable(result *collect.Result, found []inventory.Token, namespaces bool) printer.Table {
	table := printer.Table{
		Columns: []printer.Column{
			{Name: "Namespace", Wide: !namespaces, Dispensable: 1}, {Name: "Secret"}, {Name: "Account", Dispensable: 3}, {Name: "Kind", Dispensable: 5},
			{Name: "Age", Dispensable: 6}, {Name: "Expires", Dispensable: 7}, {Name: "Last used", Dispensable: 4}, {Name: "Verdict", Dispensable: 2}, {Name: "Reach"},
			{Name: "Used by", Dispensable: 8},
			{Name: "Data key", Wide: true, Dispensable: 9}, {Name: "Key id", Wide: true, Dispensable: 11}, {Name: "Key published", Wide: true, Dispensable: 10},
			{Name: "Invalid since", Wide: true, Dispensable: 12}, {Name: "Given by", Wide: true, Dispensable: 13},
		},
		Document: Document{GeneratedAt: result.Now.UTC(), Namespace: result.Namespace, Tokens: found, Missing: result.Missing},
	}
	for i := range found {
		t := &found[i]
		table.Rows = append(table.Rows, []string{
			t.Namespace, t.Secret, account(t), string(t.Kind), age(result.Now.Sub(t.Created)), expires(t, result.Now), t.LastUsed, string(t.Verdict),
			t.Reach.String(), UsedBy(t), t.DataKey, t.KeyID, string(t.KeyPublished), t.InvalidSince, GivenBy(t),
		})
	}
	return table
}

// account is without its namespace where that is the one of the Secret.
func account(t *inventory.Token) string {
	if t.Account.Namespace == t.Namespace {
		return t.Account.Name
	}
	return t.Account.Namespace + "/" + t.Account.Name
}

func age(d time.Duration) string { return duration.HumanDuration(max(d, 0)) }

func expires(t *inventory.Token, now time.Time) string {
	switch {
	case t.Expires == nil:
		return "never"
	case t.Expires.Before(now):
		return age(now.Sub(*t.Expires)) + " ago"
	default:
		return "in " + age(t.Expires.Sub(now))
	}
}

// UsedBy names the workloads and accounts that refer to the Secret of a token.
func UsedBy(t *inventory.Token) string {
	var names []string
	for _, user := range t.UsedBy {
		name := user.String()
		if user.Pods > 1 {
			name += " (" + strconv.Itoa(user.Pods) + " pods)"
		}
		names = append(names, name)
	}
	if t.UsedByUnknown {
		names = append(names, string(inventory.Unknown))
	}
	if len(names) > 3 {
		names = append(names[:2], strconv.Itoa(len(names)-2)+" more")
	}
	return strings.Join(names, ", ")
}

// GivenBy names the bindings that give the reach.
func GivenBy(t *inventory.Token) string {
	if len(t.Why) == 0 {
		return ""
	}
	var names []string
	for _, grant := range t.Why[0].Grants {
		names = append(names, grant.String())
	}
	return strings.Join(names, ", ")
}
