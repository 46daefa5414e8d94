package controlplane

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"k8s.io/apimachinery/pkg/util/rand"
)

// WebhookAccount is the ServiceAccount of sakeeper webhook in manifests/.
const WebhookAccount = "sakeeper-webhook"

// Webhook is where API servers find a sakeeper webhook on this machine.
type Webhook struct {
	// Address is host and port.
	Address string
	// TokensFromSecrets: it may read the Secrets that accounts list.
	TokensFromSecrets bool
}

// NewWebhook chooses an address.
func NewWebhook() (Webhook, error) {
	address, err := freeAddress()
	return Webhook{Address: address}, err
}

// InstallWebhook applies the manifests of sakeeper webhook, with its address in the
// place of its Service, as on a control plane that reaches no Services. The
// namespace must be there.
func (cp *ControlPlane) InstallWebhook(ctx context.Context, w Webhook) error {
	root, err := RepositoryRoot()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp(cp.dir, "webhook-")
	if err != nil {
		return err
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return err
	}
	manifests, err := filepath.Rel(dir, filepath.Join(root, "manifests"))
	if err != nil {
		return err
	}
	components := ""
	if w.TokensFromSecrets {
		components = filepath.Join(manifests, "components/token-volumes-from-secrets")
	}
	text := fmt.Sprintf(`apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [%s]
components: [%s]
patches:
- target: {kind: MutatingWebhookConfiguration}
  patch: '[{"op": "replace", "path": "/webhooks/0/clientConfig", "value": {"url": "https://%[3]s/mutate/pods"}}]'
- target: {kind: ValidatingWebhookConfiguration}
  patch: '[{"op": "replace", "path": "/webhooks/0/clientConfig", "value": {"url": "https://%[3]s/validate/pods"}}]'
`, filepath.Join(manifests, "base/webhook"), components, w.Address)
	if err := os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(text), 0o600); err != nil {
		return err
	}
	return cp.Apply(ctx, dir)
}

// WebhookArgs are the arguments of sakeeper webhook for this control plane and the
// identity that InstallWebhook gave rights to.
func (cp *ControlPlane) WebhookArgs(w Webhook) ([]string, error) {
	identity, err := cp.ServiceAccount(Namespace, WebhookAccount)
	if err != nil {
		return nil, err
	}
	kubeconfig, err := cp.Kubeconfig("webhook-"+rand.String(5)+".kubeconfig", identity)
	if err != nil {
		return nil, err
	}
	host, port, err := net.SplitHostPort(w.Address)
	return []string{
		"webhook", "--kubeconfig", kubeconfig, "--bind-address", host, "--secure-port", port, "--certificate-hosts", host,
	}, err
}
