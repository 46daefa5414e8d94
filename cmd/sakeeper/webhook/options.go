package webhook

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/validation"
	cliflag "k8s.io/component-base/cli/flag"

	"github.com/sakeeper/sakeeper/cmd/sakeeper/options"
	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/kube"
	"github.com/sakeeper/sakeeper/pkg/podadmission/rules"
)

// Options are the flags of sakeeper webhook.
type Options struct {
	api     *options.API
	servers *options.Servers
	logs    *options.Logs

	bindAddress   string
	port          int
	shutdownDelay time.Duration

	certFile, keyFile string
	namespace         string
	certSecret        string
	hosts             []string
	mutating          string
	validating        string

	clientCAFile string
	clientNames  []string

	serviceAccounts []string
	tokenSource     string
	tokenSeconds    int64
	limit           bool
	scope           string
}

func newOptions() *Options {
	return &Options{
		api:             options.NewAPI(),
		servers:         options.NewServers(),
		logs:            options.NewLogs(),
		port:            9443,
		shutdownDelay:   5 * time.Second,
		certSecret:      "sakeeper-webhook-certificates",
		mutating:        "sakeeper-webhook",
		validating:      "sakeeper-webhook",
		serviceAccounts: []string{api.DefaultServiceAccount},
		tokenSource:     string(rules.ProjectedTokens),
		tokenSeconds:    rules.TokenSeconds,
		scope:           string(rules.InTreeScope),
	}
}

func (o *Options) sections() *cliflag.NamedFlagSets {
	sections := &cliflag.NamedFlagSets{}
	o.addFlags(sections.FlagSet("admission"))
	o.addServingFlags(sections.FlagSet("serving"))
	o.addCertificateFlags(sections.FlagSet("certificates"))
	o.api.AddFlags(sections.FlagSet("API server"))
	o.servers.AddFlags(sections.FlagSet("metrics and probes"))
	o.logs.AddFlags(sections.FlagSet("logs"))
	return sections
}

func (o *Options) addFlags(fs *pflag.FlagSet) {
	fs.StringSliceVar(&o.serviceAccounts, "service-accounts", o.serviceAccounts,
		"ServiceAccounts that every namespace gets, for which a pod waits up to 2 seconds. 'default' always is one.")
	fs.StringVar(&o.tokenSource, "token-volume-source", o.tokenSource,
		"Which token pods get: 'projected' one that kubelet makes for each pod, and that expires; 'secret' that of a token Secret to which the ServiceAccount refers, as before Kubernetes 1.22.")
	fs.Int64Var(&o.tokenSeconds, "token-expiration-seconds", o.tokenSeconds,
		"Lifetime of projected tokens, before which kubelet renews them. API servers extend 3607, and no other number, to a year, for clients that never read the file again: with another number these fail after that time.")
	fs.BoolVar(&o.limit, "limit-secret-references", o.limit,
		"Let pods name only Secrets that their ServiceAccount lists. False: those pods whose ServiceAccount has the annotation kubernetes.io/enforce-mountable-secrets=true.")
	fs.StringVar(&o.scope, "secret-reference-scope", o.scope,
		"Which references to Secrets are limited: 'in-tree' Secret volumes, env, envFrom and imagePullSecrets; 'all' every kind that a pod can have, such as projected and CSI volumes.")
}

func (o *Options) addServingFlags(fs *pflag.FlagSet) {
	fs.StringVar(&o.bindAddress, "bind-address", o.bindAddress, "IP address to serve on. Empty: all.")
	fs.IntVar(&o.port, "secure-port", o.port, "Port to serve HTTPS on.")
	fs.StringVar(&o.clientCAFile, "client-ca-file", o.clientCAFile,
		"PEM file with the CAs of the clients that may ask for reviews. API servers have their certificates in the kubeConfigFile of a WebhookAdmissionConfiguration. A client without such a certificate gets the status 403. It is read again when it changes. Empty: any client that reaches --secure-port may ask.")
	fs.StringArrayVar(&o.clientNames, "client-name", o.clientNames,
		"Common name, DNS name or URI in the certificates of clients that may ask for reviews. May be repeated. Empty: any certificate of --client-ca-file.")
	fs.BoolVar(&o.servers.Shared, "permit-port-sharing", o.servers.Shared,
		"Let other processes of the host listen on --secure-port and the port of the metrics too (SO_REUSEPORT), so that a pod in the host's network can start before the one that it replaces has stopped. The port is opened when all else is ready. Give each a unix socket for its probes.")
	fs.DurationVar(&o.shutdownDelay, "shutdown-delay-duration", o.shutdownDelay,
		"How long the webhook goes on serving after SIGTERM, so that API servers have the time to notice.")
}

func (o *Options) addCertificateFlags(fs *pflag.FlagSet) {
	fs.StringVar(&o.certFile, "tls-cert-file", o.certFile,
		"PEM file with the serving certificate and its intermediates. With it the webhook does not write the caBundle of the webhook configurations. It is read again when it changes. Empty: the webhook keeps a CA and certificates of its own in a Secret.")
	fs.StringVar(&o.keyFile, "tls-private-key-file", o.keyFile, "PEM file with the private key of --tls-cert-file.")
	fs.StringVar(&o.namespace, "webhook-namespace", o.namespace,
		"Namespace of the Secret and of the Service of the webhook. Empty: the namespace of the pod, and sakeeper-system outside a cluster.")
	fs.StringVar(&o.certSecret, "certificate-secret", o.certSecret, "Name of the Secret, of type sakeeper.io/webhook-certificates and empty at first, in which the webhook keeps its own CA and certificates.")
	fs.StringSliceVar(&o.hosts, "certificate-hosts", o.hosts,
		"DNS names and IP addresses by which API servers call the webhook. Empty: sakeeper-webhook.<webhook-namespace>.svc.")
	fs.StringVar(&o.mutating, "mutating-webhook-configuration", o.mutating,
		"Name of the MutatingWebhookConfiguration whose caBundle the webhook keeps. Empty: there is none.")
	fs.StringVar(&o.validating, "validating-webhook-configuration", o.validating,
		"Name of the ValidatingWebhookConfiguration whose caBundle the webhook keeps. Empty: there is none.")
}

func (o *Options) validate() []error {
	errs := slices.Concat(o.api.Validate(), o.servers.Validate(), o.logs.Validate(), o.validateCertificates())
	for _, name := range o.serviceAccounts {
		for _, problem := range validation.IsDNS1123Subdomain(name) {
			errs = append(errs, fmt.Errorf("--service-accounts: %q: %s", name, problem))
		}
	}
	errs = append(errs, o.validateRules()...)
	if o.bindAddress != "" && net.ParseIP(o.bindAddress) == nil {
		errs = append(errs, fmt.Errorf("--bind-address: %q is not an IP address", o.bindAddress))
	}
	if o.port < 1 || o.port > 65535 {
		errs = append(errs, fmt.Errorf("--secure-port: %d is not between 1 and 65535", o.port))
	}
	if o.clientCAFile == "" && len(o.clientNames) > 0 {
		errs = append(errs, errors.New("--client-name needs --client-ca-file"))
	}
	if slices.Contains(o.clientNames, "") {
		errs = append(errs, errors.New("--client-name: a name is empty"))
	}
	if o.shutdownDelay < 0 {
		errs = append(errs, fmt.Errorf("--shutdown-delay-duration: %v is negative", o.shutdownDelay))
	}
	return errs
}

func (o *Options) validateRules() []error {
	var errs []error
	switch rules.TokenVolumeSource(o.tokenSource) {
	case rules.ProjectedTokens, rules.SecretTokens:
	default:
		errs = append(errs, fmt.Errorf("--token-volume-source: %q is not one of projected, secret", o.tokenSource))
	}
	if err := rules.CheckTokenSeconds(o.tokenSeconds); err != nil {
		errs = append(errs, fmt.Errorf("--token-expiration-seconds: %w", err))
	}
	switch rules.Scope(o.scope) {
	case rules.InTreeScope, rules.AllScope:
	default:
		errs = append(errs, fmt.Errorf("--secret-reference-scope: %q is not one of in-tree, all", o.scope))
	}
	return errs
}

func (o *Options) validateCertificates() []error {
	if (o.certFile == "") != (o.keyFile == "") {
		return []error{errors.New("--tls-cert-file and --tls-private-key-file go together")}
	}
	if o.certFile != "" {
		return nil
	}
	var errs []error
	for _, host := range o.hosts {
		if problems := validation.IsDNS1123Subdomain(host); net.ParseIP(host) == nil && len(problems) > 0 {
			errs = append(errs, fmt.Errorf("--certificate-hosts: %q is neither a DNS name nor an IP address", host))
		}
	}
	for _, named := range []struct {
		flag, name string
		optional   bool
	}{
		{"--certificate-secret", o.certSecret, false},
		{"--mutating-webhook-configuration", o.mutating, true},
		{"--validating-webhook-configuration", o.validating, true},
	} {
		if named.optional && named.name == "" {
			continue
		}
		for _, problem := range validation.IsDNS1123Subdomain(named.name) {
			errs = append(errs, fmt.Errorf("%s: %q: %s", named.flag, named.name, problem))
		}
	}
	if o.mutating == "" && o.validating == "" {
		errs = append(errs, errors.New("--mutating-webhook-configuration and --validating-webhook-configuration are both empty; without a configuration use --tls-cert-file"))
	}
	return errs
}

// ownNamespace returns the namespace of the Secret and of the Service.
func (o *Options) ownNamespace() string {
	if o.namespace != "" {
		return o.namespace
	}
	return kube.Namespace("sakeeper-system")
}

// certificateHosts returns the names that the certificate is for.
func (o *Options) certificateHosts() []string {
	if len(o.hosts) > 0 {
		return o.hosts
	}
	return []string{"sakeeper-webhook." + o.ownNamespace() + ".svc"}
}

func (o *Options) settings() rules.Settings {
	return rules.Settings{
		TokenVolumeSource:      rules.TokenVolumeSource(o.tokenSource),
		TokenExpirationSeconds: o.tokenSeconds,
		LimitSecretReferences:  o.limit,
		SecretReferenceScope:   rules.Scope(o.scope),
	}
}
