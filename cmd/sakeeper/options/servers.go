package options

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"

	"github.com/sakeeper/sakeeper/pkg/kube"
)

// UnixPrefix begins the address of a unix socket.
const UnixPrefix = "unix:"

// Servers are the addresses of the HTTP servers for metrics and for probes; "0" is off.
type Servers struct {
	Metrics, Probes string
	// Shared allows other processes of the host to listen on the same ports.
	Shared bool
}

// NewServers returns the defaults.
func NewServers() *Servers { return &Servers{Metrics: ":8080", Probes: ":8081"} }

// AddFlags adds the flags for both addresses to fs.
func (o *Servers) AddFlags(fs *pflag.FlagSet) {
	fs.StringVar(&o.Metrics, "metrics-bind-address", o.Metrics,
		"Address of the HTTP server for /metrics, as [host]:port. 0: off.")
	fs.StringVar(&o.Probes, "health-probe-bind-address", o.Probes,
		"Address of the HTTP server for /livez and /readyz, as [host]:port, or unix:PATH for 'sakeeper probe'. 0: off.")
}

// Validate returns what is wrong with the flags.
func (o *Servers) Validate() []error {
	errs := validateAddress("--metrics-bind-address", o.Metrics)
	path, isUnix := strings.CutPrefix(o.Probes, UnixPrefix)
	switch {
	case !isUnix:
		return append(errs, validateAddress("--health-probe-bind-address", o.Probes)...)
	case !filepath.IsAbs(path):
		return append(errs, fmt.Errorf("--health-probe-bind-address: %q is not unix: and an absolute path", o.Probes))
	}
	return errs
}

func validateAddress(flag, address string) []error {
	if _, _, err := net.SplitHostPort(address); address != "0" && err != nil {
		return []error{fmt.Errorf("%s: %q is not [host]:port, nor 0 for off", flag, address)}
	}
	return nil
}

// Listen opens the TCP address that flag was given, as a shared port if Shared is set. The
// listener is nil if the address is "0".
func (o *Servers) Listen(ctx context.Context, flag, address string) (net.Listener, error) {
	if o.Shared {
		return kube.ListenShared(ctx, flag, address)
	}
	return kube.Listen(ctx, flag, address)
}
