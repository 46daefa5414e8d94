package e2e

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
)

// TestAPortIsHandedOverByWhoIsReady: a process that shares the port of another one accepts no
// review before it can answer, and all of them after the other one has stopped.
func TestAPortIsHandedOverByWhoIsReady(t *testing.T) {
	p := newControlPlane(t)
	startReadySakeeper(t, p.sakeeperArgs(t))
	namespace := newNamespace(t, p.client)
	const share = "--permit-port-sharing"
	w, first := startWebhook(t, p, share)
	expectAdmitted(t, p.client, namespace, "first")
	secrets := p.client.CoreV1().Secrets(controlplane.Namespace)
	secret, err := secrets.Get(t.Context(), certificateSecret, metav1.GetOptions{})
	must(t, err)
	bundle := secret.Data["ca.crt"]

	// A process that starts without the Secret has no certificate.
	must(t, secrets.Delete(t.Context(), certificateSecret, metav1.DeleteOptions{}))
	second := startSakeeper(t, p.webhookArgs(t, w, share))
	eventually(t, "the second one waits", func(ctx context.Context) error {
		code, text, err := second.Get(ctx, "/readyz")
		if err == nil && (code != http.StatusServiceUnavailable || !strings.Contains(text, "[+] service accounts: ok") || !strings.Contains(text, "[-] port: ")) {
			err = fmt.Errorf("%d %s", code, text)
		}
		return err
	})
	body := mustJSON(t, review(t, namespace, pod("asked")))
	for i := range 40 { // the kernel would send half of them to the second one
		if code, answer := do(t, caller(t, bundle), http.MethodPost, "https://"+w.Address+"/mutate/pods", body); code != http.StatusOK {
			t.Fatalf("connection %d: %d %s", i, code, answer)
		}
	}

	must(t, p.InstallWebhook(t.Context(), w))
	must(t, second.WaitReady(t.Context()))
	must(t, first.Signal(syscall.SIGTERM))
	must(t, first.Wait())
	expectToken(t, expectAdmitted(t, p.client, namespace, "second"))
}
