package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
)

// newInTreePlane starts a control plane with the in-tree plugin and with nothing of sakeeper in it.
func newInTreePlane(t *testing.T) controlPlane {
	t.Helper()
	cp, err := controlplane.Start(controlplane.Options{Dir: t.TempDir(), PodAdmission: true})
	must(t, err)
	t.Cleanup(func() {
		if err := errors.Join(cp.Stop(), rights.note(cp)); err != nil {
			t.Errorf("stop control plane: %v", err)
		}
	})
	return controlPlane{cp, mustClient(t, cp.Admin)}
}

// shell runs a script in a directory, with kubectl as the administrator, and returns its output.
func (p controlPlane) shell(t *testing.T, dir, script string) string {
	t.Helper()
	kubeconfig, err := p.Kubeconfig("shell.kubeconfig", p.Admin)
	must(t, err)
	kubectl, err := controlplane.Binary("kubectl")
	must(t, err)
	cmd := exec.CommandContext(t.Context(), "sh", "-euc", script)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "KUBECONFIG="+kubeconfig, "PATH="+filepath.Dir(kubectl)+":"+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", script, err, out)
	}
	return string(out)
}

// limit sets the annotation of the account default that limits the Secrets of its pods.
func limit(t *testing.T, p controlPlane, namespace string) {
	t.Helper()
	_, err := p.client.CoreV1().ServiceAccounts(namespace).Patch(t.Context(), "default", types.MergePatchType,
		[]byte(`{"metadata":{"annotations":{"kubernetes.io/enforce-mountable-secrets":"true"}}}`), metav1.PatchOptions{})
	must(t, err)
}

// tryUnlisted tries to create a pod with a Secret that its account does not list, where the in-tree
// plugin does not look.
func tryUnlisted(ctx context.Context, p controlPlane, namespace string) error {
	_, err := p.client.CoreV1().Pods(namespace).Create(ctx, csiPod("unlisted", "of-others"), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	return err
}

const refusedByPolicy = `ValidatingAdmissionPolicy 'sakeeper-secret-references' with binding 'sakeeper-secret-references' denied request: `

// expectLimitedByPolicy waits until the policy refuses a pod of the namespace, which comes before any webhook.
func expectLimitedByPolicy(t *testing.T, p controlPlane, namespace string) {
	t.Helper()
	eventually(t, "a refusal of the policy", func(ctx context.Context) error {
		err := tryUnlisted(ctx, p, namespace)
		if apierrors.IsForbidden(err) && strings.Contains(err.Error(), refusedByPolicy) && strings.Contains(err.Error(), `"of-others" is not allowed`) {
			return nil
		}
		return fmt.Errorf("it was created, or: %w", err)
	})
}

// TestCoexistAsShipped: the overlay limits pods without a process and without a webhook, and its
// rights are enough for tokens that expire.
func TestCoexistAsShipped(t *testing.T) {
	p := newInTreePlane(t)
	p.shell(t, "..", "kubectl apply -k manifests/overlays/coexist")
	namespace := newTeam(t, p, "team")
	limit(t, p, namespace)
	expectLimitedByPolicy(t, p, namespace)
	expectToken(t, mustCreatePod(t, p.client, namespace, pod("allowed")))
	listed := newTeam(t, p, "listed")
	limit(t, p, listed)
	_, err := p.client.CoreV1().ServiceAccounts(listed).Patch(t.Context(), "default", types.MergePatchType, []byte(`{"secrets":[{"name":"of-others"}]}`), metav1.PatchOptions{})
	must(t, err)
	eventually(t, "a pod with a Secret that its account lists", func(ctx context.Context) error { return tryUnlisted(ctx, p, listed) })
	unlimited := newTeam(t, p, "unlimited")
	eventually(t, "a pod of an account without the annotation", func(ctx context.Context) error { return tryUnlisted(ctx, p, unlimited) })

	startReadySakeeper(t, p.sakeeperArgs(t, "--controllers=token-request-controller"))
	serve(t, p, namespace, `"allowed"`)
	mustCreateAccount(t, p.client, namespace, "robot")
	_, err = p.client.CoreV1().Secrets(namespace).Create(t.Context(), managed("s", nil), metav1.CreateOptions{})
	must(t, err)
	expectManaged(t, p, namespace, "s", "", corev1.ServiceAccountTokenKey, corev1.ServiceAccountRootCAKey, corev1.ServiceAccountNamespaceKey)
	for _, kind := range []string{"mutatingwebhookconfigurations", "validatingwebhookconfigurations"} {
		if out := p.shell(t, "..", "kubectl get -o name "+kind); out != "" {
			t.Errorf("there are %s", out)
		}
	}
}
