package controlplane

import (
	"context"
	"fmt"
	"net"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
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
	dirs := []string{"base/webhook"}
	if w.TokensFromSecrets {
		dirs = append(dirs, "components/token-volumes-from-secrets")
	}
	return cp.apply(ctx, w.replaceService, dirs...)
}

// replaceService puts the address in the place of the Service of a webhook configuration.
func (w Webhook) replaceService(o *unstructured.Unstructured) error {
	webhooks, found, err := unstructured.NestedSlice(o.Object, "webhooks")
	if err != nil || !found {
		return err
	}
	for _, entry := range webhooks {
		webhook, _ := entry.(map[string]any)
		path, _, err := unstructured.NestedString(webhook, "clientConfig", "service", "path")
		if err != nil {
			return fmt.Errorf("%s %s: %w", o.GetKind(), o.GetName(), err)
		}
		webhook["clientConfig"] = map[string]any{"url": "https://" + w.Address + path}
	}
	return unstructured.SetNestedSlice(o.Object, webhooks, "webhooks")
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
