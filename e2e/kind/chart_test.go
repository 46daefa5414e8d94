package kind

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sakeeper/sakeeper/e2e/behaviour"
)

// TestChart installs the chart in a cluster with the in-tree parts by the commands of manifests/README.md,
// upgrades it to coexist-webhook, rolls that back, and removes it.
func TestChart(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "chart", "stock")
	before := c.everything(t)
	began := time.Now()
	script, err := behaviour.Block(c.manifests("README.md"), "helm install sakeeper manifests/charts/sakeeper --namespace=sakeeper-system --create-namespace")
	must(t, err)
	if out, err := c.command("sh", "-euc", fmt.Sprintf("PATH='%s':$PATH\ncd '%s'\n%s", filepath.Join(c.root, "bin", "tools"), c.root, script)); err != nil {
		t.Fatalf("%s: %v: %s", script, err, out)
	}
	t.Logf("from install to the end of helm test: %v", time.Since(began).Round(100*time.Millisecond))
	t.Run("it behaves", func(t *testing.T) { behaviour.Cluster{Admin: c.admin, TokenRequests: true}.Check(t) })
	t.Run("a policy checks what in-tree does not", func(t *testing.T) { moreReferences(t, c, "strict") })
	t.Run("an upgrade", func(t *testing.T) {
		c.helm(t, "upgrade", c.manifests("charts", "sakeeper"), "--set=mode=coexist-webhook", "--wait", "--timeout="+patience.String())
		c.kubectl(t, "wait", "--for=jsonpath={.webhooks[0].name}", "validatingwebhookconfiguration/sakeeper-webhook", "--timeout="+patience.String())
		c.helm(t, "test")
		moreReferences(t, c, "strict-webhook")
	})
	t.Run("and back", func(t *testing.T) {
		c.newLimitedNamespace(t, "strict-again")
		c.kubectl(t, "delete", "validatingwebhookconfiguration", "sakeeper-webhook")
		c.helm(t, "rollback", "1", "--wait", "--timeout="+patience.String())
		c.helm(t, "test")
		eventually(t, "the pods of the webhook are gone", func(ctx context.Context) error {
			pods, err := c.webhookPods(ctx)
			if err == nil && len(pods) > 0 {
				err = fmt.Errorf("there are %d", len(pods))
			}
			return err
		})
		c.expectLimited(t, "strict-again", "ValidatingAdmissionPolicy")
	})
	t.Run("helm test can fail", func(t *testing.T) {
		c.kubectl(t, "-n", namespace, "scale", "deployment/sakeeper-controllers", "--replicas=0")
		eventually(t, "the controllers are gone", func(ctx context.Context) error {
			pods, err := c.client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/component=controllers"})
			if err == nil && len(pods.Items) > 0 {
				err = fmt.Errorf("there are %d", len(pods.Items))
			}
			return err
		})
		if out, err := c.tryHelm("test"); err == nil {
			t.Errorf("it succeeded: %s", out)
		}
	})
	t.Run("it goes without a trace", func(t *testing.T) { c.removeRelease(t, before) })
}

// tryHelm runs a command of Helm about the release sakeeper.
func (c *cluster) tryHelm(command string, args ...string) (string, error) {
	return c.command("bin/tools/helm", slices.Concat([]string{command, "sakeeper", "--namespace=" + namespace}, args)...)
}

func (c *cluster) helm(t *testing.T, command string, args ...string) {
	t.Helper()
	if out, err := c.tryHelm(command, args...); err != nil {
		t.Fatalf("helm %s %s: %v: %s", command, strings.Join(args, " "), err, out)
	}
}

// removeRelease removes it, and checks that nothing is left but its namespace.
func (c *cluster) removeRelease(t *testing.T, before map[string][]string) {
	t.Helper()
	c.helm(t, "uninstall", "--wait", "--timeout="+patience.String())
	for _, name := range []string{"strict", "strict-webhook", "strict-again"} {
		_, _ = c.try("delete", "namespace", name, "--timeout", patience.String())
	}
	eventually(t, "nothing is left", func(context.Context) error {
		after := c.everything(t)
		for _, kind := range slices.Sorted(maps.Keys(after)) {
			for _, name := range after[kind] {
				known := slices.Contains(before[kind], name) || name == "namespace/"+namespace
				if !known && !strings.HasSuffix(name, "/kube-root-ca.crt") && !strings.Contains(name, "behaviour-") {
					return errors.New(name)
				}
			}
		}
		return nil
	})
	must(t, c.createPod(t.Context(), "default"))
}
