// Package manifests holds the manifests that an admin applies: bases, components and overlays
// for kustomize, and in rendered/ the output of the overlays (`make manifests`).
package manifests

import (
	"bytes"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/yaml"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
)

var update = flag.Bool("update", false, "write the files in rendered/")

// overlays are all directories that can be applied as they are.
func overlays(t *testing.T) []string {
	t.Helper()
	found, err := filepath.Glob("overlays/*")
	if err != nil || len(found) < 5 {
		t.Fatalf("found %v, %v", found, err)
	}
	return append(found, "base/authenticator")
}

func kustomize(t *testing.T, dir string) string {
	t.Helper()
	kubectl, err := controlplane.Binary("kubectl")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(kubectl, "kustomize", dir)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("kustomize %s: %v: %s", dir, err, &stderr)
	}
	if stderr.Len() > 0 {
		t.Errorf("kustomize %s warns: %s", dir, &stderr)
	}
	return stdout.String()
}

// TestRendered compares the files in rendered/ with the output of kustomize.
func TestRendered(t *testing.T) {
	for _, dir := range overlays(t) {
		got := kustomize(t, dir)
		path := filepath.Join("rendered", filepath.Base(dir)+".yaml")
		if *update {
			if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), got); diff != "" {
			t.Errorf("%s: run `make manifests` (-%s +now):\n%s", dir, path, diff)
		}
	}
	kustomize(t, "components/monitoring")
}

// TestCoexistHasNoWebhook: it is its two components, neither of which has a part of the other, and
// has no certificate, no webhook and no right that only a webhook needs.
func TestCoexistHasNoWebhook(t *testing.T) {
	const tokens, limits = "components/managed-tokens", "components/policies/secret-references"
	both := append(namesWithoutWebhook(t, tokens), namesWithoutWebhook(t, limits)...)
	slices.Sort(both)
	if diff := cmp.Diff(both, namesWithoutWebhook(t, "overlays/coexist")); diff != "" || len(both) < 15 {
		t.Errorf("coexist (-components +got):\n%s", diff)
	}
	for dir, policies := range map[string]bool{tokens: false, limits: true} {
		for _, name := range namesWithoutWebhook(t, dir) {
			if strings.HasPrefix(name, "ValidatingAdmissionPolicy") != policies {
				t.Errorf("%s has %s", dir, name)
			}
		}
	}
}

// namesWithoutWebhook returns the kinds and names of the objects of a directory, and expects that none
// is that of a webhook.
func namesWithoutWebhook(t *testing.T, dir string) []string {
	t.Helper()
	var all []string
	for _, object := range objects(t, dir, kustomize(t, dir)) {
		accessor, err := meta.Accessor(object)
		if err != nil {
			t.Fatal(err)
		}
		name := object.GetObjectKind().GroupVersionKind().Kind + " " + accessor.GetName()
		if strings.Contains(strings.ToLower(name), "webhook") || strings.HasPrefix(name, "Secret ") {
			t.Errorf("%s has %s", dir, name)
		}
		var rules []rbacv1.PolicyRule
		switch o := object.(type) {
		case *rbacv1.ClusterRole:
			rules = o.Rules
		case *rbacv1.Role:
			rules = o.Rules
		}
		for _, rule := range rules {
			if slices.Contains(rule.APIGroups, admissionregistrationv1.GroupName) || slices.Contains(rule.ResourceNames, "sakeeper-webhook-certificates") {
				t.Errorf("%s has the right %v", name, rule)
			}
		}
		all = append(all, name)
	}
	slices.Sort(all)
	return all
}

// TestMonitoringWithoutAWebhook: without one, only the alert that there is none would always fire.
func TestMonitoringWithoutAWebhook(t *testing.T) {
	all, without := kustomize(t, "components/monitoring"), kustomize(t, "components/monitoring-without-webhook")
	const alert = "alert: SakeeperWebhookIsDown\n"
	if strings.Count(all, alert) != 1 || strings.Contains(without, alert) || strings.Count(all, "alert: ") != strings.Count(without, "alert: ")+1 {
		t.Errorf("of %d alerts, %d are left", strings.Count(all, "alert: "), strings.Count(without, "alert: "))
	}
}

// objects decodes a YAML stream strictly: an unknown field is an error.
func objects(t *testing.T, name, content string) []runtime.Object {
	t.Helper()
	decoder := serializer.NewCodecFactory(scheme.Scheme, serializer.EnableStrict).UniversalDeserializer()
	documents, err := testkit.Documents([]byte(content))
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	var all []runtime.Object
	for _, document := range documents {
		object, _, err := decoder.Decode(document, nil, nil)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		all = append(all, object)
	}
	return all
}

// TestKustomizationsOfTheChapter runs the commands of the chapter that set another image, and flags.
func TestKustomizationsOfTheChapter(t *testing.T) {
	chapter, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile(`(?s)(?:mkdir my-cluster\n)?cat > my-cluster/kustomization.yaml.*?\nEOF\n`).FindAll(chapter, -1)
	wants := []struct {
		pods  int // with the image
		texts []string
	}{
		{1, []string{"kind: ValidatingAdmissionPolicy\n"}},
		{1, []string{"- --public-server=https://api.example.com:6443", "name: example\n"}},
		{2, []string{"kind: DaemonSet", "sakeeper.io/webhooks"}},
	}
	if len(blocks) != len(wants) {
		t.Fatalf("the chapter has %d kustomizations", len(blocks))
	}
	dir := t.TempDir()
	if err := os.CopyFS(filepath.Join(dir, "manifests"), os.DirFS(".")); err != nil {
		t.Fatal(err)
	}
	for i, block := range blocks {
		cmd := exec.Command("sh", "-euc", string(block))
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", block, err, out)
		}
		// In the place of what `sakeeper policies` prints.
		example := []byte("{apiVersion: admissionregistration.k8s.io/v1, kind: ValidatingAdmissionPolicy, metadata: {name: example}}\n")
		if err := os.WriteFile(filepath.Join(dir, "my-cluster", "policies.yaml"), example, 0o600); err != nil {
			t.Fatal(err)
		}
		rendered := kustomize(t, filepath.Join(dir, "my-cluster"))
		if n := strings.Count(rendered, "image: registry.example.com/sakeeper:v1"); n != wants[i].pods || strings.Contains(rendered, "image: sakeeper:dev") {
			t.Errorf("%s: %d pods have the image", block, n)
		}
		for _, want := range wants[i].texts {
			if !strings.Contains(rendered, want) {
				t.Errorf("%s: there is no %s", block, want)
			}
		}
	}
}

// TestWebhookClients: the component reaches the pods of every overlay that has some, and no
// overlay has it on.
func TestWebhookClients(t *testing.T) {
	for overlay, want := range map[string]int{"coexist": 0, "coexist-webhook": 1, "replace": 1, "static-pod": 0} {
		dir := t.TempDir()
		if err := os.CopyFS(filepath.Join(dir, "manifests"), os.DirFS(".")); err != nil {
			t.Fatal(err)
		}
		const mine = "kind: Kustomization\nresources: [../manifests/overlays/%s]\ncomponents: [../manifests/components/webhook-clients]\n"
		if err := os.Mkdir(filepath.Join(dir, "mine"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "mine", "kustomization.yaml"), fmt.Appendf(nil, mine, overlay), 0o644); err != nil {
			t.Fatal(err)
		}
		rendered := kustomize(t, filepath.Join(dir, "mine"))
		objects(t, overlay, rendered)
		for _, text := range []string{"- --client-ca-file=/etc/sakeeper/clients/ca.crt", "mountPath: /etc/sakeeper/clients", "name: sakeeper-webhook-clients"} {
			if n := strings.Count(rendered, text); n != want {
				t.Errorf("%s: %d times %q, want %d", overlay, n, text, want)
			}
		}
		if strings.Contains(kustomize(t, filepath.Join("overlays", overlay)), "client-ca-file") {
			t.Errorf("%s checks clients of the webhook", overlay)
		}
	}
}

// TestListsOfWebhooks: the lists that replicas fill in are those of the base. Only the namespaces
// differ, in coexist-webhook.
func TestListsOfWebhooks(t *testing.T) {
	var base []any
	for _, o := range objects(t, "base", kustomize(t, "base/webhook")) {
		switch o := o.(type) {
		case *admissionregistrationv1.MutatingWebhookConfiguration:
			base = append(base, o.Webhooks)
		case *admissionregistrationv1.ValidatingWebhookConfiguration:
			base = append(base, o.Webhooks)
		}
	}
	parse := func(path string, webhooks any) {
		t.Helper()
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var configuration metav1.PartialObjectMetadata
		if err := yaml.Unmarshal(content, &configuration); err != nil {
			t.Fatal(err)
		}
		if err := yaml.UnmarshalStrict([]byte(configuration.Annotations[api.WebhooksAnnotation]), webhooks); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
	}
	mutating, validating, coexist := &[]admissionregistrationv1.MutatingWebhook{}, &[]admissionregistrationv1.ValidatingWebhook{}, &[]admissionregistrationv1.ValidatingWebhook{}
	parse("components/webhooks-when-ready/mutating.yaml", mutating)
	parse("components/webhooks-when-ready/validating.yaml", validating)
	if diff := cmp.Diff(base, []any{*mutating, *validating}); diff != "" || len(*validating) == 0 {
		t.Errorf("the component (-base +got):\n%s", diff)
	}
	parse("overlays/coexist-webhook/webhooks.yaml", coexist)
	for i := range *coexist {
		if (*coexist)[i].NamespaceSelector == nil {
			t.Errorf("webhook %d of coexist-webhook is called for all namespaces", i)
		}
		(*coexist)[i].NamespaceSelector = nil
	}
	if diff := cmp.Diff(validating, coexist); diff != "" {
		t.Errorf("coexist-webhook (-component +got):\n%s", diff)
	}
	for dir, want := range map[string]bool{"overlays/coexist-webhook": false, "overlays/replace": true, "overlays/static-pod": true} {
		if got := strings.Contains(kustomize(t, dir), "\nwebhooks:\n"); got != want {
			t.Errorf("%s comes with webhooks: %t", dir, got)
		}
	}
}

func TestEveryRuleOfARoleHasAComment(t *testing.T) {
	rules := 0
	err := filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || filepath.Ext(path) != ".yaml" || strings.HasPrefix(path, "rendered") || strings.HasPrefix(path, "charts") {
			return err
		}
		content, err := os.ReadFile(path)
		before := ""
		for line := range strings.Lines(string(content)) {
			if strings.HasPrefix(line, "- apiGroups:") {
				if rules++; !strings.HasPrefix(before, "#") {
					return fmt.Errorf("%s: a rule without a comment after %q", path, before)
				}
			}
			before = line
		}
		return err
	})
	if err != nil || rules < 20 {
		t.Errorf("%d rules: %v", rules, err)
	}
}

func TestRolesHaveTheNameOfTheirDirectory(t *testing.T) {
	files, err := filepath.Glob("rbac/*/role.yaml")
	if err != nil || len(files) < 12 {
		t.Fatalf("found %v, %v", files, err)
	}
	for _, path := range files {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		want := filepath.Base(filepath.Dir(path))
		for _, object := range objects(t, path, string(content)) {
			var name string
			switch o := object.(type) {
			case *rbacv1.ClusterRole:
				name = o.Name
			case *rbacv1.Role:
				name = o.Name
			default:
				continue
			}
			if got := strings.ReplaceAll(strings.TrimPrefix(name, "sakeeper:"), ":", "-"); got != want {
				t.Errorf("%s has role %s", path, name)
			}
		}
	}
}
