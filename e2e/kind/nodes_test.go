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
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sakeeper/sakeeper/e2e/behaviour"
)

// TestNodes has what needs several nodes, or a load of pods in a running cluster. Its subtests
// build on each other.
func TestNodes(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "nodes", "nodes")
	c.newNamespace(t, "busy")
	c.waitAccount(t, "busy")
	for _, step := range []struct {
		name string
		run  func(*testing.T, *cluster)
	}{
		{"an image that cannot be pulled", unpullableImage},
		{"a node lost after a drain", lostNode},
		{"to replace and back", moveToReplace},
	} {
		if !t.Run(step.name, func(t *testing.T) { step.run(t, c) }) {
			t.FailNow() // the next one needs the state that this one leaves
		}
	}
}

// kustomization writes a kustomization of a user beside a copy of the manifests, and returns its
// directory.
func (c *cluster) kustomization(t *testing.T, content string) string {
	t.Helper()
	dir := t.TempDir()
	must(t, os.CopyFS(filepath.Join(dir, "manifests"), os.DirFS(c.manifests())))
	mine := filepath.Join(dir, "my-cluster")
	must(t, os.Mkdir(mine, 0o700))
	must(t, os.WriteFile(filepath.Join(mine, "kustomization.yaml"), []byte("kind: Kustomization\n"+content), 0o600))
	return mine
}

// tenPercent is ten times the share of pods that may be refused on a machine that is not busy.
const tenPercent = 0.1

// expectLoad ends the load, and checks what became of its pods.
func expectLoad(t *testing.T, load *behaviour.Load, mostRefused float64) behaviour.Result {
	t.Helper()
	r := load.Stop()
	t.Logf("%d pods were created, %d refused (%.2f %%), %d requests were not answered; the longest time without a pod was %v",
		r.Created, len(r.Refused), 100*r.RefusedShare(), len(r.Unreachable), r.LongestGap.Round(time.Millisecond))
	for _, reason := range r.Reasons() {
		t.Logf("refused: %s", reason)
	}
	if r.Created == 0 || r.WithoutToken > 0 || r.RefusedShare() > mostRefused {
		t.Errorf("%d pods were created, %d of them without a token, and %.2f %% refused; want at most %.2f %%", r.Created, r.WithoutToken, 100*r.RefusedShare(), 100*mostRefused)
	}
	return r
}

// unpullableImage: the webhook of coexist-webhook refuses nothing before a replica has ever run, nor when
// the first one begins.
func unpullableImage(t *testing.T, c *cluster) {
	load := behaviour.StartLoad(t.Context(), c.client, "busy", 10)
	c.kubectl(t, "apply", "-k", c.kustomization(t, "resources: [../manifests/overlays/coexist-webhook]\nimages: [{name: sakeeper, newName: registry.invalid/sakeeper, newTag: none}]\n"))
	eventually(t, "no node can pull the image", func(ctx context.Context) error {
		pods, err := c.client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/component=webhook"})
		if err != nil {
			return err
		}
		for _, pod := range pods.Items {
			for _, status := range pod.Status.ContainerStatuses {
				if status.State.Waiting != nil && status.State.Waiting.Reason == "ImagePullBackOff" {
					return nil
				}
			}
		}
		return fmt.Errorf("%d pods do not say so", len(pods.Items))
	})
	c.overlay = c.manifests("overlays", "coexist-webhook")
	c.kubectl(t, "apply", "-k", c.overlay)
	c.waitRolledOut(t, namespace, "deployment/sakeeper-webhook", "deployment/sakeeper-controllers")
	c.waitFilledIn(t, "validatingwebhookconfiguration")
	least := load.Count() + 50
	eventually(t, "pods that the webhook allows", func(context.Context) error {
		if n := load.Count(); n < least {
			return fmt.Errorf("%d of %d", n, least)
		}
		return nil
	})
	expectLoad(t, load, 0)
}

// waitFilledIn waits until the configurations of those kinds have webhooks.
func (c *cluster) waitFilledIn(t *testing.T, kinds ...string) {
	t.Helper()
	for _, kind := range kinds {
		eventually(t, "the webhooks of "+kind, func(context.Context) error {
			out, err := c.try("get", kind, "sakeeper-webhook", "-o", "jsonpath={.webhooks[*].name}")
			if err == nil && out == "" {
				err = errors.New("there are none")
			}
			return err
		})
	}
}

// replicas returns the nodes of the webhook's pods that are ready and not on a lost node.
func (c *cluster) replicas(ctx context.Context, lost string) ([]string, error) {
	pods, err := c.client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/component=webhook"})
	if err != nil {
		return nil, err
	}
	var nodes []string
	for _, pod := range pods.Items {
		if pod.DeletionTimestamp == nil && pod.Spec.NodeName != lost && slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
			return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
		}) {
			nodes = append(nodes, pod.Spec.NodeName)
		}
	}
	slices.Sort(nodes)
	return nodes, nil
}

// lostNode: after a drain, the replicas are on different nodes, so that the loss of one is not that
// of the webhook.
func lostNode(t *testing.T, c *cluster) {
	worker := c.name + "-worker"
	c.kubectl(t, "drain", worker, "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout", patience.String())
	c.waitRolledOut(t, namespace, "deployment/sakeeper-webhook")
	c.kubectl(t, "uncordon", worker)
	nodes, err := c.replicas(t.Context(), "")
	must(t, err)
	if len(nodes) != 2 || nodes[0] == nodes[1] {
		t.Fatalf("after the drain, the replicas are on %v", nodes)
	}
	lost := nodes[1] // a worker: the name of the control plane's node is the first
	load := behaviour.StartLoad(t.Context(), c.client, "busy", 10)
	eventually(t, lost+" freezes", func(context.Context) error { // which fails on a busy machine
		if out, err := c.command("docker", "pause", lost); err != nil {
			return fmt.Errorf("docker pause: %w: %s", err, out)
		}
		return nil
	})
	defer func() { _, _ = c.command("docker", "unpause", lost) }()
	began := time.Now()
	eventually(t, "two replicas on other nodes", func(ctx context.Context) error {
		nodes, err := c.replicas(ctx, lost)
		if err == nil && len(nodes) < 2 {
			err = fmt.Errorf("they are on %v", nodes)
		}
		return err
	})
	t.Logf("two replicas again after %v", time.Since(began).Round(time.Second))
	if r := expectLoad(t, load, 1); r.LongestGap > 45*time.Second {
		t.Errorf("no pod could be created for %v", r.LongestGap)
	}
}

// moveToReplace moves a running cluster from the in-tree parts to the overlay replace, and back.
// After each step either the in-tree parts or those of sakeeper work, or both.
func moveToReplace(t *testing.T, c *cluster) {
	c.kubectl(t, "delete", "validatingwebhookconfiguration", "sakeeper-webhook", "--ignore-not-found")
	c.kubectl(t, "delete", "-k", c.overlay, "--ignore-not-found", "--timeout", patience.String())
	moving := c.kustomization(t, "resources: [../manifests/overlays/replace]\ncomponents: [../manifests/components/webhooks-when-ready]\n")
	c.overlay = c.manifests("overlays", "replace")
	load := behaviour.StartLoad(t.Context(), c.client, "busy", 10)

	// To replace: the keys, the pods beside the in-tree parts, then without them, then the rest.
	c.importKey(t)
	c.kubectl(t, "apply", "-k", moving)
	c.waitRolledOut(t, namespace, "daemonset/sakeeper-controllers", "daemonset/sakeeper-webhook")
	c.waitFilledIn(t, "mutatingwebhookconfiguration", "validatingwebhookconfiguration")
	c.onNodeMust(t, `mkdir /opt/in-tree && cp /etc/kubernetes/manifests/kube-{apiserver,controller-manager}.yaml /opt/in-tree
	cd /opt/in-tree
	sed -e 's,^    - kube-apiserver$,&\n    - --disable-admission-plugins=ServiceAccount\n    - --enable-aggregator-routing=true,' kube-apiserver.yaml > /opt/new.yaml
	mv /opt/new.yaml /etc/kubernetes/manifests/kube-apiserver.yaml`)
	c.waitProcess(t, "kube-apiserver.*disable-admission-plugins=ServiceAccount")
	c.onNodeMust(t, `cd /opt/in-tree
	sed -e 's/--controllers=.*/&,-serviceaccount-controller,-root-ca-certificate-publisher-controller,-legacy-serviceaccount-token-cleaner-controller/' \
		-e '/--service-account-private-key-file=/d' kube-controller-manager.yaml > /opt/new.yaml
	mv /opt/new.yaml /etc/kubernetes/manifests/kube-controller-manager.yaml`)
	c.waitProcess(t, "kube-controller-manager.*-serviceaccount-controller")
	c.kubectl(t, "apply", "-k", c.overlay)
	c.defaultAccount(t, "after-the-move")
	there := load.Count()

	// And back: the in-tree parts, then nothing calls the webhook, then it goes.
	c.onNodeMust(t, "cp /opt/in-tree/kube-controller-manager.yaml /opt/in-tree/kube-apiserver.yaml /etc/kubernetes/manifests/")
	c.waitProcess(t, "kube-apiserver.*enable-admission-plugins=NodeRestriction")
	eventually(t, "the API server admits pods by itself", func(context.Context) error {
		if out, err := c.onNode("pgrep", "-f", "kube-apiserver.*disable-admission-plugins=ServiceAccount"); err == nil {
			return fmt.Errorf("process %s does not", out)
		}
		return c.answers(t.Context())
	})
	c.kubectl(t, "delete", "mutatingwebhookconfiguration,validatingwebhookconfiguration", "sakeeper-webhook")
	c.kubectl(t, "delete", "-k", c.overlay, "--ignore-not-found", "--timeout", patience.String())
	c.defaultAccount(t, "after-all")
	t.Logf("%d pods until the cluster was moved, %d until it was back", there, load.Count())
	expectLoad(t, load, tenPercent)
}

// waitProcess waits until a process with that command line runs on the node, and the API server
// answers.
func (c *cluster) waitProcess(t *testing.T, pattern string) {
	t.Helper()
	eventually(t, pattern, func(ctx context.Context) error {
		if out, err := c.onNode("pgrep", "-f", pattern); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return c.answers(ctx)
	})
}

func (c *cluster) answers(ctx context.Context) error {
	answer, err := c.client.CoreV1().RESTClient().Get().AbsPath("/readyz").DoRaw(ctx)
	if err == nil && strings.TrimSpace(string(answer)) != "ok" {
		err = fmt.Errorf("%s", answer)
	}
	return err
}
