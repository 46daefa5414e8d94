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
	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
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

// TestCoexist installs the overlay coexist in a cluster with the in-tree parts, moves it to
// coexist-webhook, and back.
func TestCoexist(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "coexist", "stock")
	c.overlay = c.manifests("overlays", "coexist")
	before := c.everything(t)
	began := time.Now()
	c.kubectl(t, "apply", "-k", c.overlay)
	c.waitRolledOut(t, namespace, "deployment/sakeeper-controllers")
	t.Logf("from apply to all ready: %v", time.Since(began).Round(100*time.Millisecond))
	agent := c.startAgent(t)
	t.Run("it behaves", func(t *testing.T) { behaviour.Cluster{Admin: c.admin, TokenRequests: true}.Check(t) })
	t.Run("another pod takes over", func(t *testing.T) { failOver(t, c, "deployment/sakeeper-controllers", c.managedToken) })
	t.Run("a policy checks what in-tree does not", func(t *testing.T) { moreReferences(t, c, "strict") })
	t.Run("to coexist-webhook", func(t *testing.T) { toTheWebhook(t, c) })
	t.Run("a webhook checks what in-tree does not", func(t *testing.T) { moreReferences(t, c, "strict-webhook") })
	t.Run("the plugin reads it", func(t *testing.T) { plugin(t, c) })
	t.Run("everything at once", func(t *testing.T) { comeBack(t, c) })
	t.Run("a rolling update", func(t *testing.T) { rollingUpdate(t, c, "deployment/sakeeper-webhook", 0) })
	t.Run("and back", func(t *testing.T) { backToThePolicy(t, c) })
	t.Run("the agent renews", func(t *testing.T) { agent.expectRenewal(t) })
	t.Run("account templates", func(t *testing.T) { templates(t, c) })
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
func moreReferences(t *testing.T, c *cluster, in string) {
	c.newLimitedNamespace(t, in)
	c.expectLimited(t, in, "of-others")
	must(t, c.createPod(t.Context(), "kube-system")) // which is left out
}

// newLimitedNamespace creates a namespace whose default account limits the Secrets of its pods.
func (c *cluster) newLimitedNamespace(t *testing.T, name string) {
	t.Helper()
	c.newNamespace(t, name)
	c.waitAccount(t, name)
	c.kubectl(t, "-n", name, "annotate", "serviceaccount", "default", "kubernetes.io/enforce-mountable-secrets=true")
}

// expectLimited waits until a pod with a Secret that its account does not list is refused with that text.
func (c *cluster) expectLimited(t *testing.T, in, text string) {
	t.Helper()
	eventually(t, "it is refused", func(ctx context.Context) error {
		switch err := c.createUnlisted(ctx, in); {
		case err == nil:
			return errors.New("it was not")
		case apierrors.IsForbidden(err) && strings.Contains(err.Error(), text):
			return nil
		default:
			return err
		}
	})
}

// createUnlisted creates a pod with a Secret that its account does not list.
func (c *cluster) createUnlisted(ctx context.Context, in string) error {
	_, err := c.client.CoreV1().Pods(in).Create(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "p-"},
		Spec: corev1.PodSpec{
			NodeSelector: map[string]string{"sakeeper.io/no": "node"}, Containers: []corev1.Container{{Name: "c", Image: "none:0"}},
			Volumes: []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
				{Secret: &corev1.SecretProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "of-others"}}},
			}}}}},
		},
	}, metav1.CreateOptions{})
	return err
}

// runChapter runs the block of manifests/README.md that begins with that text, in the repository.
func (c *cluster) runChapter(t *testing.T, beginning string) {
	t.Helper()
	script, err := behaviour.Block(c.manifests("README.md"), beginning)
	must(t, err)
	kubectl, err := controlplane.Binary("kubectl")
	must(t, err)
	if out, err := c.command("sh", "-euc", fmt.Sprintf("PATH='%s':$PATH\ncd '%s'\n%s", filepath.Dir(kubectl), c.root, script)); err != nil {
		t.Fatalf("%s: %v: %s", script, err, out)
	}
}

// startMove creates pods in a namespace of that name from now on.
func startMove(t *testing.T, c *cluster, name string) *behaviour.Load {
	t.Helper()
	c.newNamespace(t, name)
	c.waitAccount(t, name)
	eventually(t, "the policy knows the account", func(ctx context.Context) error { return c.createPod(ctx, name) })
	return behaviour.StartLoad(t.Context(), c.client, name, 10)
}

// expectMoved creates some more pods, and expects that none was refused.
func expectMoved(t *testing.T, load *behaviour.Load) {
	t.Helper()
	least := load.Count() + 50
	eventually(t, "pods after the move", func(context.Context) error {
		if n := load.Count(); n < least {
			return fmt.Errorf("%d of %d", n, least)
		}
		return nil
	})
	if r := expectLoad(t, load, 0); len(r.Unreachable) > 0 {
		t.Errorf("not answered: %v", r.Unreachable)
	}
}

// toTheWebhook follows the steps from coexist to coexist-webhook.
func toTheWebhook(t *testing.T, c *cluster) {
	load := startMove(t, c, "moving-there")
	c.runChapter(t, "kubectl apply -k manifests/overlays/coexist-webhook")
	c.waitRolledOut(t, namespace, "deployment/sakeeper-webhook")
	c.runChapter(t, "kubectl wait --for=jsonpath='{.webhooks[0].name}'")
	c.runChapter(t, "kubectl delete -k manifests/components/policies/secret-references")
	expectMoved(t, load)
}

// backToThePolicy follows the steps from coexist-webhook to coexist.
func backToThePolicy(t *testing.T, c *cluster) {
	c.newLimitedNamespace(t, "strict-again")
	load := startMove(t, c, "moving-back")
	c.runChapter(t, "kubectl apply -k manifests/overlays/coexist\n")
	c.expectLimited(t, "strict-again", "ValidatingAdmissionPolicy")
	c.runChapter(t, "kubectl delete validatingwebhookconfiguration sakeeper-webhook\n")
	eventually(t, "the pods of the webhook are gone", func(ctx context.Context) error {
		pods, err := c.webhookPods(ctx)
		if err == nil && len(pods) > 0 {
			err = fmt.Errorf("there are %d", len(pods))
		}
		return err
	})
	expectMoved(t, load)
	c.expectLimited(t, "strict-again", "of-others")
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
