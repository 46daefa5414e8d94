package controlplane

import (
	"context"
	"fmt"
	"net"

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
	components := []string{noPods}
	if w.TokensFromSecrets {
		components = append(components, "token-volumes-from-secrets")
	}
	return cp.kustomize(ctx, "base/webhook", components, fmt.Sprintf(`patches:
- target: {kind: MutatingWebhookConfiguration}
  patch: '[{"op": "replace", "path": "/webhooks/0/clientConfig", "value": {"url": "https://%[1]s/mutate/pods"}}]'
- target: {kind: ValidatingWebhookConfiguration}
  patch: '[{"op": "replace", "path": "/webhooks/0/clientConfig", "value": {"url": "https://%[1]s/validate/pods"}}]'
`, w.Address))
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
