package options

import (
	"errors"
	"fmt"

	"github.com/spf13/pflag"
	"k8s.io/client-go/rest"

	"github.com/sakeeper/sakeeper/pkg/kube"
)

// API says how to connect to the API server.
type API struct {
	Kubeconfig string
	QPS        float32
	Burst      int
}

// NewAPI returns the defaults.
func NewAPI() *API { return &API{QPS: -1} }

// AddFlags adds the flags to fs.
func (o *API) AddFlags(fs *pflag.FlagSet) {
	fs.StringVar(&o.Kubeconfig, "kubeconfig", o.Kubeconfig,
		"File with the address of and the credentials for the API server. Empty: those that a pod finds in its file system.")
	fs.Float32Var(&o.QPS, "kube-api-qps", o.QPS,
		"Requests per second to the API server. Negative: no limit here, the server's priority and fairness decides.")
	fs.IntVar(&o.Burst, "kube-api-burst", o.Burst,
		"Requests to the API server that may exceed --kube-api-qps for a moment. Used only with a positive --kube-api-qps.")
}

// Validate returns what is wrong with the flags.
func (o *API) Validate() []error {
	var errs []error
	if o.QPS == 0 {
		errs = append(errs, errors.New("--kube-api-qps: 0 would allow no request; use -1 for no limit"))
	}
	if o.QPS > 0 && o.Burst < 1 {
		errs = append(errs, fmt.Errorf("--kube-api-burst: %d is less than 1, which a positive --kube-api-qps needs", o.Burst))
	}
	return errs
}

// RESTConfig reads the kubeconfig, or the credentials of the pod. The user agent names
// component and version.
func (o *API) RESTConfig(component, version string) (*rest.Config, error) {
	return kube.Connection{
		Kubeconfig: o.Kubeconfig, QPS: o.QPS, Burst: o.Burst, UserAgent: component + "/" + version,
	}.Config()
}
