package v1alpha1_test

import (
	"encoding/json"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	"github.com/sakeeper/sakeeper/pkg/api/v1alpha1"
	"github.com/sakeeper/sakeeper/pkg/testkit"
)

const manifests = "../../../manifests/"

// TestTheDefinitionIsThatOfTheTypes: run `make manifests` after a change of the types.
func TestTheDefinitionIsThatOfTheTypes(t *testing.T) {
	type properties map[string]json.RawMessage
	var definition struct {
		Spec struct {
			Versions []struct {
				Schema struct {
					OpenAPIV3Schema struct {
						Properties struct {
							Spec, Status struct{ Properties properties }
						}
					} `json:"openAPIV3Schema"`
				}
			}
		}
	}
	mustParse(t, mustRead(t, manifests+"components/account-templates/sakeeper.io_serviceaccounttemplates.yaml"), &definition)
	schema := definition.Spec.Versions[0].Schema.OpenAPIV3Schema.Properties
	for what, tc := range map[string]struct {
		in   reflect.Type
		want properties
	}{
		"spec":   {reflect.TypeFor[v1alpha1.ServiceAccountTemplateSpec](), schema.Spec.Properties},
		"status": {reflect.TypeFor[v1alpha1.ServiceAccountTemplateStatus](), schema.Status.Properties},
	} {
		var fields []string
		for field := range tc.in.Fields() {
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			fields = append(fields, name)
		}
		slices.Sort(fields)
		if diff := cmp.Diff(slices.Sorted(maps.Keys(tc.want)), fields); diff != "" {
			t.Errorf("%s (-definition +types):\n%s", what, diff)
		}
	}
}

// TestExamples: the examples have no field that the types lack.
func TestExamples(t *testing.T) {
	examples := append(mustRead(t, manifests+"examples/account-templates.yaml"), "\n---\n"...)
	documents, err := testkit.Documents(append(examples, mustRead(t, manifests+"examples/pull-secret-copies.yaml")...))
	if err != nil || len(documents) != 4 {
		t.Fatalf("%d examples: %v", len(documents), err)
	}
	for _, document := range documents {
		var template v1alpha1.ServiceAccountTemplate
		mustParse(t, document, &template)
		if template.Kind != "ServiceAccountTemplate" || template.APIVersion != v1alpha1.GroupVersion.String() {
			t.Errorf("%s %s", template.APIVersion, template.Kind)
		}
		again, err := yaml.Marshal(template.DeepCopy())
		if err != nil {
			t.Fatal(err)
		}
		var copied v1alpha1.ServiceAccountTemplate
		mustParse(t, again, &copied)
		if diff := cmp.Diff(template, copied); diff != "" {
			t.Errorf("a copy (-want +got):\n%s", diff)
		}
	}
}

func mustRead(t *testing.T, path string) []byte {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// mustParse fails on an unknown field of a template.
func mustParse(t *testing.T, content []byte, into any) {
	t.Helper()
	parse := yaml.Unmarshal
	if _, ok := into.(*v1alpha1.ServiceAccountTemplate); ok {
		parse = yaml.UnmarshalStrict
	}
	if err := parse(content, into); err != nil {
		t.Fatal(err)
	}
}
