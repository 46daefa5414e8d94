package main

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

// byHand are the files of the chart that are not generated.
var byHand = []string{
	"Chart.yaml", "values.yaml", "values.schema.json",
	"templates/_helpers.tpl", "templates/refusals.yaml", "templates/NOTES.txt", "templates/tests/ready.yaml",
}

// TestTheChartIsCurrent compares the chart with what this program makes.
func TestTheChartIsCurrent(t *testing.T) {
	files, err := generate(repository(t))
	must(t, err)
	for name, want := range files {
		content, err := os.ReadFile(filepath.Join(chart(t), name))
		must(t, err)
		if diff := cmp.Diff(string(content), want); diff != "" {
			t.Errorf("%s: run `make manifests` (-stored +now):\n%s", name, diff)
		}
	}
	var found []string
	must(t, filepath.WalkDir(chart(t), func(path string, entry os.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			name, _ := strings.CutPrefix(path, chart(t)+"/")
			found = append(found, name)
		}
		return err
	}))
	if diff := cmp.Diff(slices.Sorted(slices.Values(slices.Concat(byHand, slices.Collect(maps.Keys(files))))), slices.Sorted(slices.Values(found))); diff != "" {
		t.Errorf("the files of the chart (-want +got):\n%s", diff)
	}
}

// TestEveryOverlayAndComponentHasAPlace: the chart has it, or a reason why it has not.
func TestEveryOverlayAndComponentHasAPlace(t *testing.T) {
	placed := maps.Clone(notInChart)
	for _, p := range parts {
		placed[p.dir] = p.file()
		for _, v := range p.variants {
			for _, dir := range v.dirs {
				placed[dir] = p.file()
			}
		}
	}
	root := filepath.Join(repository(t), "manifests")
	for _, pattern := range []string{"overlays/*", "components/*", "components/policies/*"} {
		dirs, err := filepath.Glob(filepath.Join(root, pattern, "kustomization.yaml"))
		if err != nil || len(dirs) < 4 {
			t.Fatalf("%s: %v, %v", pattern, dirs, err)
		}
		for _, path := range dirs {
			if dir, _ := filepath.Rel(root, filepath.Dir(path)); placed[dir] == "" {
				t.Errorf("parts.go does not name %s", dir)
			}
		}
	}
}

// same is a case in which the chart renders the objects of a kustomization.
type same struct {
	values []string
	dirs   []string
	// args are those that the chart adds, by component: with kustomize, a user sets them in a patch.
	args map[string][]string
	in   string // another namespace
}

var replace = []string{"mode=replace", "signingKeys.secretName=sakeeper-signing-keys"}

// alone is a component that needs no mode.
func alone(value, dir string) same {
	return same{values: []string{"mode=none", value + "=true"}, dirs: []string{dir}}
}

// onReplace is a component that needs mode replace.
func onReplace(value, component string, args map[string][]string) same {
	return same{values: append(slices.Clone(replace), value), dirs: []string{"overlays/replace", "components/" + component}, args: args}
}

// TestTheChartIsKustomize: object by object, for every mode and each component.
func TestTheChartIsKustomize(t *testing.T) {
	controllers := func(args ...string) map[string][]string { return map[string][]string{"controllers": args} }
	tests := map[string]same{
		"the default":     {dirs: []string{"overlays/coexist"}},
		"coexist":         {values: []string{"mode=coexist"}, dirs: []string{"overlays/coexist"}},
		"coexist-webhook": {values: []string{"mode=coexist-webhook"}, dirs: []string{"overlays/coexist-webhook"}},
		"managed-tokens":  {values: []string{"mode=managed-tokens"}, dirs: []string{"components/managed-tokens"}},
		"replace":         {values: replace, dirs: []string{"overlays/replace"}},

		"another namespace, coexist":         {dirs: []string{"overlays/coexist"}, in: "identity"},
		"another namespace, coexist-webhook": {values: []string{"mode=coexist-webhook"}, dirs: []string{"overlays/coexist-webhook"}, in: "identity"},
		"another namespace, replace":         {values: replace, dirs: []string{"overlays/replace"}, in: "identity"},
		"another namespace, token-limits":    {values: []string{"mode=none", "policies.tokenLimits=true"}, dirs: []string{"components/policies/token-limits"}, in: "identity"},

		"policies/secret-references": alone("policies.secretReferences", "components/policies/secret-references"),
		"policies/token-limits":      alone("policies.tokenLimits", "components/policies/token-limits"),
		"policies/account-defaults":  alone("policies.accountDefaults", "components/policies/account-defaults"),
		"policies/token-seconds":     alone("policies.tokenSeconds", "components/policies/token-seconds"),
		"the authenticator":          alone("authenticator.enabled", "base/authenticator"),
		"track-legacy-tokens": {
			values: []string{"mode=none", "authenticator.enabled=true", "authenticator.trackLegacyTokens=true"},
			dirs:   []string{"base/authenticator", "components/track-legacy-tokens"},
			args:   map[string][]string{"authenticator": {"--track-legacy-tokens"}},
		},
		"the policy beside the webhook, during a move": {
			values: []string{"mode=coexist-webhook", "policies.secretReferences=true"},
			dirs:   []string{"overlays/coexist-webhook", "components/policies/secret-references"},
		},

		"token-requests": onReplace("tokenRequests=true", "token-requests", controllers("--controllers=*,token-request-controller")),
		"token-generation": onReplace("tokenGeneration=labelled", "token-generation",
			controllers("--auto-generate-token-secrets=labelled")),
		"token-volumes-from-secrets": onReplace("tokenVolumesFromSecrets=true", "token-volumes-from-secrets",
			map[string][]string{"webhook": {"--token-volume-source=secret"}}),
		"webhooks-when-ready":         onReplace("webhooksWhenReady=true", "webhooks-when-ready", nil),
		"webhook-clients":             onReplace("webhookClients=true", "webhook-clients", nil),
		"account-templates, replace":  onReplace("accountTemplates=true", "account-templates", controllers("--controllers=*,service-account-template-controller")),
		"monitoring, with a webhook":  onReplace("monitoring=true", "monitoring", nil),
		"monitoring, without":         {values: []string{"monitoring=true"}, dirs: []string{"overlays/coexist", "components/monitoring-without-webhook"}},
		"tokenRequests where it runs": {values: []string{"tokenRequests=true"}, dirs: []string{"overlays/coexist"}},
		"both variants of replace": {
			values: append(slices.Clone(replace), "webhooksWhenReady=true", "webhookClients=true"),
			dirs:   []string{"overlays/replace", "components/webhooks-when-ready", "components/webhook-clients"},
		},
		"webhook-clients, coexist-webhook": {
			values: []string{"mode=coexist-webhook", "webhookClients=true"}, dirs: []string{"overlays/coexist-webhook", "components/webhook-clients"},
		},
		"account-templates": {
			values: []string{"accountTemplates=true"}, dirs: []string{"overlays/coexist", "components/account-templates"},
			args: controllers("--controllers=token-request-controller,service-account-template-controller"),
		},
		"policies/account-templates": {
			values: []string{"accountTemplates=true", "policies.accountTemplates=true"},
			dirs:   []string{"overlays/coexist", "components/account-templates", "components/policies/account-templates"},
			args:   controllers("--controllers=token-request-controller,service-account-template-controller"),
		},
		"pull-secret-copies": {
			values: []string{"accountTemplates=true", "pullSecretSourceNamespaces={registry,mirror}"},
			dirs:   []string{"overlays/coexist", "components/account-templates", "components/pull-secret-copies"},
			args: controllers("--controllers=token-request-controller,service-account-template-controller,pull-secret-copy-controller",
				"--pull-secret-source-namespaces=registry,mirror"),
		},
		"token-inventory": {
			values: []string{"inventoryInterval=6h"}, dirs: []string{"overlays/coexist", "components/token-inventory"},
			args: controllers("--controllers=token-request-controller,token-inventory-controller", "--inventory-interval=6h"),
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in := namespace
			if test.in != "" {
				in = test.in
			}
			rendered := mustHelm(t, templateArgs(t, in, test.values...)...)
			got, err := parse([]byte(rendered))
			must(t, err)
			want, err := kustomize(repository(t), test.dirs...)
			must(t, err)
			if diff := cmp.Diff(byName(t, expected(t, want, test, in)), byName(t, got)); diff != "" {
				t.Errorf("helm %q (-kustomize %q +helm):\n%s", test.values, test.dirs, diff)
			}
		})
	}
}

// expected returns the objects of kustomize with the only differences that the chart has.
func expected(t *testing.T, objects []*unstructured.Unstructured, test same, in string) []*unstructured.Unstructured {
	t.Helper()
	var all []*unstructured.Unstructured
	for _, o := range objects {
		switch o.GetKind() {
		case "Namespace":
			continue
		case "CustomResourceDefinition":
			must(t, unstructured.SetNestedField(o.Object, "keep", "metadata", "annotations", "helm.sh/resource-policy"))
		case "Deployment", "DaemonSet":
			container := o.Object["spec"].(map[string]any)["template"].(map[string]any)["spec"].(map[string]any)["containers"].([]any)[0].(map[string]any)
			for _, arg := range test.args[o.GetLabels()["app.kubernetes.io/component"]] {
				container["args"] = append(container["args"].([]any), arg)
			}
		}
		content, err := yaml.Marshal(o.Object)
		must(t, err)
		again, err := parse([]byte(strings.ReplaceAll(string(content), namespace, in)))
		must(t, err)
		all = append(all, again...)
	}
	return all
}

// byName returns objects by kind, namespace and name, each of which may occur once.
func byName(t *testing.T, objects []*unstructured.Unstructured) map[string]map[string]any {
	t.Helper()
	all := map[string]map[string]any{}
	for _, o := range objects {
		name := o.GetKind() + " " + o.GetNamespace() + "/" + o.GetName()
		if all[name] != nil {
			t.Errorf("there are two of %s", name)
		}
		all[name] = o.Object
	}
	if len(all) < 2 {
		t.Errorf("there are only %d objects", len(all))
	}
	return all
}

// TestWhatTheValuesSayIsInThePods: the image, flags and settings, in every mode.
func TestWhatTheValuesSayIsInThePods(t *testing.T) {
	for mode, values := range map[string][]string{"coexist-webhook": {"mode=coexist-webhook", "controllers.replicas=3"}, "replace": replace} {
		rendered := mustHelm(t, templateArgs(t, namespace, append(slices.Clone(values),
			"image.repository=registry.example.com/sakeeper", "image.tag=v1", "image.pullPolicy=Always", "imagePullSecrets[0].name=registry",
			"priorityClassName=important", "logging.format=json", "logging.verbosity=4", "controllers.extraArgs={--public-server=https://x:6443,--concurrent-serviceaccount-token-syncs=9}",
			"controllers.resources.limits.memory=1Gi", "controllers.nodeSelector.disk=fast", "controllers.tolerations[0].key=mine", "controllers.tolerations[0].operator=Exists",
			"signingKeys.secretName="+map[string]string{"replace": "my-keys"}[mode])...)...)
		objects, err := parse([]byte(rendered))
		must(t, err)
		workloads := 0
		for _, o := range objects {
			if o.GetKind() != "Deployment" && o.GetKind() != "DaemonSet" {
				continue
			}
			workloads++
			pod := o.Object["spec"].(map[string]any)["template"].(map[string]any)["spec"].(map[string]any)
			container := pod["containers"].([]any)[0].(map[string]any)
			args := container["args"].([]any)
			got := []any{container["image"], container["imagePullPolicy"], pod["imagePullSecrets"], pod["priorityClassName"]}
			want := []any{"registry.example.com/sakeeper:v1", "Always", []any{map[string]any{"name": "registry"}}, "important"}
			if o.GetName() == "sakeeper-controllers" {
				tolerations := pod["tolerations"].([]any)
				got = append(got, args[len(args)-4:], container["resources"], pod["nodeSelector"], tolerations[len(tolerations)-1])
				want = append(want, []any{"--logging-format=json", "-v=4", "--public-server=https://x:6443", "--concurrent-serviceaccount-token-syncs=9"},
					map[string]any{"requests": map[string]any{"cpu": "50m", "memory": "64Mi"}, "limits": map[string]any{"memory": "1Gi"}},
					map[string]any{"disk": "fast"}, map[string]any{"key": "mine", "operator": "Exists"})
			} else {
				got = append(got, args[len(args)-2:])
				want = append(want, []any{"--logging-format=json", "-v=4"})
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s %s (-want +got):\n%s", mode, o.GetName(), diff)
			}
			replicas, found, _ := unstructured.NestedFieldNoCopy(o.Object, "spec", "replicas")
			if wants := map[string]any{"sakeeper-controllers": 3.0, "sakeeper-webhook": 2.0}[o.GetName()]; found != (mode != "replace") || found && replicas != wants {
				t.Errorf("%s %s has %v replicas", mode, o.GetName(), replicas)
			}
		}
		if workloads != 2 || strings.Contains(rendered, "secretName: my-keys\n") != (mode == "replace") || strings.Contains(rendered, "sakeeper:dev") {
			t.Errorf("%s: %d workloads:\n%s", mode, workloads, rendered)
		}
	}
}

// TestTheSchemaHasEveryValue: and no other.
func TestTheSchemaHasEveryValue(t *testing.T) {
	var values map[string]any
	content, err := os.ReadFile(filepath.Join(chart(t), "values.yaml"))
	must(t, err)
	must(t, yaml.UnmarshalStrict(content, &values))
	var schema map[string]any
	content, err = os.ReadFile(filepath.Join(chart(t), "values.schema.json"))
	must(t, err)
	must(t, yaml.UnmarshalStrict(content, &schema))
	definitions := schema["$defs"].(map[string]any)
	var compare func(path string, schema, values map[string]any)
	compare = func(path string, schema, values map[string]any) {
		if ref, ok := schema["$ref"].(string); ok {
			schema = definitions[strings.TrimPrefix(ref, "#/$defs/")].(map[string]any)
		}
		properties, _ := schema["properties"].(map[string]any)
		if properties == nil {
			return // such as nodeSelector
		}
		if schema["additionalProperties"] != false {
			t.Errorf("%s: unknown values are not refused", path)
		}
		for name, property := range properties {
			value, ok := values[name]
			if !ok && path+name != ".global" && !strings.Contains(path, ".resources") {
				t.Errorf("values.yaml lacks %s%s", path, name)
			}
			if nested, ok := value.(map[string]any); ok {
				compare(path+name+".", property.(map[string]any), nested)
			}
		}
		for name := range values {
			if properties[name] == nil {
				t.Errorf("the schema lacks %s%s", path, name)
			}
		}
	}
	compare(".", schema, values)
}

// TestReadmeExplainsEveryValue: each has a comment.
func TestReadmeExplainsEveryValue(t *testing.T) {
	content, err := os.ReadFile(filepath.Join(chart(t), "values.yaml"))
	must(t, err)
	rows := 0
	for line := range strings.Lines(readme(string(content))) {
		cells := strings.Split(line, "|")
		if len(cells) != 5 || !strings.HasPrefix(cells[1], " `") {
			continue
		}
		rows++
		if isMap := strings.TrimSpace(cells[2]) == ""; isMap != (strings.TrimSpace(cells[3]) == "") {
			t.Errorf("a value without a comment: %s", line)
		}
	}
	if rows < 40 {
		t.Errorf("only %d values", rows)
	}
}

func TestLint(t *testing.T) {
	for _, values := range [][]string{nil, {"mode=coexist-webhook,accountTemplates=true,monitoring=true"}, {strings.Join(replace, ",")}} {
		args := []string{"lint", "--strict", chart(t), "--namespace=" + namespace, "--kube-version=1.37.0"}
		for _, value := range values {
			args = append(args, "--set", value)
		}
		if out, err := helm(t, args...); err != nil {
			t.Errorf("%v: %v\n%s", values, err, out)
		}
	}
}

// TestPackagesAreTheSame: the bytes depend on the files alone.
func TestPackagesAreTheSame(t *testing.T) {
	var packages [2][]byte
	for i := range packages {
		dir := t.TempDir()
		copied := filepath.Join(dir, "sakeeper")
		must(t, os.CopyFS(copied, os.DirFS(chart(t))))
		mustHelm(t, "package", copied, "--destination", dir, "--version=1.2.3", "--app-version=v1.2.3")
		content, err := os.ReadFile(filepath.Join(dir, "sakeeper-1.2.3.tgz"))
		must(t, err)
		packages[i] = content
		if i > 0 {
			continue
		}
		rendered := mustHelm(t, "template", "sakeeper", filepath.Join(dir, "sakeeper-1.2.3.tgz"), "--namespace="+namespace, "--kube-version=1.37.0")
		if !strings.Contains(rendered, "image: sakeeper:v1.2.3\n") {
			t.Errorf("the image is not that of the package:\n%s", rendered)
		}
	}
	if !cmp.Equal(packages[0], packages[1]) {
		t.Error("two packages differ")
	}
}
