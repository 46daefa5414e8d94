package reach

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strconv"

	"github.com/sakeeper/sakeeper/cmd/kubectl-sakeeper/printer"
	"github.com/sakeeper/sakeeper/pkg/inventory/collect"
	"github.com/sakeeper/sakeeper/pkg/inventory/reach"
)

// listed is an account in the list.
type listed struct {
	reach.Result

	Namespace string `json:"namespace"`
	Name      string `json:"name"`
}

// list lists the accounts, those with the widest reach first.
func (c *command) list(ctx context.Context) error {
	result, err := c.Collect(ctx, collect.Config{ReachOnly: true}, c.all)
	if err != nil {
		return err
	}
	accounts := []listed{}
	for _, account := range result.RBAC.Accounts {
		if result.Namespace == "" || account.Namespace == result.Namespace {
			accounts = append(accounts, listed{result.Policy.Reach(account), account.Namespace, account.Name})
		}
	}
	slices.SortStableFunc(accounts, func(a, b listed) int {
		return cmp.Or(cmp.Compare(b.Level, a.Level), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	table := printer.Table{
		Columns: []printer.Column{
			{Name: "Namespace", Wide: !c.all, Dispensable: 1}, {Name: "Account"}, {Name: "Reach"}, {Name: "Because it", Dispensable: 2}, {Name: "More", Wide: true, Dispensable: 3},
		},
		Document: struct {
			Accounts []listed          `json:"accounts"`
			Missing  []collect.Missing `json:"missing,omitempty"`
		}{accounts, result.Missing},
	}
	for _, a := range accounts {
		row := []string{a.Namespace, a.Name, a.Level.String(), "", ""}
		if len(a.Findings) > 0 {
			row[3] = a.Findings[0].Text + ", " + where(a.Findings[0].Namespace)
			row[4] = strconv.Itoa(len(a.Findings) - 1)
		}
		table.Rows = append(table.Rows, row)
	}
	return errors.Join(table.Write(c.Out, c.format, c.Width), c.PrintMissing(result))
}
