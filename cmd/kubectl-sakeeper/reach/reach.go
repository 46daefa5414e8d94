// Package reach is the subcommand that explains what an account may do.
package reach

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/sakeeper/sakeeper/cmd/kubectl-sakeeper/options"
	"github.com/sakeeper/sakeeper/cmd/kubectl-sakeeper/printer"
	"github.com/sakeeper/sakeeper/pkg/inventory/collect"
	"github.com/sakeeper/sakeeper/pkg/inventory/reach"
)

type command struct {
	*options.Options

	all    bool
	format printer.Format
}

// NewCommand makes the command.
func NewCommand(o *options.Options) *cobra.Command {
	c := &command{Options: o}
	cmd := &cobra.Command{
		Use:   "reach [ACCOUNT]",
		Short: "Explain what a ServiceAccount may do by RBAC, and which bindings give it",
		Long: `Explains what a ServiceAccount may do by RBAC, line by line, with the bindings that
give it. Without an account, lists the accounts with their reach.

Only RBAC is judged. Other authorizers of the API server are named, as far as it
says which it has.`,
		Example: `  kubectl sakeeper reach deployer -n ci
  kubectl sakeeper reach ci/deployer
  kubectl sakeeper reach system:serviceaccount:ci:deployer
  kubectl sakeeper reach -A`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return c.run(cmd.Context(), args) },
	}
	cmd.Flags().BoolVarP(&c.all, "all-namespaces", "A", false, "Without an account: list those of all namespaces.")
	c.format.AddFlag(cmd)
	return cmd
}

func (c *command) run(ctx context.Context, args []string) error {
	namespace, err := c.Namespace()
	if err != nil {
		return err
	}
	if len(args) == 0 {
		return c.list(ctx)
	}
	account, err := parseAccount(args[0], namespace)
	if err != nil {
		return err
	}
	result, err := c.Collect(ctx, collect.Config{ReachOnly: true}, true)
	if err != nil {
		return err
	}
	explained := c.explain(ctx, result, account)
	switch c.format {
	case printer.JSON, printer.YAML:
		err = printer.Table{Document: explained}.Write(c.Out, c.format, 0)
	case printer.CSV:
		err = findings(explained).Write(c.Out, c.format, 0)
	default:
		err = explained.write(c.Out)
	}
	return errors.Join(err, c.PrintMissing(result))
}

// parseAccount reads "name", "namespace/name" or the user name of an account.
func parseAccount(text, namespace string) (reach.Account, error) {
	account := reach.Account{Namespace: namespace, Name: text}
	if user, ok := strings.CutPrefix(text, "system:serviceaccount:"); ok {
		account.Namespace, account.Name, _ = strings.Cut(user, ":")
	} else if before, after, ok := strings.Cut(text, "/"); ok {
		account = reach.Account{Namespace: before, Name: after}
	}
	if account.Namespace == "" || account.Name == "" || strings.ContainsAny(account.Name, "/:") {
		return account, fmt.Errorf("%q is not an account: want NAME, NAMESPACE/NAME or system:serviceaccount:NAMESPACE:NAME", text)
	}
	return account, nil
}

// explanation is what is known about an account.
type explanation struct {
	reach.Result

	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	// Exists is false if there is no such account: its bindings would hold for one of that name.
	Exists bool    `json:"exists"`
	Grants []grant `json:"grants"`
	// OtherAuthorizers is what the API server says about authorizers that have no rules to read.
	OtherAuthorizers string            `json:"otherAuthorizers,omitempty"`
	Missing          []collect.Missing `json:"missing,omitempty"`
}

type grant struct {
	reach.Grant

	Rules []rbacv1.PolicyRule `json:"rules"`
}

func (c *command) explain(ctx context.Context, result *collect.Result, account reach.Account) explanation {
	e := explanation{
		Namespace: account.Namespace, Name: account.Name, Exists: result.Unread.Accounts || slices.Contains(result.RBAC.Accounts, account),
		Result: result.Policy.Reach(account), Missing: result.Missing, Grants: []grant{},
	}
	for _, g := range result.Policy.Grants(account) {
		e.Grants = append(e.Grants, grant{g, g.Rules})
	}
	if clients, err := c.Clients(); err == nil {
		e.OtherAuthorizers = collect.OtherAuthorizers(ctx, clients)
	}
	return e
}

func (e explanation) write(w io.Writer) error {
	var text strings.Builder
	fmt.Fprintf(&text, "Account:  %s/%s\n", e.Namespace, e.Name)
	if !e.Exists {
		text.WriteString("          does not exist: this is what one of that name could do\n")
	}
	fmt.Fprintf(&text, "Reach:    %s\n", e.Level)
	for _, f := range e.Findings {
		fmt.Fprintf(&text, "\n%s: %s, %s (%s)\n", f.Level, f.Text, where(f.Namespace), f.Reason)
		for _, g := range f.Grants {
			fmt.Fprintf(&text, "  by %s to %s\n", g, g.Subject)
		}
	}
	text.WriteString("\nRules:\n")
	for _, g := range e.Grants {
		fmt.Fprintf(&text, "  %s to %s\n", g.Grant, g.Subject)
		if len(g.Rules) == 0 {
			text.WriteString("    none: the role does not exist, or is empty\n")
		}
		for i := range g.Rules {
			fmt.Fprintf(&text, "    %s\n", describe(&g.Rules[i]))
		}
	}
	if e.OtherAuthorizers != "" {
		fmt.Fprintf(&text, "\nOther authorizers may allow more; the API server says: %s\n", e.OtherAuthorizers)
	}
	_, err := io.WriteString(w, text.String())
	return err
}

func where(namespace string) string {
	if namespace == "" {
		return "in the whole cluster"
	}
	return "in namespace " + namespace
}

// describe returns a rule in one line, as "get, list: pods, deployments.apps [one]".
func describe(rule *rbacv1.PolicyRule) string {
	objects := slices.Clone(rule.NonResourceURLs)
	for _, resource := range rule.Resources {
		for _, group := range rule.APIGroups {
			name, subresource, found := strings.Cut(resource, "/")
			if group != "" {
				name += "." + group
			}
			if found {
				name += "/" + subresource
			}
			objects = append(objects, name)
		}
	}
	text := strings.Join(rule.Verbs, ", ") + ": " + strings.Join(objects, ", ")
	if len(rule.ResourceNames) > 0 {
		text += " [" + strings.Join(rule.ResourceNames, ", ") + "]"
	}
	return text
}

// findings are the rows of the format csv.
func findings(e explanation) printer.Table {
	table := printer.Table{Columns: []printer.Column{{Name: "Level"}, {Name: "Reason"}, {Name: "Text"}, {Name: "Namespace"}, {Name: "Given by"}}}
	for _, f := range e.Findings {
		var grants []string
		for _, g := range f.Grants {
			grants = append(grants, g.String())
		}
		table.Rows = append(table.Rows, []string{f.Level.String(), f.Reason, f.Text, f.Namespace, strings.Join(grants, ", ")})
	}
	return table
}
