// Package inspect is the subcommand that decodes and explains a token.
package inspect

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sakeeper/sakeeper/cmd/kubectl-sakeeper/options"
	"github.com/sakeeper/sakeeper/cmd/kubectl-sakeeper/printer"
	"github.com/sakeeper/sakeeper/pkg/inventory/collect"
	"github.com/sakeeper/sakeeper/pkg/keys"
)

// maxInput bounds what is read: a kubeconfig with many users.
const maxInput = 16 << 20

type command struct {
	*options.Options

	review, offline bool
	format          printer.Format
}

// NewCommand makes the command.
func NewCommand(o *options.Options) *cobra.Command {
	c := &command{Options: o}
	cmd := &cobra.Command{
		Use:   "inspect [FILE|-]",
		Short: "Decode and explain the tokens in a file, such as a kubeconfig",
		Long: `Decodes the tokens in a file (a token, a kubeconfig, or any text with tokens in it)
or in the standard input, and says of each: its kind, issuer, audiences and times,
what it is bound to, and whether a key that the API server publishes verifies it.
The token itself is not printed, and not sent anywhere without --review.`,
		Example: `  kubectl sakeeper inspect ~/.kube/config
  kubectl get secret ci -o yaml | kubectl sakeeper inspect`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return c.run(cmd.Context(), args) },
	}
	cmd.Flags().BoolVar(&c.review, "review", false,
		"Ask the API server whether it accepts each token. It counts as a use: the API server records it for a legacy token.")
	cmd.Flags().BoolVar(&c.offline, "offline", false, "Make no request: the signature is not verified.")
	c.format.AddFlag(cmd)
	return cmd
}

func (c *command) run(ctx context.Context, args []string) error {
	if c.review && c.offline {
		return errors.New("--review and --offline exclude each other")
	}
	text, err := c.read(args)
	if err != nil {
		return err
	}
	now := c.Clock()
	var set *keys.Set
	var missing error
	if !c.offline {
		set, missing = c.published(ctx)
	}
	var all []explanation
	var unanswered error
	for _, compact := range find(text) {
		e := explain(compact, set, now)
		if c.review && unanswered == nil {
			e.Review, unanswered = c.ask(ctx, compact, len(all) == 0)
		}
		all = append(all, e)
	}
	if len(all) == 0 {
		return errors.New("no token found")
	}
	switch c.format {
	case printer.JSON, printer.YAML:
		err = printer.Table{Document: document{all}}.Write(c.Out, c.format, 0)
	case printer.CSV:
		return errors.New("-o csv: tokens have lists, which csv cannot hold; use json")
	default:
		err = write(c.Out, all, now)
	}
	return errors.Join(err, missing, unanswered)
}

func (c *command) read(args []string) ([]byte, error) {
	input := c.In
	if len(args) == 1 && args[0] != "-" {
		file, err := os.Open(args[0])
		if err != nil {
			return nil, err
		}
		defer file.Close()
		input = file
	}
	text, err := io.ReadAll(io.LimitReader(input, maxInput+1))
	if err == nil && len(text) > maxInput {
		err = fmt.Errorf("the input is larger than %d MiB", maxInput>>20)
	}
	return text, err
}

var (
	// jwt finds JWTs in any text.
	jwt = regexp.MustCompile(`eyJ[\w-]*\.[\w-]+\.[\w-]*`)
	// encoded finds what may be a JWT in base64, as in the data of a Secret that kubectl printed.
	encoded = regexp.MustCompile(`ZXlK[A-Za-z0-9+/]+=*`)
)

// find returns the tokens in a text, each once.
func find(text []byte) []string {
	var found []string
	add := func(text []byte) {
		for _, match := range jwt.FindAll(text, -1) {
			if compact := string(match); !slices.Contains(found, compact) {
				found = append(found, compact)
			}
		}
	}
	add(text)
	for _, match := range encoded.FindAll(text, -1) {
		if decoded, err := base64.StdEncoding.DecodeString(string(match)); err == nil {
			add(decoded)
		}
	}
	return found
}

// published returns the keys of the API server; nil if they cannot be read, with the reason.
func (c *command) published(ctx context.Context) (*keys.Set, error) {
	clients, err := c.Clients()
	if err != nil {
		return nil, fmt.Errorf("the signature was not verified: %w", err)
	}
	set, err := collect.Published(ctx, clients)
	if err != nil {
		return nil, fmt.Errorf("the signature was not verified: reading the keys of the API server: %w", err)
	}
	return set, nil
}

// review is the answer of the API server.
type review struct {
	Accepted bool   `json:"accepted"`
	User     string `json:"user,omitempty"`
	Error    string `json:"error,omitempty"`
}

// ask asks the API server about a token, and says before the first that this is a use of it.
func (c *command) ask(ctx context.Context, compact string, first bool) (*review, error) {
	if first {
		fmt.Fprintln(c.ErrOut, "Asking the API server, which counts as a use of the token.")
	}
	clients, err := c.Clients()
	if err != nil {
		return nil, err
	}
	answer, err := clients.AuthenticationV1().TokenReviews().Create(ctx, &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: compact}}, metav1.CreateOptions{})
	if err != nil {
		return nil, fmt.Errorf("asking the API server: %w", err)
	}
	// The text of a refusal is the API server's: it may quote anything.
	refusal := answer.Status.Error
	if strings.Contains(refusal, compact) {
		refusal = "refused"
	}
	return &review{answer.Status.Authenticated, answer.Status.User.Username, refusal}, nil
}
