package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
)

// namespace is the one in manifests. In the chart it is that of the release.
const namespace = "sakeeper-system"

// render returns the lines of the templates of what kustomize makes of directories below manifests.
func render(root string, dirs ...string) ([]string, error) {
	objects, err := kustomize(root, dirs...)
	if err != nil {
		return nil, err
	}
	var all []string
	for _, o := range objects {
		if o.GetKind() == "Namespace" {
			continue // Helm makes it, with --create-namespace, and never deletes it: it has keys
		}
		text, err := templateOf(o)
		if err != nil {
			return nil, fmt.Errorf("%s %s: %w", o.GetKind(), o.GetName(), err)
		}
		if len(all) > 0 {
			all = append(all, "---")
		}
		all = append(all, strings.Split(strings.TrimSuffix(text, "\n"), "\n")...)
	}
	return all, nil
}

// kustomize returns the objects of a kustomization of directories below manifests.
func kustomize(root string, dirs ...string) (objects []*unstructured.Unstructured, err error) {
	kubectl, err := controlplane.Binary("kubectl")
	if err != nil {
		return nil, err
	}
	temporary, err := os.MkdirTemp("", "sakeeper-chart-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(temporary) }()
	lists := map[string][]string{}
	for _, dir := range dirs {
		path, err := filepath.Rel(temporary, filepath.Join(root, "manifests", dir)) // kustomize refuses absolute ones
		if err != nil {
			return nil, err
		}
		list := "resources"
		if strings.HasPrefix(dir, "components/") {
			list = "components"
		}
		lists[list] = append(lists[list], path)
	}
	content, err := yaml.Marshal(lists)
	if err == nil {
		err = os.WriteFile(filepath.Join(temporary, "kustomization.yaml"), content, 0o600)
	}
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(kubectl, "kustomize", temporary)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("kubectl kustomize: %w: %s", err, &stderr)
	}
	return parse(stdout.Bytes())
}

// parse returns the objects of a YAML stream.
func parse(content []byte) ([]*unstructured.Unstructured, error) {
	documents, err := testkit.Documents(content)
	if err != nil {
		return nil, err
	}
	var all []*unstructured.Unstructured
	for _, document := range documents {
		o := &unstructured.Unstructured{}
		if err := yaml.Unmarshal(document, &o.Object); err != nil {
			return nil, fmt.Errorf("%w: %s", err, document)
		}
		if len(o.Object) > 0 {
			all = append(all, o)
		}
	}
	return all, nil
}

// templateOf returns an object as a template.
func templateOf(o *unstructured.Unstructured) (string, error) {
	var p placeholders
	switch o.GetKind() {
	case "Deployment", "DaemonSet":
		p.editWorkload(o)
	case "CustomResourceDefinition":
		// Its deletion would delete the objects of users.
		annotations := o.GetAnnotations()
		if annotations == nil {
			annotations = map[string]string{}
		}
		annotations["helm.sh/resource-policy"] = "keep"
		o.SetAnnotations(annotations)
	}
	content, err := yaml.Marshal(o.Object)
	if err != nil {
		return "", err
	}
	text := strings.ReplaceAll(string(content), "{{", `{{ "{{" }}`) // as in the texts of alerts
	text = strings.ReplaceAll(text, namespace, "{{ .Release.Namespace }}")
	return p.fill(text), nil
}

// placeholders stand for expressions in an object until it is text.
type placeholders struct {
	all []placeholder
}

// A placeholder returns the lines in the place of a line that has it: key is "name: " or "- ".
type placeholder func(indent, key string) string

// editWorkload puts placeholders where the values have something to say. The values of a workload are
// those below the name of its component.
func (p *placeholders) editWorkload(o *unstructured.Unstructured) {
	component := o.GetLabels()["app.kubernetes.io/component"]
	values := ".Values." + component + "."
	spec := o.Object["spec"].(map[string]any)
	if _, ok := spec["replicas"]; ok {
		spec["replicas"] = p.value(values + "replicas")
	}
	pod := spec["template"].(map[string]any)["spec"].(map[string]any)
	pod["priorityClassName"] = p.value(".Values.priorityClassName")
	pod["imagePullSecrets"] = p.block(".Values.imagePullSecrets", nil)
	pod["nodeSelector"] = p.block(values+"nodeSelector", pod["nodeSelector"])
	pod["tolerations"] = append(pod["tolerations"].([]any), p.items(values+"tolerations"))
	container := pod["containers"].([]any)[0].(map[string]any)
	container["image"] = p.value(`include "sakeeper.image" .`)
	container["imagePullPolicy"] = p.value(".Values.image.pullPolicy")
	container["args"] = append(container["args"].([]any), p.items(`include "sakeeper.`+component+`.args" . | fromJsonArray`))
	container["resources"] = p.block(values+"resources", nil)
	for _, volume := range pod["volumes"].([]any) {
		if secret, ok := volume.(map[string]any)["secret"].(map[string]any); ok && secret["secretName"] == "sakeeper-signing-keys" {
			secret["secretName"] = p.value(".Values.signingKeys.secretName")
		}
	}
}

func (p *placeholders) add(f placeholder) string {
	p.all = append(p.all, f)
	return fmt.Sprintf("placeholder-%d", len(p.all)-1)
}

// value is for a field with a single value.
func (p *placeholders) value(expression string) string {
	return p.add(func(indent, key string) string { return indent + key + "{{ " + expression + " }}" })
}

// items is for an item of a list, in the place of which come those of another list.
func (p *placeholders) items(expression string) string {
	return p.add(func(indent, _ string) string {
		return "{{- with " + expression + " }}\n{{- toYaml . | nindent " + strconv.Itoa(len(indent)) + " }}\n{{- end }}"
	})
}

// block is for a field with a list or a map. If the expression is empty, the field is otherwise.
func (p *placeholders) block(expression string, otherwise any) string {
	return p.add(func(indent, key string) string {
		text := "{{- with " + expression + " }}\n" + indent + strings.TrimSuffix(key, " ") + "\n{{- toYaml . | nindent " + strconv.Itoa(len(indent)+2) + " }}\n"
		if otherwise != nil {
			field := map[string]any{strings.TrimSuffix(key, ": "): otherwise}
			content, err := yaml.Marshal(field)
			if err != nil {
				panic("chart: internal error: " + err.Error()) // it was read from YAML
			}
			lines := strings.TrimSuffix(string(content), "\n")
			text += "{{- else }}\n" + indent + strings.ReplaceAll(lines, "\n", "\n"+indent) + "\n"
		}
		return text + "{{- end }}"
	})
}

var placeholderLine = regexp.MustCompile(`(?m)^( *)(- |\w+: )placeholder-(\d+)$`)

// fill returns text with the expressions in the places of the placeholders.
func (p *placeholders) fill(text string) string {
	return placeholderLine.ReplaceAllStringFunc(text, func(line string) string {
		match := placeholderLine.FindStringSubmatch(line)
		n, err := strconv.Atoi(match[3])
		if err != nil {
			panic("chart: internal error: " + err.Error()) // they are digits
		}
		return p.all[n](match[1], match[2])
	})
}
