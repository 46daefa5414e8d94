package controllers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/clock"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/controllers/rootca"
	"github.com/sakeeper/sakeeper/pkg/controllers/tokengeneration"
	"github.com/sakeeper/sakeeper/pkg/controllers/tokeninventory"
	"github.com/sakeeper/sakeeper/pkg/controllers/tokenrequest"
	"github.com/sakeeper/sakeeper/pkg/controllers/tokensecret"
)

// Every default of a setting that is not its zero value.
const (
	// defaultWorkers is how many objects each controller handles at a time. With 10, the requests of
	// one controller keep a local API server busy; more of them only wait there.
	defaultWorkers = 10
	// defaultCleanUpPeriod is how long a token must be unused before it is marked invalid, and marked
	// before its Secret is deleted (KEP-2799).
	defaultCleanUpPeriod   = 8760 * time.Hour
	defaultCleanUpInterval = 24 * time.Hour
	defaultResignQPS       = 10
)

// Options say what a suite works with. The zero value of each field is its default; Config is
// always required, Keys and RootCA by some controllers. [Defaults] shows the defaults as values.
type Options struct {
	// Config reaches the API server. Each controller uses a copy, with its name in the user
	// agent and protobuf on the wire. A QPS of 0 means no limit here: the API server's priority
	// and fairness decides.
	Config *rest.Config

	// Controllers selects controllers, in the syntax of kube-controller-manager: "*" stands for
	// all but those that are off by default, "name" turns one on, "-name" turns one off; the first
	// entry that fits a controller decides. Default: "*". See [Names] and [OffByDefault].
	Controllers []string

	// Keys is where the signing key comes from. Required by the serviceaccount-token-controller
	// and the token-generation-controller.
	Keys KeySource
	// RootCA is where the certificates come from that verify the API server. Required by the
	// root-ca-certificate-publisher-controller and by those that need Keys. The
	// token-request-controller alone uses the CA of Config by default.
	RootCA CASource
	// RootCAUnverified publishes RootCA even if it does not verify an API server that the published
	// one verifies. Default: the published one stays.
	RootCAUnverified bool

	// SigningKeyUnverified writes tokens even if the signing key is not among those that the API
	// server publishes, for a key that it accepts all the same. Default: no token is written then,
	// and [Suite.Ready] says so.
	SigningKeyUnverified bool

	// ServiceAccount, TokenSecret, TokenCleaner, TokenGeneration, TokenRequest, TokenInventory and
	// PullSecretCopy are the settings of one controller each.
	ServiceAccount  ServiceAccountOptions
	TokenSecret     TokenSecretOptions
	TokenCleaner    TokenCleanerOptions
	TokenGeneration TokenGenerationOptions
	TokenRequest    TokenRequestOptions
	TokenInventory  TokenInventoryOptions
	PullSecretCopy  PullSecretCopyOptions

	// Namespaces and ServiceAccounts are informers of the caller, who starts them; see the package
	// comment. Default: informers of the suite, which keep only what is needed. Templates of
	// ServiceAccounts select namespaces by the labels in Namespaces; for ServiceAccounts, they always
	// have an informer of the suite.
	Namespaces, ServiceAccounts toolscache.SharedIndexInformer

	// Registerer gets all metrics. Default: metrics are not exported. Two suites of one process
	// need registerers of their own.
	Registerer prometheus.Registerer
	// Recorder records events. Default: one of the suite, with the source sakeeper-controllers.
	Recorder record.EventRecorder
	// Process is the object on which events are recorded that are about the process, such as a key
	// file that cannot be used any more. Default: the Lease sakeeper-controllers in kube-system,
	// which need not exist.
	Process *corev1.ObjectReference
	// Clock tells the time by which decisions are made. Default: the clock of the machine.
	Clock clock.PassiveClock

	// Elect runs lead, once, while this process is the one that works, and returns when lead has
	// returned, with its error. The context of lead ends when another process may work. Default:
	// lead runs at once. See [Suite.NeedLeaderElection]. [kube.Election.Run] is such a function;
	// with a [kube.LeaseGuard], whose Wrap is given to Config, a process that was frozen sends
	// nothing after its lease has run out.
	Elect func(ctx context.Context, lead func(context.Context) error) error
	// WarmStandby keeps namespaces, ServiceAccounts, token Secrets and root CA ConfigMaps cached while
	// Elect waits, so that the work begins at once when it begins. That costs the memory and the watches
	// of a leader; nothing is written. Without Elect it changes nothing.
	WarmStandby bool
}

// ServiceAccountOptions are those of the serviceaccount-controller.
type ServiceAccountOptions struct {
	// Names are the ServiceAccounts that every active namespace gets. Default: "default".
	Names []string
}

// TokenSecretOptions are those of the serviceaccount-token-controller.
type TokenSecretOptions struct {
	// Workers is how many token Secrets are handled at a time. Default: 10.
	Workers int
	// Resign says which tokens are replaced by new ones, which revokes every copy of the old one.
	// Default: [tokensecret.ResignDead].
	Resign tokensecret.Resign
	// ResignQPS is how many tokens are replaced in a second. Default: 10.
	ResignQPS float64
}

// TokenCleanerOptions are those of the legacy-serviceaccount-token-cleaner-controller.
type TokenCleanerOptions struct {
	// Period is how long a token must be unused before it is marked invalid, and marked before
	// its Secret is deleted. Default: a year (8760h), as in Kubernetes.
	Period time.Duration
	// Interval is the time between the beginnings of two passes. Default: a day.
	Interval time.Duration
	// DryRun changes nothing: logs, events and metrics say what would be done.
	DryRun bool
}

// TokenGenerationOptions are those of the token-generation-controller.
type TokenGenerationOptions struct {
	// Mode says which ServiceAccounts get a token Secret. Default: [tokengeneration.ModeNone], with
	// which the controller does not run.
	Mode tokengeneration.Mode
}

// TokenRequestOptions are those of the token-request-controller.
type TokenRequestOptions struct {
	// AllNamespaces serves managed Secrets in every namespace. Default: in those with the label
	// sakeeper.io/token-requests=allowed. Who may create and read Secrets in a namespace that is
	// served may become any of its ServiceAccounts.
	AllNamespaces bool
	// PublicServer is the URL of the API server for kubeconfigs and Argo CD clusters in Secrets
	// that name none. Default: none, and such Secrets must name one.
	PublicServer string
}

// TokenInventoryOptions are those of the token-inventory-controller.
type TokenInventoryOptions struct {
	// Interval is the time between two counts of the tokens in Secrets, of which each reads all token
	// Secrets, ServiceAccounts, pods and RBAC objects. Default: 0, with which the controller does not
	// run.
	Interval time.Duration
}

// PullSecretCopyOptions are those of the pull-secret-copy-controller.
type PullSecretCopyOptions struct {
	// SourceNamespaces are those whose pull secrets may be copied. Who may write templates may have these
	// copied to any namespace. Default: none, with which nothing is copied.
	SourceNamespaces []string
	// TargetNamespaces are those in which copies are kept, where templates select them. The rights to
	// Secrets can then be bound in these and SourceNamespaces alone. Default: all.
	TargetNamespaces []string
}

// Defaults are options with the default of each setting that has one.
func Defaults() Options {
	var o Options
	setDefaults(&o)
	return o
}

func setDefaults(o *Options) {
	if len(o.Controllers) == 0 {
		o.Controllers = []string{"*"}
	}
	if o.ServiceAccount.Names == nil {
		o.ServiceAccount.Names = []string{api.DefaultServiceAccount}
	}
	setDefault(&o.TokenSecret.Workers, defaultWorkers)
	setDefault(&o.TokenSecret.Resign, tokensecret.ResignDead)
	setDefault(&o.TokenSecret.ResignQPS, defaultResignQPS)
	setDefault(&o.TokenCleaner.Period, defaultCleanUpPeriod)
	setDefault(&o.TokenCleaner.Interval, defaultCleanUpInterval)
	setDefault(&o.TokenGeneration.Mode, tokengeneration.ModeNone)
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	if o.Process == nil {
		o.Process = &corev1.ObjectReference{
			APIVersion: "coordination.k8s.io/v1", Kind: "Lease", Namespace: "kube-system", Name: api.ControllersLease,
		}
	}
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Enabled returns the names of the controllers that run with these options. Its error names every
// entry of Controllers that is no controller.
func (o Options) Enabled() (map[string]bool, error) {
	setDefaults(&o)
	enabled, err := selectControllers(o.Controllers)
	if o.TokenGeneration.Mode == tokengeneration.ModeNone {
		delete(enabled, tokengeneration.Name)
	}
	if o.TokenInventory.Interval == 0 {
		delete(enabled, tokeninventory.Name)
	}
	return enabled, err
}

// NeedsKeys returns true if a controller that runs with these options needs Keys.
func (o Options) NeedsKeys() bool {
	enabled, _ := o.Enabled()
	return enabled[tokensecret.Name] || enabled[tokengeneration.Name]
}

// NeedsRootCA returns true if a controller that runs with these options needs RootCA.
func (o Options) NeedsRootCA() bool {
	enabled, _ := o.Enabled()
	return enabled[rootca.Name] || o.NeedsKeys()
}

// validate returns everything that is wrong with options that have their defaults.
func (o Options) validate() error {
	var errs []error
	problem := func(format string, args ...any) { errs = append(errs, fmt.Errorf("controllers: "+format, args...)) }
	if o.Config == nil {
		problem("Config is required")
	}
	enabled, err := o.Enabled()
	switch {
	case err != nil:
		problem("Controllers: %w", err)
	case len(enabled) == 0:
		problem("Controllers: %q turns no controller on", strings.Join(o.Controllers, ","))
	}
	if o.NeedsKeys() && o.Keys == nil {
		problem("Keys is required by the %s and the %s", tokensecret.Name, tokengeneration.Name)
	}
	if o.NeedsRootCA() && o.RootCA == nil {
		problem("RootCA is required by the %s, the %s and the %s", rootca.Name, tokensecret.Name, tokengeneration.Name)
	}
	o.validateSettings(problem)
	o.PullSecretCopy.validate(problem)
	return errors.Join(errs...)
}

// validateSettings reports what is wrong with the settings of single controllers.
func (o Options) validateSettings(problem func(format string, args ...any)) {
	if len(o.ServiceAccount.Names) == 0 {
		problem("ServiceAccount.Names is empty")
	}
	for _, name := range o.ServiceAccount.Names {
		for _, reason := range validation.IsDNS1123Subdomain(name) {
			problem("ServiceAccount.Names: %q: %s", name, reason)
		}
	}
	if o.TokenSecret.Workers < 1 {
		problem("TokenSecret.Workers: %d is less than 1", o.TokenSecret.Workers)
	}
	if o.TokenSecret.ResignQPS <= 0 {
		problem("TokenSecret.ResignQPS: %v is not positive", o.TokenSecret.ResignQPS)
	}
	switch o.TokenSecret.Resign {
	case tokensecret.ResignNever, tokensecret.ResignDead, tokensecret.ResignAll:
	default:
		problem("TokenSecret.Resign: %q is not one of never, dead, all", o.TokenSecret.Resign)
	}
	if o.TokenCleaner.Period <= 0 || o.TokenCleaner.Interval <= 0 {
		problem("TokenCleaner: Period and Interval must be positive, not %v and %v", o.TokenCleaner.Period, o.TokenCleaner.Interval)
	}
	switch o.TokenGeneration.Mode {
	case tokengeneration.ModeNone, tokengeneration.ModeLabelled, tokengeneration.ModeAll:
	default:
		problem("TokenGeneration.Mode: %q is not one of none, labelled, all", o.TokenGeneration.Mode)
	}
	if interval := o.TokenInventory.Interval; interval < 0 {
		problem("TokenInventory.Interval: %v is negative", interval)
	}
	if server := o.TokenRequest.PublicServer; server != "" {
		if err := tokenrequest.CheckServer(server); err != nil {
			problem("TokenRequest.PublicServer: %q %w", server, err)
		}
	}
}

func (o PullSecretCopyOptions) validate(problem func(format string, args ...any)) {
	for _, name := range slices.Concat(o.SourceNamespaces, o.TargetNamespaces) {
		for _, reason := range validation.IsDNS1123Label(name) {
			problem("PullSecretCopy: %q: %s", name, reason)
		}
	}
}
