package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
)

// coexistAt copies the manifests, with the overlay coexist-webhook for a webhook at that address, and
// returns the directory of the overlay.
func coexistAt(t *testing.T, w controlplane.Webhook) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "manifests")
	must(t, os.CopyFS(dir, os.DirFS("../manifests")))
	overlay := filepath.Join(dir, "overlays", "coexist-webhook")
	path := filepath.Join(overlay, "webhooks.yaml")
	content, err := os.ReadFile(path)
	must(t, err)
	service := regexp.MustCompile(`service:\n(\s+(namespace|name|path): .*\n)+`)
	changed := service.ReplaceAllString(string(content), "url: https://"+w.Address+"/validate/pods\n")
	if changed == string(content) {
		t.Fatalf("%s names no service", path)
	}
	must(t, os.WriteFile(path, []byte(changed), 0o600))
	return overlay
}

// TestCoexistWebhookRefusesNothingBeforeItServes: the configuration comes without webhooks, a replica
// fills them in, and from then on they are kept and fail closed.
func TestCoexistWebhookRefusesNothingBeforeItServes(t *testing.T) {
	p := newControlPlaneWith(t, controlplane.Options{PodAdmission: true})
	kubeconfig, err := p.Kubeconfig("coexist.kubeconfig", p.Admin)
	must(t, err)
	kubectl, err := controlplane.Binary("kubectl")
	must(t, err)
	w, err := controlplane.NewWebhook()
	must(t, err)
	overlay := coexistAt(t, w)
	apply := func() string {
		out, err := exec.CommandContext(t.Context(), kubectl, "--kubeconfig", kubeconfig, "apply", "-k", overlay).CombinedOutput()
		if err != nil {
			t.Fatalf("apply: %v: %s", err, out)
		}
		return string(out)
	}
	namespace := newTeam(t, p, "team")
	created := 0
	create := func(ctx context.Context, change func(*corev1.Pod)) error {
		created++
		wanted := pod(fmt.Sprintf("pod-%d", created))
		change(wanted)
		_, err := p.client.CoreV1().Pods(namespace).Create(ctx, wanted, metav1.CreateOptions{})
		return err
	}
	plain := func(*corev1.Pod) {}

	apply()
	for range 20 { // no replica has ever run
		must(t, create(t.Context(), plain))
	}
	s := startReadySakeeper(t, p.webhookArgs(t, w, "--mutating-webhook-configuration=", "--secret-reference-scope=all"))
	webhooks := func(ctx context.Context) (int, error) {
		c, err := p.client.AdmissionregistrationV1().ValidatingWebhookConfigurations().Get(ctx, "sakeeper-webhook", metav1.GetOptions{})
		if err != nil {
			return 0, err
		}
		return len(c.Webhooks), nil
	}
	eventually(t, "a list of webhooks", func(ctx context.Context) error {
		must(t, create(t.Context(), plain)) // is never refused
		n, err := webhooks(ctx)
		if err == nil && n != 1 {
			err = fmt.Errorf("there are %d webhooks", n)
		}
		return err
	})
	t.Logf("%d pods were created before the webhook was called, none was refused", created)
	expectWebhookEvent(t, p, "FilledInWebhooks", "Filled in the webhooks of ValidatingWebhookConfiguration sakeeper-webhook")

	account, err := p.client.CoreV1().ServiceAccounts(namespace).Get(t.Context(), "default", metav1.GetOptions{})
	must(t, err)
	account.Annotations = map[string]string{"kubernetes.io/enforce-mountable-secrets": "true"}
	_, err = p.client.CoreV1().ServiceAccounts(namespace).Update(t.Context(), account, metav1.UpdateOptions{})
	must(t, err)
	eventually(t, "a pod with a Secret that only the webhook limits is refused", func(ctx context.Context) error {
		err := create(ctx, func(p *corev1.Pod) {
			p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
				{Secret: &corev1.SecretProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "of-others"}}},
			}}}}}
		})
		if apierrors.IsForbidden(err) && strings.Contains(err.Error(), "of-others") {
			return nil
		}
		return fmt.Errorf("it was created, or: %w", err)
	})
	if again := apply(); !strings.Contains(again, "validatingwebhookconfiguration.admissionregistration.k8s.io/sakeeper-webhook unchanged") {
		t.Errorf("applied again: %s", again)
	}
	if n, err := webhooks(t.Context()); n != 1 || err != nil {
		t.Errorf("after it was applied again, there are %d webhooks, error %v", n, err)
	}
	must(t, s.Stop())
	if err := create(t.Context(), plain); !apierrors.IsInternalError(err) {
		t.Errorf("a pod without a replica: %v", err)
	}
}
