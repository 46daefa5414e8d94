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

// Webhook configures a sakeeper webhook on this machine.
type Webhook struct {
	// Address is its host:port.
	Address string
	// TokensFromSecrets grants it the reading of Secrets, for --token-volume-source=secret.
	TokensFromSecrets bool
}

// NewWebhook returns one with a free port.
func NewWebhook() (Webhook, error) {
	address, err := FreeAddress()
	return Webhook{Address: address}, err
}

// InstallWebhook applies the manifests of sakeeper webhook, with a URL instead of its
// Service, as for an API server that cannot reach Services. The namespace must exist.
func (cp *ControlPlane) InstallWebhook(ctx context.Context, w Webhook) error {
	dirs := []string{"base/webhook"}
	if w.TokensFromSecrets {
		dirs = append(dirs, "components/token-volumes-from-secrets")
	}
	return cp.apply(ctx, w.replaceService, dirs...)
}

// replaceService replaces the Service of a webhook configuration by a URL.
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

// WebhookArgs returns the arguments of sakeeper webhook for this control plane, with a
// kubeconfig of the ServiceAccount that InstallWebhook created.
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
