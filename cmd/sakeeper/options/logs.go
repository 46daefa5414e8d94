package options

import (
	"fmt"

	"github.com/spf13/pflag"
	logsapi "k8s.io/component-base/logs/api/v1"
	_ "k8s.io/component-base/logs/json/register" // --logging-format=json
)

// MaxVerbosity is the highest level at which client-go does not log the bodies of requests and
// responses, which contain tokens.
const MaxVerbosity = 7

// Logs are the logging flags that all Kubernetes components have.
type Logs struct {
	*logsapi.LoggingConfiguration
}

// NewLogs returns the defaults.
func NewLogs() *Logs { return &Logs{logsapi.NewLoggingConfiguration()} }

// AddFlags adds the flags to fs.
func (o *Logs) AddFlags(fs *pflag.FlagSet) { logsapi.AddFlags(o.LoggingConfiguration, fs) }

// Validate returns what is wrong with the flags.
func (o *Logs) Validate() []error {
	var errs []error
	for _, err := range logsapi.Validate(o.LoggingConfiguration, nil, nil) {
		errs = append(errs, fmt.Errorf("--logging-%s: %s", err.Field, err.ErrorBody()))
	}
	return errs
}

// Apply sets up logging for the whole process. It returns true if it reduced a verbosity to
// [MaxVerbosity].
func (o *Logs) Apply() (capped bool, err error) {
	limit := func(v *logsapi.VerbosityLevel) {
		if *v > MaxVerbosity {
			*v, capped = MaxVerbosity, true
		}
	}
	limit(&o.Verbosity)
	for i := range o.VModule {
		limit(&o.VModule[i].Verbosity)
	}
	return capped, logsapi.ValidateAndApply(o.LoggingConfiguration, nil)
}
