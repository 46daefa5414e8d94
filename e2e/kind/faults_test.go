package kind

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sakeeper/sakeeper/e2e/behaviour"
)

// failOver stops the leader, with SIGKILL and with SIGTERM, and measures the time until another
// one works. waitWork creates work in a namespace of that name, and waits until it is done.
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
		guard time.Duration
	}{
		{"killed", c.killProcess, 250 * time.Second}, // ten times the documented time
		// A lease that was not released expires after 15 s.
		{"stopped", func(pod string) (string, error) {
			return c.try("-n", namespace, "delete", "pod", pod, "--wait=false")
		}, 15 * time.Second},
	} {
		c.waitRolledOut(t, namespace, workload)
		before := leader()
		pod := c.leaderPod(t, before)
		began := time.Now()
		if out, err := way.kill(pod); err != nil {
			t.Fatalf("%s: %v: %s", way.name, err, out)
		}
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

// leaderPod returns the pod with that identity, which begins with the host name of the pod.
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
	t.Fatalf("none of %d pods is %s", len(pods.Items), identity)
	return ""
}

// killProcess sends SIGKILL to the process of a pod, which it finds by its HOSTNAME variable.
func (c *cluster) killProcess(pod string) (string, error) {
	const script = `for p in $(pgrep -f '^/sakeeper controllers'); do
		h=$(tr '\0' '\n' </proc/$p/environ | sed -n 's/^HOSTNAME=//p')
		if [ "$h" = "$0" ] || [ "$h" = "$(hostname)" ]; then kill -9 $p && exit 0; fi
	done; exit 1`
	return c.onNode("sh", "-c", script, pod)
}

// defaultAccount creates work for the controllers that in-tree has too.
func (c *cluster) defaultAccount(t *testing.T, name string) {
	t.Helper()
	c.newNamespace(t, name)
	c.waitAccount(t, name)
}

// managedToken creates work for the token-request-controller.
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

// webhookPods returns whether each pod of the webhook is ready, by UID.
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

// createPod creates a pod that no node matches.
func (c *cluster) createPod(ctx context.Context, in string) error {
	_, err := c.client.CoreV1().Pods(in).Create(ctx, unscheduled(), metav1.CreateOptions{})
	return err
}

// rollingUpdate creates 20 pods a second while the webhook's pods are replaced.
func rollingUpdate(t *testing.T, c *cluster, workload string, mostRefused float64) {
	c.newNamespace(t, "busy")
	c.waitAccount(t, "busy")
	load := behaviour.StartLoad(t.Context(), c.client, "busy", 20)
	for range 2 {
		c.kubectl(t, "-n", namespace, "rollout", "restart", workload)
		c.waitRolledOut(t, namespace, workload)
	}
	// The last old pod is still terminating.
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
	if r := expectLoad(t, load, mostRefused); len(r.Unreachable) > 0 {
		t.Errorf("not answered: %v", r.Unreachable)
	}
}
