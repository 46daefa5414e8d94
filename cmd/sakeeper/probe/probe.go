// Package probe is the subcommand that asks a running server for its probes.
package probe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"
	cliflag "k8s.io/component-base/cli/flag"

	"github.com/sakeeper/sakeeper/cmd/sakeeper/options"
)

// timeout is how long a probe may take.
const timeout = 5 * time.Second

// NewCommand makes the command.
func NewCommand() *cobra.Command {
	address := "127.0.0.1:8081"
	cmd := &cobra.Command{
		Use:   "probe [livez|readyz]",
		Short: "Ask a running server whether it is alive or ready, for exec probes",
		Long: `Asks a running server of sakeeper for /readyz (or /livez), prints the answer, and fails
if that is not 200. For the exec probes of pods whose image has nothing but sakeeper.`,
		Example:     `  sakeeper probe livez --address=unix:/run/sakeeper/probes.sock`,
		Annotations: map[string]string{options.Chapter: "cmd/sakeeper/webhook.md"},
		Args:        cobra.MatchAll(cobra.MaximumNArgs(1), cobra.OnlyValidArgs),
		ValidArgs:   []string{"livez", "readyz"},
		RunE: func(cmd *cobra.Command, args []string) error {
			path := "readyz"
			if len(args) > 0 {
				path = args[0]
			}
			return probe(cmd.Context(), cmd.OutOrStdout(), address, path)
		},
	}
	sections := &cliflag.NamedFlagSets{}
	sections.FlagSet("probe").StringVar(&address, "address", address,
		"Where the server answers, as host:port or unix:PATH: its --health-probe-bind-address.")
	options.AddSections(cmd, sections)
	return cmd
}

func probe(ctx context.Context, stdout io.Writer, address, path string) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	host := address
	if socket, ok := strings.CutPrefix(address, options.UnixPrefix); ok {
		host = "localhost"
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		}
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+host+"/"+path, nil)
	if err != nil {
		return fmt.Errorf("--address: %w", err)
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return fmt.Errorf("no answer at %s: %w", address, err)
	}
	_, err = io.Copy(stdout, io.LimitReader(response.Body, 64<<10))
	if err = errors.Join(err, response.Body.Close()); err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("/%s: %s", path, response.Status)
	}
	return err
}
