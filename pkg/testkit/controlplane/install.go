package controlplane

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/sakeeper/sakeeper/pkg/testkit"
)

// noPods is the component that removes the objects of podKinds. It is skipped, because apply
// leaves them out.
const noPods = "no-pods"

// podKinds are not applied, because there is no kubelet.
var podKinds = []string{"Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy"}

// kustomization has the fields of a kustomization.yaml that apply supports.
type kustomization struct {
	APIVersion string   `json:"apiVersion"`
	Kind       string   `json:"kind"`
	Resources  []string `json:"resources"`
	Components []string `json:"components"`
}

// apply applies the objects of directories below manifests as `kubectl apply -k` would,
// without kubectl, which takes minutes to build. Each is passed to edit first, which may be
// nil. Patches are an error.
func (cp *ControlPlane) apply(ctx context.Context, edit func(*unstructured.Unstructured) error, dirs ...string) error {
	root, err := RepositoryRoot()
	if err != nil {
		return err
	}
	c, err := client.New(cp.Admin, client.Options{})
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		objects, err := read(filepath.Join(root, "manifests", dir))
		if err != nil {
			return err
		}
		for _, o := range slices.DeleteFunc(objects, belongsToPods) {
			if edit != nil {
				if err := edit(o); err != nil {
					return err
				}
			}
			if err := c.Apply(ctx, client.ApplyConfigurationFromUnstructured(o), client.FieldOwner("testkit"), client.ForceOwnership); err != nil {
				return fmt.Errorf("apply %s %s: %w", o.GetKind(), o.GetName(), err)
			}
		}
	}
	return nil
}

func belongsToPods(o *unstructured.Unstructured) bool { return slices.Contains(podKinds, o.GetKind()) }

// read returns the objects of a kustomization directory, or of a file.
func read(path string) ([]*unstructured.Unstructured, error) {
	if filepath.Base(path) == noPods {
		return nil, nil
	}
	var k kustomization
	content, err := os.ReadFile(filepath.Join(path, "kustomization.yaml"))
	if err != nil {
		return readFile(path)
	}
	if err := yaml.UnmarshalStrict(content, &k); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	var all []*unstructured.Unstructured
	for _, entry := range append(k.Resources, k.Components...) {
		objects, err := read(filepath.Join(path, entry))
		if err != nil {
			return nil, err
		}
		all = append(all, objects...)
	}
	return all, nil
}

func readFile(path string) ([]*unstructured.Unstructured, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	documents, err := testkit.Documents(content)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	var all []*unstructured.Unstructured
	for _, document := range documents {
		o := &unstructured.Unstructured{}
		if err := yaml.Unmarshal(document, &o.Object); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		all = append(all, o)
	}
	return all, nil
}
