package controllers

import (
	"fmt"
	"os"

	"github.com/spf13/pflag"
	"k8s.io/client-go/rest"

	"github.com/sakeeper/sakeeper/pkg/cabundle"
	"github.com/sakeeper/sakeeper/pkg/controllers/tokenrequest"
	"github.com/sakeeper/sakeeper/pkg/kube"
)

// The values of --token-request-namespaces.
const (
	namespacesLabelled = "labelled"
	namespacesAll      = "*"
)

func (o *Options) addTokenRequestFlags(fs *pflag.FlagSet) {
	fs.StringVar(&o.tokenRequestNamespaces, "token-request-namespaces", o.tokenRequestNamespaces,
		"Namespaces in which Secrets with the label sakeeper.io/token=managed get tokens: 'labelled' those that have the label sakeeper.io/token-requests=allowed; '*' all. Who may create and read Secrets there may become any of its ServiceAccounts.")
	fs.StringVar(&o.suite.TokenRequest.PublicServer, "public-server", o.suite.TokenRequest.PublicServer,
		"URL of the API server for the kubeconfigs and Argo CD clusters in Secrets that name none in the annotation sakeeper.io/server.")
}

func (o *Options) validateTokenRequests(on bool) []error {
	var errs []error
	namespaces, server := o.tokenRequestNamespaces, o.suite.TokenRequest.PublicServer
	if namespaces != namespacesLabelled && namespaces != namespacesAll {
		errs = append(errs, fmt.Errorf("--token-request-namespaces: %q is not one of %s, %s", namespaces, namespacesLabelled, namespacesAll))
	}
	if server != "" {
		if err := tokenrequest.CheckServer(server); err != nil {
			errs = append(errs, fmt.Errorf("--public-server: %q %w", server, err))
		}
	}
	if !on && (namespaces == namespacesAll || server != "") {
		errs = append(errs, fmt.Errorf("--token-request-namespaces=%s and --public-server are for the %s, which is off; to turn it on, use --controllers=*,%s",
			namespacesAll, tokenrequest.Name, tokenrequest.Name))
	}
	return errs
}

// connectionCA is the CA by which this process itself knows the API server, read again when its
// file changes. On a managed cluster there is no other file.
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
