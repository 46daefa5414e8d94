package authenticator

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/utils/clock"
	"sigs.k8s.io/yaml"

	"github.com/sakeeper/sakeeper/cmd/sakeeper/options"
	"github.com/sakeeper/sakeeper/pkg/authenticator"
	"github.com/sakeeper/sakeeper/pkg/authenticator/live"
	"github.com/sakeeper/sakeeper/pkg/issuer"
	"github.com/sakeeper/sakeeper/pkg/keys"
	"github.com/sakeeper/sakeeper/pkg/kube"
)

// foreignIssuersFile is --foreign-issuers-file.
type foreignIssuersFile struct {
	// Issuers are the token issuers of other clusters.
	Issuers []foreignIssuerEntry `json:"issuers"`
}

type foreignIssuerEntry struct {
	// URL is the iss claim of its tokens.
	URL string `json:"url"`
	// UsernamePrefix is put before the names of its users and groups.
	UsernamePrefix string `json:"usernamePrefix"`
	// KeyFiles have its public keys. Empty: the keys come from its OIDC discovery.
	KeyFiles []string `json:"keyFiles,omitempty"`
	// CAFile verifies the server of its discovery. Empty: the CAs of the machine do.
	CAFile string `json:"caFile,omitempty"`
	// Kubeconfig connects to its API server, which is asked whether bound objects exist.
	Kubeconfig string `json:"kubeconfig,omitempty"`
	// AllowUnchecked accepts tokens that are bound to objects without that check.
	AllowUnchecked bool `json:"allowUnchecked,omitempty"`
}

// foreignIssuer is an issuer with the source of its keys: either files or remote is set.
type foreignIssuer struct {
	*authenticator.TrustedIssuer

	files  *keys.Loader
	remote *issuer.RemoteKeys
}

// readForeignIssuers reads the file, and the files that it names. Its error joins all problems.
func readForeignIssuers(file string, own []string, version string) ([]foreignIssuer, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("--foreign-issuers-file: %w", err)
	}
	var content foreignIssuersFile
	if err := yaml.UnmarshalStrict(data, &content); err != nil {
		return nil, fmt.Errorf("--foreign-issuers-file: %s: %w", file, err)
	}
	var errs []error
	var found []foreignIssuer
	seen := slices.Clone(own)
	for _, entry := range content.Issuers {
		made, err := entry.make(version)
		if slices.Contains(seen, entry.URL) {
			err = fmt.Errorf("issuer %q: is there twice, or is that of this cluster", entry.URL)
		}
		seen = append(seen, entry.URL)
		if err != nil {
			errs = append(errs, fmt.Errorf("--foreign-issuers-file: %s: %w", file, err))
		}
		found = append(found, made)
	}
	if len(content.Issuers) == 0 {
		errs = append(errs, fmt.Errorf("--foreign-issuers-file: %s: holds no issuers", file))
	}
	return found, errors.Join(errs...)
}

func (e foreignIssuerEntry) make(version string) (foreignIssuer, error) {
	made := foreignIssuer{}
	cfg := authenticator.TrustedIssuerConfig{Issuer: e.URL, UsernamePrefix: e.UsernamePrefix, AllowUnchecked: e.AllowUnchecked}
	var err error
	if len(e.KeyFiles) > 0 {
		made.files, err = (&options.Keys{Files: keys.Files{KeyFiles: e.KeyFiles}}).LoadVerification()
		if err == nil {
			cfg.Keys = made.files.Get
		}
	} else if made.remote, err = e.remoteKeys(); err == nil {
		cfg.Keys, cfg.Refresh = made.remote.Get, made.remote.Refresh
	}
	if err != nil {
		return made, fmt.Errorf("issuer %q: %w", e.URL, err)
	}
	if e.Kubeconfig != "" {
		config, err := (&options.API{Kubeconfig: e.Kubeconfig, QPS: -1}).RESTConfig(component, version)
		if err != nil {
			return made, fmt.Errorf("issuer %q: %w", e.URL, err)
		}
		client, err1 := kubernetes.NewForConfig(config)
		meta, err2 := metadata.NewForConfig(config)
		if err := errors.Join(err1, err2); err != nil {
			return made, fmt.Errorf("issuer %q: %w", e.URL, err)
		}
		cfg.Objects = live.Cluster{Metadata: meta, Secrets: client.CoreV1()}
	}
	made.TrustedIssuer, err = authenticator.NewTrustedIssuer(cfg)
	return made, err
}

func (e foreignIssuerEntry) remoteKeys() (*issuer.RemoteKeys, error) {
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12}}
	if e.CAFile == "" {
		kube.UsePublicRoots()
	} else {
		data, err := os.ReadFile(e.CAFile)
		if err != nil {
			return nil, fmt.Errorf("caFile: %w", err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(data) {
			return nil, fmt.Errorf("caFile: %s: holds no usable certificate", e.CAFile)
		}
		transport.TLSClientConfig.RootCAs = pool
	}
	return issuer.NewRemoteKeys(e.URL, &http.Client{Transport: transport}, clock.RealClock{})
}
