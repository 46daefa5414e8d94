package controlplane

import (
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// TestObjectsAreThoseOfKustomize compares the objects with what kubectl kustomize rendered.
func TestObjectsAreThoseOfKustomize(t *testing.T) {
	root, err := RepositoryRoot()
	if err != nil {
		t.Fatal(err)
	}
	byName := func(path string) map[string]any {
		t.Helper()
		objects, err := read(filepath.Join(root, "manifests", path))
		if err != nil {
			t.Fatal(err)
		}
		all := map[string]any{}
		for _, o := range slices.DeleteFunc(objects, belongsToPods) {
			all[o.GetKind()+" "+o.GetNamespace()+"/"+o.GetName()] = o.Object
		}
		return all
	}
	for source, rendered := range map[string]string{
		"overlays/outside":   "rendered/outside.yaml",
		"base/authenticator": "rendered/authenticator.yaml",
	} {
		want := byName(rendered)
		if diff := cmp.Diff(want, byName(source)); diff != "" || len(want) < 3 {
			t.Errorf("%s (-%s +read):\n%s", source, rendered, diff)
		}
	}
}

func TestPatchesAreRefused(t *testing.T) {
	root, err := RepositoryRoot()
	if err != nil {
		t.Fatal(err)
	}
	if objects, err := read(filepath.Join(root, "manifests/overlays/coexist-webhook")); err == nil {
		t.Errorf("read %d objects", len(objects))
	}
}

func TestReplaceService(t *testing.T) {
	configuration := func(clientConfig map[string]any) map[string]any {
		return map[string]any{"webhooks": []any{map[string]any{"clientConfig": clientConfig}}}
	}
	got := configuration(map[string]any{"service": map[string]any{"path": "/mutate/pods"}})
	if err := (Webhook{Address: "127.0.0.1:1"}).replaceService(&unstructured.Unstructured{Object: got}); err != nil {
		t.Fatal(err)
	}
	want := configuration(map[string]any{"url": "https://127.0.0.1:1/mutate/pods"})
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
