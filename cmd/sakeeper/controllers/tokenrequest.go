package controllers

import (
	"fmt"
	"os"

	"github.com/spf13/pflag"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"

	"github.com/sakeeper/sakeeper/pkg/cabundle"
	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/controllers/tokenrequest"
	"github.com/sakeeper/sakeeper/pkg/kube"
)

// The values of --token-request-namespaces.
const (
	namespacesLabelled = "labelled"
	namespacesAll      = "*"
)

// tokenRequestOptions are the flags of the token-request-controller.
type tokenRequestOptions struct {
	namespaces   string
	publicServer string
}

func newTokenRequestOptions() *tokenRequestOptions {
	return &tokenRequestOptions{namespaces: namespacesLabelled}
}

func (o *tokenRequestOptions) addFlags(fs *pflag.FlagSet) {
	fs.StringVar(&o.namespaces, "token-request-namespaces", o.namespaces,
		"Namespaces in which Secrets with the label sakeeper.io/token=managed get tokens: 'labelled' those that have the label sakeeper.io/token-requests=allowed; '*' all. Who may create and read Secrets there may become any of its ServiceAccounts.")
	fs.StringVar(&o.publicServer, "public-server", o.publicServer,
		"URL of the API server for the kubeconfigs and Argo CD clusters in Secrets that name none in the annotation sakeeper.io/server.")
}

func (o *tokenRequestOptions) validate(on bool) []error {
	var errs []error
	if o.namespaces != namespacesLabelled && o.namespaces != namespacesAll {
		errs = append(errs, fmt.Errorf("--token-request-namespaces: %q is not one of %s, %s", o.namespaces, namespacesLabelled, namespacesAll))
	}
	if o.publicServer != "" {
		if err := tokenrequest.CheckServer(o.publicServer); err != nil {
			errs = append(errs, fmt.Errorf("--public-server: %q %w", o.publicServer, err))
		}
	}
	if !on && (o.namespaces == namespacesAll || o.publicServer != "") {
		errs = append(errs, fmt.Errorf("--token-request-namespaces=%s and --public-server are for the %s, which is off; to turn it on, use --controllers=*,%s",
			namespacesAll, tokenrequest.Name, tokenrequest.Name))
	}
	return errs
}

// connectionCA is the CA by which this process itself knows the API server. It will do
// where nothing is published: on a managed cluster there is no other file.
func connectionCA(config *rest.Config, kubeconfig string) (*cabundle.Loader, error) {
	file, load := kubeconfig, func() ([]byte, error) {
		current, err := kube.Connection{Kubeconfig: kubeconfig}.Config()
		if err != nil {
			return nil, err
		}
		return current.CAData, nil
	}
	switch {
	case len(config.CAData) > 0:
	case config.CAFile != "":
		file, load = config.CAFile, func() ([]byte, error) { return os.ReadFile(config.CAFile) }
	default:
		return nil, fmt.Errorf("--root-ca-file is required by the %s, because the connection to the API server names no CA", tokenrequest.Name)
	}
	return cabundle.OpenFunc("CA of the connection to the API server", file, load)
}

func (a *assembly) tokenRequest() (controller, error) {
	config := a.restFor(tokenrequest.Name)
	// Its first list tells what the server's time is, before anything is decided on it.
	serverClock := kube.NewServerClock(clock.RealClock{})
	config.Wrap(serverClock.Wrap)
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	if a.managedSecrets, err = cache.ManagedSecrets(client); err != nil {
		return nil, err
	}
	c, err := tokenrequest.New(tokenrequest.Config{
		Client:          client.CoreV1(),
		Namespaces:      a.namespaces,
		Secrets:         a.managedSecrets,
		ServiceAccounts: a.serviceAccounts,
		CA:              a.ca.Get,
		AllNamespaces:   a.options.tokenRequests.namespaces == namespacesAll,
		PublicServer:    a.options.tokenRequests.publicServer,
		Recorder:        a.recorder,
		Clock:           serverClock,
		Monotonic:       clock.RealClock{},
		Registerer:      a.registry,
	})
	if err != nil {
		return nil, err
	}
	a.ca.OnChange(c.EnqueueAll)
	return c, nil
}
