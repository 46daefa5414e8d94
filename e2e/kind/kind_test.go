// Package kind tests sakeeper as an admin installs it: the image and the overlays of
// manifests, in clusters of kind. It needs a docker engine, so `make e2e-kind` runs it,
// and nothing else does.
package kind

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sakeeper/sakeeper/e2e/behaviour"
	"github.com/sakeeper/sakeeper/pkg/testkit"
)

func TestMain(m *testing.M) {
	if os.Getenv("E2E_KIND") == "" {
		fmt.Println("e2e/kind is skipped: it needs a docker engine. `make e2e-kind` runs it.")
		return
	}
	os.Exit(m.Run())
}

// TestReplace: a cluster without any in-tree part becomes whole.
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
	t.Run("a rolling update", func(t *testing.T) { rollingUpdate(t, c, "daemonset/sakeeper-webhook") })
	t.Run("the agent renews", func(t *testing.T) { agent.expectRenewal(t) })
	t.Run("it goes without a trace", func(t *testing.T) { remove(t, c, before) })
	t.Run("without a key it says so", func(t *testing.T) { missingKey(t, c) })
}

// TestCoexist: beside the in-tree parts.
func TestCoexist(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "coexist", "stock")
	c.overlay = c.manifests("overlays", "coexist")
	before := c.everything(t)
	began := time.Now()
	c.kubectl(t, "apply", "-k", c.overlay)
	c.waitRolledOut(t, namespace, "deployment/sakeeper-controllers", "deployment/sakeeper-webhook")
	// kube-proxy needs a moment to know the new Service.
	eventually(t, "a pod is admitted", func(ctx context.Context) error { return c.createPod(ctx, "default") })
	t.Logf("from apply to all ready: %v", time.Since(began).Round(100*time.Millisecond))
	agent := c.startAgent(t)
	t.Run("it behaves", func(t *testing.T) { behaviour.Cluster{Admin: c.admin, TokenRequests: true}.Check(t) })
	t.Run("another pod takes over", func(t *testing.T) { failOver(t, c, "deployment/sakeeper-controllers", c.managedToken) })
	t.Run("it checks what in-tree does not", func(t *testing.T) { moreReferences(t, c) })
	t.Run("everything at once", func(t *testing.T) { comeBack(t, c) })
	t.Run("a rolling update", func(t *testing.T) { rollingUpdate(t, c, "deployment/sakeeper-webhook") })
	t.Run("the agent renews", func(t *testing.T) { agent.expectRenewal(t) })
	t.Run("it goes without a trace", func(t *testing.T) { remove(t, c, before) })
}

// becomeWhole does what the README says.
func becomeWhole(t *testing.T, c *cluster) {
	t.Helper()
	key := filepath.Join(t.TempDir(), "sa.key")
	out, err := c.command("docker", "cp", c.node+":/etc/kubernetes/pki/sa.key", key)
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	began := time.Now()
	c.kubectl(t, "apply", "-k", c.manifests("base", "namespace"))
	out, err = c.command("bin/sakeeper", "keys", "import", "--kubeconfig", c.kubeconfig, "--secret=sakeeper-system/sakeeper-signing-keys", "--max-token-expiration=8760h", "--file", key)
	if err != nil {
		t.Fatalf("keys import: %v: %s", err, out)
	}
	c.kubectl(t, "apply", "-k", c.overlay)
	c.waitRolledOut(t, namespace, "daemonset/sakeeper-controllers", "daemonset/sakeeper-webhook")
	t.Logf("from apply to all ready: %v", time.Since(began).Round(100*time.Millisecond))
	c.kubectl(t, "-n", "kube-system", "rollout", "restart", "ds/kube-proxy", "deploy/coredns")
	c.waitRolledOut(t, "kube-system", "ds/kube-proxy", "deploy/coredns")
	t.Logf("from apply to a whole cluster: %v", time.Since(began).Round(100*time.Millisecond))
}

// agent is the pod of testdata/agent.yaml.
type agent struct {
	*cluster
	uid   string
	first string
}

// startAgent starts the pod, which asks the API server with the token that it was given,
// by the address that every pod has.
func (c *cluster) startAgent(t *testing.T) agent {
	t.Helper()
	c.newNamespace(t, "agent")
	c.waitAccount(t, "agent")
	c.kubectl(t, "-n", "agent", "apply", "-f", "testdata/agent.yaml")
	c.kubectl(t, "-n", "agent", "wait", "--for=condition=Ready", "pod/app", "--timeout", patience.String())
	pod, err := c.client.CoreV1().Pods("agent").Get(t.Context(), "app", metav1.GetOptions{})
	must(t, err)
	if !slices.ContainsFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return strings.HasPrefix(v.Name, "kube-api-access-") }) {
		t.Errorf("the pod was given no token: %v", pod.Spec.Volumes)
	}
	a := agent{cluster: c, uid: string(pod.UID)}
	eventually(t, "a token in the file", func(context.Context) (err error) {
		a.first, err = a.token()
		return err
	})
	return a
}

// token is what is in the file now.
func (a agent) token() (string, error) {
	out, err := a.onNode("cat", "/var/lib/kubelet/pods/"+a.uid+"/volumes/kubernetes.io~empty-dir/tokens/token")
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return out, nil
}

// expectRenewal waits for 80 % of ten minutes, less what has passed.
func (a agent) expectRenewal(t *testing.T) {
	var second string
	testkit.Await(t, time.Second, 10*time.Minute, "another token", func(context.Context) (err error) {
		if second, err = a.token(); err == nil && second == a.first {
			err = errors.New("it is the first one")
		}
		return err
	})
	if user, err := behaviour.WhoAmI(t.Context(), a.admin, second); err != nil || user != "system:serviceaccount:agent:robot" {
		t.Errorf("the token is that of %q: %v", user, err)
	}
}

// failOver kills who works, by force and gently, and sees how long it takes until work
// goes on. waitWork makes work, in a namespace of that name, and waits until it is done.
func failOver(t *testing.T, c *cluster, workload string, waitWork func(t *testing.T, name string)) {
	leader := func() string {
		lease, err := c.client.CoordinationV1().Leases(namespace).Get(t.Context(), "sakeeper-controllers", metav1.GetOptions{})
		must(t, err)
		if lease.Spec.HolderIdentity == nil {
			return ""
		}
		return *lease.Spec.HolderIdentity
	}
	for _, way := range []struct {
		name  string
		kill  func(pod string) (string, error)
		guard time.Duration // ten times what is promised
	}{
		{"killed", c.killProcess, 250 * time.Second},
		{"stopped", func(pod string) (string, error) {
			return c.try("-n", namespace, "delete", "pod", pod)
		}, 50 * time.Second},
	} {
		c.waitRolledOut(t, namespace, workload)
		before := leader()
		pod := c.leaderPod(t, before)
		if out, err := way.kill(pod); err != nil {
			t.Fatalf("%s: %v: %s", way.name, err, out)
		}
		began := time.Now()
		waitWork(t, "after-"+way.name)
		took := time.Since(began).Round(10 * time.Millisecond)
		t.Logf("%s: work goes on after %v", way.name, took)
		if took > way.guard {
			t.Errorf("%s: it took more than %v", way.name, way.guard)
		}
		if after := leader(); after == before {
			t.Errorf("%s: %s works as before", way.name, after)
		}
	}
	c.waitRolledOut(t, namespace, workload)
}

// leaderPod is the pod with that identity: it begins with the name of the pod's host.
func (c *cluster) leaderPod(t *testing.T, identity string) string {
	t.Helper()
	pods, err := c.client.CoreV1().Pods(namespace).List(t.Context(), metav1.ListOptions{LabelSelector: "app.kubernetes.io/component=controllers"})
	must(t, err)
	host, _, _ := strings.Cut(identity, "_")
	for _, pod := range pods.Items {
		if pod.Name == host || pod.Spec.HostNetwork && pod.Spec.NodeName == host {
			return pod.Name
		}
	}
	t.Fatalf("nobody of %d pods is %s", len(pods.Items), identity)
	return ""
}

// killProcess is kill -9 for the one process of a pod, which is told by its hostname.
func (c *cluster) killProcess(pod string) (string, error) {
	const script = `for p in $(pgrep -f '^/sakeeper controllers'); do
		h=$(tr '\0' '\n' </proc/$p/environ | sed -n 's/^HOSTNAME=//p')
		if [ "$h" = "$0" ] || [ "$h" = "$(hostname)" ]; then kill -9 $p && exit 0; fi
	done; exit 1`
	return c.onNode("sh", "-c", script, pod)
}

// defaultAccount is work of the controllers that in-tree has too.
func (c *cluster) defaultAccount(t *testing.T, name string) {
	t.Helper()
	c.newNamespace(t, name)
	c.waitAccount(t, name)
}

// managedToken is work of the token-request-controller.
func (c *cluster) managedToken(t *testing.T, name string) {
	t.Helper()
	c.newNamespace(t, name)
	c.kubectl(t, "label", "namespace", name, "sakeeper.io/token-requests=allowed")
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{
		Name: "ci", Labels: map[string]string{"sakeeper.io/token": "managed"}, Annotations: map[string]string{"sakeeper.io/service-account": "default"},
	}}
	_, err := c.client.CoreV1().Secrets(name).Create(t.Context(), secret, metav1.CreateOptions{})
	must(t, err)
	eventually(t, "a token in "+name, func(ctx context.Context) error {
		secret, err := c.client.CoreV1().Secrets(name).Get(ctx, "ci", metav1.GetOptions{})
		if err == nil && len(secret.Data["token"]) == 0 {
			err = errors.New("there is none")
		}
		return err
	})
}

// comeBack deletes the pods of the webhook and of kube-proxy at once.
func comeBack(t *testing.T, c *cluster) {
	deleteAll := func(in, selector string) {
		out, err := c.try("-n", in, "delete", "pod", "-l", selector, "--force", "--grace-period=0")
		if err != nil {
			t.Errorf("%v: %s", err, out)
		}
	}
	before, err := c.webhookPods(t.Context())
	must(t, err)
	began := time.Now()
	deleteAll(namespace, "app.kubernetes.io/component=webhook")
	deleteAll("kube-system", "k8s-app=kube-proxy")
	eventually(t, "others are ready", func(ctx context.Context) error {
		after, err := c.webhookPods(ctx)
		if err != nil {
			return err
		}
		for uid, ready := range after {
			if _, old := before[uid]; old || !ready {
				return fmt.Errorf("pod %s: of before: %t, ready: %t", uid, old, ready)
			}
		}
		if len(after) < len(before) {
			return fmt.Errorf("%d of %d", len(after), len(before))
		}
		return nil
	})
	eventually(t, "a pod is admitted", func(ctx context.Context) error { return c.createPod(ctx, "default") })
	c.waitRolledOut(t, "kube-system", "ds/kube-proxy")
	t.Logf("everything is back after %v", time.Since(began).Round(10*time.Millisecond))
}

// webhookPods are the pods of the webhook by UID, and whether they are ready.
func (c *cluster) webhookPods(ctx context.Context) (map[types.UID]bool, error) {
	pods, err := c.client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/component=webhook"})
	if err != nil {
		return nil, err
	}
	found := map[types.UID]bool{}
	for _, pod := range pods.Items {
		found[pod.UID] = slices.ContainsFunc(pod.Status.Conditions, func(condition corev1.PodCondition) bool {
			return condition.Type == corev1.PodReady && condition.Status == corev1.ConditionTrue
		})
	}
	return found, nil
}

// createPod creates one that no node takes.
func (c *cluster) createPod(ctx context.Context, in string) error {
	_, err := c.client.CoreV1().Pods(in).Create(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "p-"},
		Spec:       corev1.PodSpec{NodeSelector: map[string]string{"sakeeper.io/no": "node"}, Containers: []corev1.Container{{Name: "c", Image: "none:0"}}},
	}, metav1.CreateOptions{})
	return err
}

// rollingUpdate creates 20 pods a second while the webhook's pods are replaced.
func rollingUpdate(t *testing.T, c *cluster, workload string) {
	c.newNamespace(t, "busy")
	c.waitAccount(t, "busy")
	ctx, cancel := context.WithCancel(t.Context())
	var created atomic.Int64
	failed := make(chan error, 10000)
	var all sync.WaitGroup
	all.Go(func() {
		ticker := time.NewTicker(time.Second / 20)
		defer ticker.Stop()
		for ctx.Err() == nil {
			<-ticker.C
			all.Go(func() {
				if err := c.createPod(context.WithoutCancel(ctx), "busy"); err != nil {
					failed <- err
				}
				created.Add(1)
			})
		}
	})
	began := time.Now()
	for range 2 {
		c.kubectl(t, "-n", namespace, "rollout", "restart", workload)
		c.waitRolledOut(t, namespace, workload)
	}
	// The last pod of before is still going.
	eventually(t, "the old pods are gone", func(ctx context.Context) error {
		pods, err := c.client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/component=webhook"})
		if err != nil {
			return err
		}
		for _, pod := range pods.Items {
			if pod.DeletionTimestamp != nil {
				return fmt.Errorf("%s is still there", pod.Name)
			}
		}
		return nil
	})
	cancel()
	all.Wait()
	close(failed)
	for err := range failed {
		t.Error(err)
	}
	t.Logf("%d pods were created in %v, during two updates", created.Load(), time.Since(began).Round(time.Second))
}

// moreReferences: a projected Secret, which in-tree does not look at.
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
	must(t, c.createPod(t.Context(), "kube-system")) // which is left alone
}

// everything is what a cluster has that sakeeper could leave behind, by kind.
func (c *cluster) everything(t *testing.T) map[string][]string {
	t.Helper()
	all := map[string][]string{}
	for _, kind := range []string{
		"namespaces", "clusterroles", "clusterrolebindings", "mutatingwebhookconfigurations", "validatingwebhookconfigurations",
		"-n kube-system roles", "-n kube-system rolebindings", "-n kube-system leases", "-n kube-system configmaps", "-n kube-system secrets", "priorityclasses", "customresourcedefinitions",
	} {
		args := append([]string{"get", "-o", "name"}, strings.Fields(kind)...)
		for line := range strings.Lines(c.kubectl(t, args...)) {
			if name := strings.TrimSpace(line); !strings.Contains(name, "apiserver-") { // comes with time
				all[kind] = append(all[kind], name)
			}
		}
		slices.Sort(all[kind])
	}
	return all
}

// remove applies the manifests once more, removes them, and looks for what is left. What
// controllers gave to namespaces stays: pods use it.
func remove(t *testing.T, c *cluster, before map[string][]string) {
	c.kubectl(t, "apply", "-k", c.overlay)
	c.kubectl(t, "delete", "-k", c.overlay, "--timeout", patience.String())
	for _, name := range []string{"agent", "busy", "strict", "after-killed", "after-stopped"} {
		_, _ = c.try("delete", "namespace", name, "--timeout", patience.String())
	}
	eventually(t, "nothing is left", func(context.Context) error {
		after := c.everything(t)
		for _, kind := range slices.Sorted(maps.Keys(after)) {
			for _, name := range after[kind] {
				if !slices.Contains(before[kind], name) && !strings.HasSuffix(name, "/kube-root-ca.crt") && !strings.Contains(name, "behaviour-") {
					return fmt.Errorf("%s", name)
				}
			}
		}
		return nil
	})
	must(t, c.createPod(t.Context(), "default")) // nobody is asked any more
	if out, err := c.try("delete", "-k", c.overlay, "--ignore-not-found"); err != nil {
		t.Errorf("removed twice: %v: %s", err, out)
	}
}

// missingKey: the pod says what it lacks, in its log and its status. Objects come in the
// worst order here, so that they have to be applied twice.
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
