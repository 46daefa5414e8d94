// Package kind tests sakeeper as an admin installs it: the image and the overlays of
// manifests, in clusters of kind. It needs a docker engine, so `make e2e-kind` runs it,
// and nothing else does.
package kind

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sakeeper/sakeeper/e2e/behaviour"
)

func TestMain(m *testing.M) {
	if os.Getenv("E2E_KIND") == "" {
		fmt.Println("e2e/kind is skipped: it needs a docker engine. `make e2e-kind` runs it.")
		return
	}
	os.Exit(m.Run())
}

// TestReplace installs the overlay replace in a cluster without the in-tree parts.
func TestReplace(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "replace", "bare")
	c.overlay = c.manifests("overlays", "replace")
	before := c.everything(t)
	becomeWhole(t, c)
	agent := c.startAgent(t)
	t.Run("it behaves", func(t *testing.T) { behaviour.Cluster{Admin: c.admin}.Check(t) })
	t.Run("another pod takes over", func(t *testing.T) { failOver(t, c, "daemonset/sakeeper-controllers", c.defaultAccount) })
	t.Run("everything at once", func(t *testing.T) { comeBack(t, c) })
	t.Run("a rolling update", func(t *testing.T) { rollingUpdate(t, c, "daemonset/sakeeper-webhook", tenPercent) })
	t.Run("the agent renews", func(t *testing.T) { agent.expectRenewal(t) })
	t.Run("it goes without a trace", func(t *testing.T) { remove(t, c, before) })
	t.Run("without a key it says so", func(t *testing.T) { missingKey(t, c) })
}

// TestCoexist installs the overlay coexist in a cluster with the in-tree parts.
func TestCoexist(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "coexist", "stock")
	c.overlay = c.manifests("overlays", "coexist")
	before := c.everything(t)
	began := time.Now()
	c.kubectl(t, "apply", "-k", c.overlay)
	c.waitRolledOut(t, namespace, "deployment/sakeeper-controllers", "deployment/sakeeper-webhook")
	c.waitFilledIn(t, "validatingwebhookconfiguration")
	t.Logf("from apply to all ready: %v", time.Since(began).Round(100*time.Millisecond))
	agent := c.startAgent(t)
	t.Run("it behaves", func(t *testing.T) { behaviour.Cluster{Admin: c.admin, TokenRequests: true}.Check(t) })
	t.Run("another pod takes over", func(t *testing.T) { failOver(t, c, "deployment/sakeeper-controllers", c.managedToken) })
	t.Run("it checks what in-tree does not", func(t *testing.T) { moreReferences(t, c) })
	t.Run("everything at once", func(t *testing.T) { comeBack(t, c) })
	t.Run("a rolling update", func(t *testing.T) { rollingUpdate(t, c, "deployment/sakeeper-webhook", 0) })
	t.Run("the agent renews", func(t *testing.T) { agent.expectRenewal(t) })
	t.Run("it goes without a trace", func(t *testing.T) { remove(t, c, before) })
}

// expectBare checks that the in-tree parts are disabled. Older releases of kubeadm ignore
// settings of a version that they do not know, and the tests would pass with the in-tree parts.
func (c *cluster) expectBare(t *testing.T) {
	t.Helper()
	for _, want := range []struct{ part, flag string }{
		{"kube-apiserver", "--disable-admission-plugins=ServiceAccount"},
		{"kube-controller-manager", ",-serviceaccount-controller,-root-ca-certificate-publisher-controller,"},
		{"kube-controller-manager", "--service-account-private-key-file=\n"},
	} {
		manifest, err := c.onNode("cat", "/etc/kubernetes/manifests/"+want.part+".yaml")
		if err != nil || !strings.Contains(manifest, want.flag) {
			t.Fatalf("%s does not run with %q (%v): the in-tree parts are not off, which testdata/bare.yaml can say to Kubernetes 1.36 and newer", want.part, want.flag, err)
		}
	}
}

// importKey imports the signing key of the API server.
func (c *cluster) importKey(t *testing.T) {
	t.Helper()
	key := filepath.Join(t.TempDir(), "sa.key")
	out, err := c.command("docker", "cp", c.node+":/etc/kubernetes/pki/sa.key", key)
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	c.kubectl(t, "apply", "-k", c.manifests("base", "namespace"))
	out, err = c.command("bin/sakeeper", "keys", "import", "--kubeconfig", c.kubeconfig, "--secret=sakeeper-system/sakeeper-signing-keys", "--max-token-expiration=8760h", "--file", key)
	if err != nil {
		t.Fatalf("keys import: %v: %s", err, out)
	}
}

// becomeWhole follows manifests/README.md.
func becomeWhole(t *testing.T, c *cluster) {
	t.Helper()
	began := time.Now()
	c.importKey(t)
	c.kubectl(t, "apply", "-k", c.overlay)
	c.waitRolledOut(t, namespace, "daemonset/sakeeper-controllers", "daemonset/sakeeper-webhook")
	t.Logf("from apply to all ready: %v", time.Since(began).Round(100*time.Millisecond))
	c.kubectl(t, "-n", "kube-system", "rollout", "restart", "ds/kube-proxy", "deploy/coredns")
	c.waitRolledOut(t, "kube-system", "ds/kube-proxy", "deploy/coredns")
	t.Logf("from apply to a whole cluster: %v", time.Since(began).Round(100*time.Millisecond))
}

// moreReferences checks a projected Secret, which in-tree does not check.
func moreReferences(t *testing.T, c *cluster) {
	c.newNamespace(t, "strict")
	c.waitAccount(t, "strict")
	c.kubectl(t, "-n", "strict", "annotate", "serviceaccount", "default", "kubernetes.io/enforce-mountable-secrets=true")
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "p-"},
		Spec: corev1.PodSpec{
			NodeSelector: map[string]string{"sakeeper.io/no": "node"}, Containers: []corev1.Container{{Name: "c", Image: "none:0"}},
			Volumes: []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
				{Secret: &corev1.SecretProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "of-others"}}},
			}}}}},
		},
	}
	eventually(t, "it is refused", func(ctx context.Context) error {
		switch _, err := c.client.CoreV1().Pods("strict").Create(ctx, pod, metav1.CreateOptions{}); {
		case err == nil:
			return errors.New("it was not")
		case apierrors.IsForbidden(err) && strings.Contains(err.Error(), "of-others"):
			return nil
		default:
			return err
		}
	})
	must(t, c.createPod(t.Context(), "kube-system")) // for which the webhook is not called
}

// missingKey checks that the log and the status of the pod have the reason. The order of objects
// is the worst one here, so that they must be applied twice.
func missingKey(t *testing.T, c *cluster) {
	documents := strings.Split(c.kubectl(t, "kustomize", c.overlay), "\n---\n")
	slices.Reverse(documents)
	file := filepath.Join(t.TempDir(), "reversed.yaml")
	must(t, os.WriteFile(file, []byte(strings.Join(documents, "\n---\n")+"\n"), 0o600))
	if out, err := c.try("apply", "-f", file); err == nil {
		t.Errorf("there was a namespace before there was one: %s", out)
	}
	c.kubectl(t, "apply", "-f", file)
	t.Cleanup(func() { _, _ = c.try("delete", "-k", c.overlay, "--wait=false") })
	const want = "--key-dir"
	eventually(t, "the status says it", func(ctx context.Context) error {
		pods, err := c.client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/component=controllers"})
		if err != nil {
			return err
		}
		for _, pod := range pods.Items {
			for _, status := range pod.Status.ContainerStatuses {
				for _, ended := range []*corev1.ContainerStateTerminated{status.State.Terminated, status.LastTerminationState.Terminated} {
					if ended != nil && strings.Contains(ended.Message, want) {
						t.Logf("status: %s", ended.Message)
						return nil
					}
				}
			}
		}
		return fmt.Errorf("%d pods say nothing", len(pods.Items))
	})
}
