package e2e

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
)

// TestOnlyTheAPIServerMayCallTheWebhook runs in steps, each on what the one before left.
func TestOnlyTheAPIServerMayCallTheWebhook(t *testing.T) {
	dir := t.TempDir()
	clients := newCertificates(t)
	w, err := controlplane.NewWebhook()
	must(t, err)
	p := newControlPlaneWith(t, controlplane.Options{AdmissionConfigFile: mustConfigureAdmission(t, dir, w, clients)})
	must(t, p.InstallWebhook(t.Context(), w))
	namespace := newTeam(t, p, "team")
	caFile := filepath.Join(dir, "clients.crt")
	mustCopy(t, clients.file("ca.crt"), caFile)

	s := startReadySakeeper(t, p.webhookArgs(t, w, "--client-ca-file", caFile, "--client-name=client", "--client-name=another", "-v=10"))
	expectToken(t, expectAdmitted(t, p.client, namespace, "first"))

	// A client without a certificate, which trusts the webhook.
	secret, err := p.client.CoreV1().Secrets(controlplane.Namespace).Get(t.Context(), certificateSecret, metav1.GetOptions{})
	must(t, err)
	code, text := do(t, caller(t, secret.Data["ca.crt"]), http.MethodPost, "https://"+w.Address+"/mutate/pods", mustJSON(t, review(t, namespace, pod("stranger"))))
	if code != http.StatusForbidden || !strings.HasPrefix(text, "a client certificate is required") {
		t.Errorf("a client without a certificate got %d %s", code, text)
	}
	if _, metrics, err := s.Get(t.Context(), "/metrics"); err != nil || contains(metrics, `sakeeper_webhook_refused_clients_total{reason="no-certificate"} 1`) != nil {
		t.Errorf("the client was not counted, error %v", err)
	}

	// A file that cannot be used changes nothing, and is counted.
	mustReplace(t, caFile, []byte("garbage"))
	expectWebhookEvent(t, p, "ReloadFailed", "The last good client CA stays in use: ")
	if _, metrics, err := s.Get(t.Context(), "/metrics"); err != nil || contains(metrics, `sakeeper_reload_failures_total{source="client-ca"} 1`) != nil {
		t.Errorf("the file was not counted, error %v", err)
	}
	expectToken(t, expectAdmitted(t, p.client, namespace, "second"))

	// With another CA, the API server is refused, and so is the pod, until the CA is back.
	mustCopy(t, newCertificates(t).file("ca.crt"), caFile)
	eventually(t, "a refusal", func(ctx context.Context) error {
		_, err := p.client.CoreV1().Pods(namespace).Create(ctx, pod("third"), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if err == nil {
			return contains("admitted", "refused")
		}
		return contains(err.Error(), "the client certificate is refused: x509: certificate signed by unknown authority")
	})
	if code, text, err := s.Get(t.Context(), "/readyz"); err != nil || code != http.StatusOK {
		t.Errorf("ready: %d %s, error %v", code, text, err)
	}
	mustCopy(t, clients.file("ca.crt"), caFile)
	expectToken(t, expectAdmitted(t, p.client, namespace, "fourth"))
	must(t, s.Stop())

	// Another name.
	startReadySakeeper(t, p.webhookArgs(t, w, "--client-ca-file", caFile, "--client-name=another"))
	eventually(t, "a refusal", func(ctx context.Context) error {
		_, err := p.client.CoreV1().Pods(namespace).Create(ctx, pod("fifth"), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if err == nil {
			return contains("admitted", "refused")
		}
		return contains(err.Error(), "none of its names may call this webhook")
	})
}

// mustConfigureAdmission writes what the chapter on clients of the webhook says to give to an
// API server, and returns the file for --admission-control-config-file.
func mustConfigureAdmission(t *testing.T, dir string, w controlplane.Webhook, clients certificates) string {
	t.Helper()
	kubeconfig := filepath.Join(dir, "webhooks.kubeconfig")
	must(t, clientcmd.WriteToFile(clientcmdapi.Config{AuthInfos: map[string]*clientcmdapi.AuthInfo{
		w.Address: {ClientCertificate: clients.file("client.crt"), ClientKey: clients.file("client.key")},
	}}, kubeconfig))
	chapter, err := os.ReadFile("../cmd/sakeeper/webhook.md")
	must(t, err)
	// The block is in a numbered list, by which it is indented.
	_, after, found := strings.Cut(string(chapter), "   kind: AdmissionConfiguration\n")
	if !found {
		t.Fatal("the chapter has no AdmissionConfiguration")
	}
	content, _, _ := strings.Cut("   apiVersion: apiserver.config.k8s.io/v1\n   kind: AdmissionConfiguration\n"+after, "   ```")
	content = strings.ReplaceAll(strings.ReplaceAll("\n"+content, "\n   ", "\n"), "/etc/kubernetes/sakeeper/webhooks.conf", kubeconfig)
	file := filepath.Join(dir, "admission.yaml")
	must(t, os.WriteFile(file, []byte(strings.TrimSpace(content)+"\n"), 0o600))
	return file
}

func mustCopy(t *testing.T, from, to string) {
	t.Helper()
	content, err := os.ReadFile(from)
	must(t, err)
	mustReplace(t, to, content)
}
