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
	// formatKubeconfig is one file for kubectl and other clients built on client-go.
	formatKubeconfig format = "kubeconfig"
	// formatArgoCD is a cluster Secret of Argo CD, without the label.
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

// keys returns the keys of the data that a Secret of this format is filled with, sorted.
func (t tokenSpec) keys() []string {
	var keys []string
	switch t.format {
	case formatKubeconfig:
		keys = []string{keyKubeconfig}
	case formatArgoCD:
		keys = []string{keyName, keyServer, keyConfig}
	case formatToken, formatCustom:
		keys = []string{t.tokenKey, keyCA, keyNamespace}
	}
	slices.Sort(keys)
	return keys
}

// target is the Secret that a token is written to, and the CA for it.
type target struct {
	namespace, secret string
	ca                []byte
}

// render returns the data that a Secret is filled with.
func (t tokenSpec) render(token string, to target) (map[string][]byte, error) {
	switch t.format {
	case formatKubeconfig:
		file, err := t.kubeconfig(token, to)
		return map[string][]byte{keyKubeconfig: file}, err
	case formatArgoCD:
		config, err := argoConfig(token, to.ca)
		return map[string][]byte{keyName: []byte(to.secret), keyServer: []byte(t.server), keyConfig: config}, err
	case formatToken, formatCustom:
		return map[string][]byte{t.tokenKey: []byte(token), keyCA: to.ca, keyNamespace: []byte(to.namespace)}, nil
	}
	panic("tokenrequest: internal error: unknown format") // parse rejects it
}

func (t tokenSpec) kubeconfig(token string, to target) ([]byte, error) {
	const cluster = "kubernetes"
	user := to.namespace + "/" + t.account
	file, err := clientcmd.Write(clientcmdapi.Config{
		Clusters:       map[string]*clientcmdapi.Cluster{cluster: {Server: t.server, CertificateAuthorityData: to.ca}},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{user: {Token: token}},
		Contexts:       map[string]*clientcmdapi.Context{user: {Cluster: cluster, AuthInfo: user, Namespace: to.namespace}},
		CurrentContext: user,
	})
	if err != nil {
		return nil, fmt.Errorf("write a kubeconfig (%T)", err) // its text could quote the token
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
	return json.Marshal(config) //nolint:gosec // the token is meant to be written
}
