package tokenrequest

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// format is the form in which a Secret holds its token.
type format string

const (
	// formatToken is that of in-tree token Secrets.
	formatToken format = "token"
	// formatKubeconfig is one file for kubectl and all that is built on client-go.
	formatKubeconfig format = "kubeconfig"
	// formatArgoCD is a cluster as Argo CD reads it, but for its label.
	formatArgoCD format = "argocd-cluster"
	// formatCustom is formatToken with another key for the token.
	formatCustom format = "custom"
)

// The keys of the formats.
const (
	keyToken      = corev1.ServiceAccountTokenKey
	keyCA         = corev1.ServiceAccountRootCAKey
	keyNamespace  = corev1.ServiceAccountNamespaceKey
	keyKubeconfig = "kubeconfig"
	keyName       = "name"
	keyServer     = "server"
	keyConfig     = "config"
)

func formats() []format { return []format{formatToken, formatKubeconfig, formatArgoCD, formatCustom} }

func formatNames() string {
	var names []string
	for _, f := range formats() {
		names = append(names, string(f))
	}
	return strings.Join(names, ", ")
}

// keys are those that a Secret of this kind is filled under, sorted.
func (a asked) keys() []string {
	var keys []string
	switch a.format {
	case formatKubeconfig:
		keys = []string{keyKubeconfig}
	case formatArgoCD:
		keys = []string{keyName, keyServer, keyConfig}
	case formatToken, formatCustom:
		keys = []string{a.tokenKey, keyCA, keyNamespace}
	}
	slices.Sort(keys)
	return keys
}

// place is where a token goes.
type place struct {
	namespace, secret string
	ca                []byte
}

// render makes what a Secret is filled with.
func (a asked) render(token string, p place) (map[string][]byte, error) {
	switch a.format {
	case formatKubeconfig:
		file, err := a.kubeconfig(token, p)
		return map[string][]byte{keyKubeconfig: file}, err
	case formatArgoCD:
		config, err := argoConfig(token, p.ca)
		return map[string][]byte{keyName: []byte(p.secret), keyServer: []byte(a.server), keyConfig: config}, err
	case formatToken, formatCustom:
		return map[string][]byte{a.tokenKey: []byte(token), keyCA: p.ca, keyNamespace: []byte(p.namespace)}, nil
	}
	panic("tokenrequest: internal error: a format that was not checked") // parse lets none through
}

func (a asked) kubeconfig(token string, p place) ([]byte, error) {
	const cluster = "kubernetes"
	user := p.namespace + "/" + a.account
	file, err := clientcmd.Write(clientcmdapi.Config{
		Clusters:       map[string]*clientcmdapi.Cluster{cluster: {Server: a.server, CertificateAuthorityData: p.ca}},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{user: {Token: token}},
		Contexts:       map[string]*clientcmdapi.Context{user: {Cluster: cluster, AuthInfo: user, Namespace: p.namespace}},
		CurrentContext: user,
	})
	if err != nil {
		return nil, fmt.Errorf("write a kubeconfig (%T)", err) // its words could quote the token
	}
	return file, nil
}

// argoConfig is the part of Argo CD's ClusterConfig that a token needs.
func argoConfig(token string, ca []byte) ([]byte, error) {
	type tlsClientConfig struct {
		Insecure bool   `json:"insecure"`
		CAData   []byte `json:"caData"`
	}
	config := struct {
		BearerToken     string          `json:"bearerToken"`
		TLSClientConfig tlsClientConfig `json:"tlsClientConfig"`
	}{token, tlsClientConfig{CAData: ca}}
	return json.Marshal(config) //nolint:gosec // it is a token that is to be written
}
