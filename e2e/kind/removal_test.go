package kind

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

// everything lists the objects, by kind, that sakeeper could leave behind.
func (c *cluster) everything(t *testing.T) map[string][]string {
	t.Helper()
	all := map[string][]string{}
	for _, kind := range []string{
		"namespaces", "clusterroles", "clusterrolebindings", "mutatingwebhookconfigurations", "validatingwebhookconfigurations",
		"validatingadmissionpolicies", "validatingadmissionpolicybindings",
		"-n kube-system roles", "-n kube-system rolebindings", "-n kube-system leases", "-n kube-system configmaps", "-n kube-system secrets", "priorityclasses", "customresourcedefinitions",
	} {
		args := append([]string{"get", "-o", "name"}, strings.Fields(kind)...)
		for line := range strings.Lines(c.kubectl(t, args...)) {
			if name := strings.TrimSpace(line); !strings.Contains(name, "apiserver-") { // created by API servers later
				all[kind] = append(all[kind], name)
			}
		}
		slices.Sort(all[kind])
	}
	return all
}

// remove applies the manifests again, deletes them, and checks that nothing is left, except
// what the controllers created in namespaces: pods use it.
func remove(t *testing.T, c *cluster, before map[string][]string) {
	c.kubectl(t, "apply", "-k", c.overlay)
	c.kubectl(t, "delete", "-k", c.overlay, "--timeout", patience.String())
	for _, name := range []string{"agent", "busy", "strict", "audited", "strict-webhook", "strict-again", "moving-there", "moving-back", "registry", "templated", "after-killed", "after-stopped"} {
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
	must(t, c.createPod(t.Context(), "default")) // no webhook is called any more
	if out, err := c.try("delete", "-k", c.overlay, "--ignore-not-found"); err != nil {
		t.Errorf("removed twice: %v: %s", err, out)
	}
}
