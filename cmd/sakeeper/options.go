package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/pflag"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	logsapi "k8s.io/component-base/logs/api/v1"
	_ "k8s.io/component-base/logs/json/register" // --logging-format=json

	"github.com/sakeeper/sakeeper/pkg/kube"
)

// apiOptions say how to reach the API server.
type apiOptions struct {
	kubeconfig string
	qps        float32
	burst      int
}

func newAPIOptions() *apiOptions { return &apiOptions{qps: -1, burst: 0} }

func (o *apiOptions) addFlags(fs *pflag.FlagSet) {
	fs.StringVar(&o.kubeconfig, "kubeconfig", o.kubeconfig,
		"File with the address of and the credentials for the API server. Empty: those that a pod finds in its file system.")
	fs.Float32Var(&o.qps, "kube-api-qps", o.qps,
		"Requests per second to the API server. Negative: no limit here, the server's priority and fairness decides.")
	fs.IntVar(&o.burst, "kube-api-burst", o.burst,
		"Requests to the API server that may exceed --kube-api-qps for a moment. Used only with a positive --kube-api-qps.")
}

func (o *apiOptions) validate() []error {
	var errs []error
	if o.qps == 0 {
		errs = append(errs, errors.New("--kube-api-qps: 0 would allow no request; use -1 for no limit"))
	}
	if o.qps > 0 && o.burst < 1 {
		errs = append(errs, fmt.Errorf("--kube-api-burst: %d is less than 1, which a positive --kube-api-qps needs", o.burst))
	}
	return errs
}

// electionOptions describe the Lease of which only the holder works.
type electionOptions struct {
	enabled                                   bool
	namespace, name                           string
	leaseDuration, renewDeadline, retryPeriod time.Duration
}

func newElectionOptions(name string) *electionOptions {
	return &electionOptions{
		enabled: true, name: name,
		leaseDuration: 15 * time.Second, renewDeadline: 10 * time.Second, retryPeriod: 2 * time.Second,
	}
}

func (o *electionOptions) addFlags(fs *pflag.FlagSet) {
	fs.BoolVar(&o.enabled, "leader-elect", o.enabled,
		"Work only while holding a Lease, so that several replicas can run.")
	fs.StringVar(&o.name, "leader-elect-resource-name", o.name, "Name of the Lease.")
	fs.StringVar(&o.namespace, "leader-elect-resource-namespace", o.namespace,
		"Namespace of the Lease. Empty: the namespace of the pod, and kube-system outside a cluster.")
	fs.DurationVar(&o.leaseDuration, "leader-elect-lease-duration", o.leaseDuration,
		"How long others wait before they take a Lease that is not renewed.")
	fs.DurationVar(&o.renewDeadline, "leader-elect-renew-deadline", o.renewDeadline,
		"How long the leader tries to renew before it stops. Less than the lease duration.")
	fs.DurationVar(&o.retryPeriod, "leader-elect-retry-period", o.retryPeriod,
		"Time between two tries to get or renew the Lease.")
}

func (o *electionOptions) validate() []error {
	if !o.enabled {
		return nil
	}
	var errs []error
	for _, problem := range validation.IsDNS1123Subdomain(o.name) {
		errs = append(errs, fmt.Errorf("--leader-elect-resource-name: %q: %s", o.name, problem))
	}
	if o.retryPeriod <= 0 {
		errs = append(errs, fmt.Errorf("--leader-elect-retry-period: %v is not positive", o.retryPeriod))
	}
	if o.renewDeadline <= o.retryPeriod*12/10 {
		errs = append(errs, fmt.Errorf("--leader-elect-renew-deadline: %v is not more than 1.2 times --leader-elect-retry-period (%v)", o.renewDeadline, o.retryPeriod))
	}
	if o.leaseDuration <= o.renewDeadline {
		errs = append(errs, fmt.Errorf("--leader-elect-lease-duration: %v is not more than --leader-elect-renew-deadline (%v)", o.leaseDuration, o.renewDeadline))
	}
	return errs
}

func (o *electionOptions) leaseNamespace() string {
	if o.namespace != "" {
		return o.namespace
	}
	return kube.Namespace(metav1.NamespaceSystem)
}

// serverOptions are the addresses of the two plain HTTP servers.
type serverOptions struct {
	metrics, probes string
	// shared: other processes of this machine may listen on the same ports.
	shared bool
}

// listen is how TCP ports are opened that others may share.
func (o *serverOptions) listen(ctx context.Context, flag, address string) (net.Listener, error) {
	if o.shared {
		return kube.ListenShared(ctx, flag, address)
	}
	return kube.Listen(ctx, flag, address)
}

// unixPrefix begins the address of a unix socket.
const unixPrefix = "unix:"

func newServerOptions() *serverOptions { return &serverOptions{metrics: ":8080", probes: ":8081"} }

func (o *serverOptions) addFlags(fs *pflag.FlagSet) {
	fs.StringVar(&o.metrics, "metrics-bind-address", o.metrics,
		"Address of the HTTP server for /metrics, as [host]:port. 0: off.")
	fs.StringVar(&o.probes, "health-probe-bind-address", o.probes,
		"Address of the HTTP server for /livez and /readyz, as [host]:port, or unix:PATH for 'sakeeper probe'. 0: off.")
}

func (o *serverOptions) validate() []error {
	errs := validateAddress("--metrics-bind-address", o.metrics)
	path, isUnix := strings.CutPrefix(o.probes, unixPrefix)
	switch {
	case !isUnix:
		return append(errs, validateAddress("--health-probe-bind-address", o.probes)...)
	case !filepath.IsAbs(path):
		return append(errs, fmt.Errorf("--health-probe-bind-address: %q is not unix: and an absolute path", o.probes))
	}
	return errs
}

func validateAddress(flag, address string) []error {
	if _, _, err := net.SplitHostPort(address); address != "0" && err != nil {
		return []error{fmt.Errorf("%s: %q is not [host]:port, nor 0 for off", flag, address)}
	}
	return nil
}

// logOptions are the logging flags that all Kubernetes components have.
type logOptions struct {
	*logsapi.LoggingConfiguration
}

func newLogOptions() *logOptions { return &logOptions{logsapi.NewLoggingConfiguration()} }

func (o *logOptions) addFlags(fs *pflag.FlagSet) { logsapi.AddFlags(o.LoggingConfiguration, fs) }

func (o *logOptions) validate() []error {
	var errs []error
	for _, err := range logsapi.Validate(o.LoggingConfiguration, nil, nil) {
		errs = append(errs, fmt.Errorf("--logging-%s: %s", err.Field, err.ErrorBody()))
	}
	return errs
}

// maxVerbosity is the last level at which client-go logs no request or response
// bodies, which hold tokens.
const maxVerbosity = 7

// apply sets up logging for the process, and tells whether it is quieter than
// what was asked for.
func (o *logOptions) apply() (capped bool, err error) {
	limit := func(v *logsapi.VerbosityLevel) {
		if *v > maxVerbosity {
			*v, capped = maxVerbosity, true
		}
	}
	limit(&o.Verbosity)
	for i := range o.VModule {
		limit(&o.VModule[i].Verbosity)
	}
	return capped, logsapi.ValidateAndApply(o.LoggingConfiguration, nil)
}
