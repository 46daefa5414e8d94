// Package policies is the subcommand that prints admission policies. They are made by
// [github.com/sakeeper/sakeeper/pkg/policy].
package policies

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sakeeper/sakeeper/cmd/sakeeper/options"
	"github.com/sakeeper/sakeeper/pkg/policy"
)

// NewCommand makes the command.
func NewCommand() *cobra.Command {
	o := newOptions()
	cmd := &cobra.Command{
		Use:   "policies NAME...",
		Short: "Print admission policies, which API servers evaluate without a webhook",
		Long: `Prints admission policies, which API servers evaluate themselves: no process, no
certificate and no rights are needed, and 'kubectl apply -f -' installs them. The
policies are ` + strings.Join(policy.Names(), ", ") + `.
With the default settings, they are those of manifests/components/policies. Nothing is
printed if a setting is wrong. Apply does not remove what is printed no more.`,
		Example:     `  sakeeper policies secret-references --secret-reference-mode=warn | kubectl apply -f -`,
		Annotations: map[string]string{options.Chapter: "cmd/sakeeper/policies.md"},
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("say which policies to print: " + strings.Join(policy.Names(), ", "))
			}
			return nil // Generate knows the names
		},
		ValidArgs: policy.Names(),
		RunE:      func(cmd *cobra.Command, args []string) error { return o.print(cmd.OutOrStdout(), args) },
	}
	options.AddSections(cmd, o.sections())
	return cmd
}

// print prints the policies of those names, or nothing if one cannot be made.
func (o *Options) print(out io.Writer, names []string) error {
	version, err := policy.ParseVersion(o.version)
	if err != nil {
		err = fmt.Errorf("--for-version: %w", err)
		version = policy.Newest() // for the other errors
	}
	objects, failed := policy.Generate(names, version, o.settings)
	if err := errors.Join(err, failed); err != nil {
		return err
	}
	var text bytes.Buffer
	if err := policy.Write(&text, objects); err != nil {
		return err
	}
	_, err = text.WriteTo(out)
	return err
}
