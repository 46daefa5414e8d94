package kind

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// templated is the overlay with account templates, their policy, and copies of pull secrets.
const templated = `apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [%[1]s/overlays/coexist]
components:
- %[1]s/components/account-templates
- %[1]s/components/policies/account-templates
- %[1]s/components/pull-secret-copies
patches:
- target: {kind: Deployment, name: sakeeper-controllers}
  patch: |
    - op: replace
      path: /spec/template/spec/containers/0/args/1
      value: --controllers=token-request-controller,service-account-template-controller,pull-secret-copy-controller
    - op: add
      path: /spec/template/spec/containers/0/args/-
      value: --pull-secret-source-namespaces=registry
`

// templates installs account templates beside the overlay, and takes them away again. The first pod
// of a new namespace already has what a template says.
func templates(t *testing.T, c *cluster) {
	dir := t.TempDir()
	manifests, err := filepath.Rel(dir, c.manifests())
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "kustomization.yaml"), fmt.Appendf(nil, templated, manifests), 0o600))
	eventually(t, "it is applied", func(context.Context) error { // the policy needs the definition
		if out, err := c.try("apply", "-k", dir); err != nil {
			return errors.New(out)
		}
		return nil
	})
	c.waitRolledOut(t, namespace, "deployment/sakeeper-controllers")
	c.newNamespace(t, "registry")
	c.kubectl(t, "-n", "registry", "create", "secret", "docker-registry", "pull", "--docker-server=registry.example.com", "--docker-username=u", "--docker-password=p")
	c.kubectl(t, "apply", "-f", "testdata/template.yaml")
	c.kubectl(t, "wait", "sat/templated", "--for=condition=Ready", "--timeout", patience.String())
	c.newNamespace(t, "templated")
	var first *corev1.Pod
	eventually(t, "the first pod", func(ctx context.Context) (err error) {
		first, err = c.client.CoreV1().Pods("templated").Create(ctx, unscheduled(), metav1.CreateOptions{})
		return err
	})
	if len(first.Spec.Volumes) > 0 || len(first.Spec.ImagePullSecrets) != 1 || first.Spec.ImagePullSecrets[0].Name != "copied" {
		t.Errorf("the first pod has volumes %v and pull secrets %v", first.Spec.Volumes, first.Spec.ImagePullSecrets)
	}
	eventually(t, "the copy", func(ctx context.Context) error {
		secret, err := c.client.CoreV1().Secrets("templated").Get(ctx, "copied", metav1.GetOptions{})
		if err == nil && !strings.Contains(string(secret.Data[corev1.DockerConfigJsonKey]), "registry.example.com") {
			err = errors.New("it is another Secret")
		}
		return err
	})
	if out := c.kubectl(t, "get", "sat", "templated", "-o", "wide"); !strings.Contains(out, "True") {
		t.Errorf("kubectl get sat: %s", out)
	}
	c.kubectl(t, "delete", "-k", c.manifests("components", "policies", "account-templates"), "--ignore-not-found")
	c.kubectl(t, "delete", "sat", "--all", "--timeout", patience.String())
	eventually(t, "all is taken back", func(ctx context.Context) error {
		account, err := c.client.CoreV1().ServiceAccounts("templated").Get(ctx, "default", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if account.AutomountServiceAccountToken != nil || len(account.ImagePullSecrets) > 0 || len(account.Annotations) > 0 {
			return fmt.Errorf("it has %v, %v, %v", account.AutomountServiceAccountToken, account.ImagePullSecrets, account.Annotations)
		}
		if _, err = c.client.CoreV1().Secrets("templated").Get(ctx, "copied", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			return fmt.Errorf("the copy: %w", err)
		}
		return nil
	})
	c.kubectl(t, "delete", "-k", dir, "--ignore-not-found", "--timeout", patience.String())
	c.kubectl(t, "apply", "-k", c.overlay)
	c.waitRolledOut(t, namespace, "deployment/sakeeper-controllers")
}

// unscheduled is a pod that no node takes.
func unscheduled() *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "p-"},
		Spec:       corev1.PodSpec{NodeSelector: map[string]string{"sakeeper.io/no": "node"}, Containers: []corev1.Container{{Name: "c", Image: "none:0"}}},
	}
}
