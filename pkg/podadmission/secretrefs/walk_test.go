package secretrefs_test

import (
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/sakeeper/sakeeper/pkg/podadmission/secretrefs"
)

// otherFields lists every field in a PodSpec that is, or holds, a string and does not name a
// Secret. A new field is added there, or to secretFields, after reading its documentation.
const otherFields = "testdata/other-fields.txt"

// secretFields are those that name a Secret.
func secretFields() []string {
	return []string{
		"AzureFileVolumeSource.SecretName",
		"CSIVolumeSource.NodePublishSecretRef",
		"CephFSVolumeSource.SecretRef",
		"CinderVolumeSource.SecretRef",
		"FlexVolumeSource.SecretRef",
		"ISCSIVolumeSource.SecretRef",
		"PodSpec.ImagePullSecrets",
		"RBDVolumeSource.SecretRef",
		"ScaleIOVolumeSource.SecretRef",
		"SecretEnvSource.LocalObjectReference",
		"SecretKeySelector.LocalObjectReference",
		"SecretProjection.LocalObjectReference",
		"SecretVolumeSource.SecretName",
		"StorageOSVolumeSource.SecretRef",
	}
}

// TestEveryFieldIsInOneOfTheLists fails when the API gets a field that could name a Secret. Read its
// documentation: if it names a Secret, add it to secretFields, and TestAll fails until All finds
// it; else add it to the file.
func TestEveryFieldIsInOneOfTheLists(t *testing.T) {
	data, err := os.ReadFile(otherFields)
	if err != nil {
		t.Fatal(err)
	}
	listed := secretFields()
	for line := range strings.Lines(string(data)) {
		field, _, _ := strings.Cut(line, "#")
		listed = append(listed, strings.TrimSpace(field))
	}
	_, w := filled(t)
	for _, field := range slices.Sorted(maps.Keys(w.fields)) {
		if !slices.Contains(listed, field) {
			t.Errorf("%s: does it name a Secret? It is at %s", field, w.fields[field][0])
		}
	}
	for _, field := range listed {
		if w.fields[field] == nil {
			t.Errorf("%s: there is no such field any more", field)
		}
	}
}

// TestAll fills every string in a PodSpec with its own path: exactly those of fields
// that name Secrets must be found.
func TestAll(t *testing.T) {
	spec, w := filled(t)
	var want []string
	for _, field := range secretFields() {
		want = append(want, w.fields[field]...)
	}
	var got []string
	for reference := range secretrefs.All(spec) {
		if reference.Name != reference.Path() {
			t.Errorf("%s was found as %s", reference.Name, reference.Path())
		}
		got = append(got, reference.Name)
	}
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("paths (-want +got):\n%s", diff)
	}
	if !secretrefs.ProjectsToken(spec) {
		t.Error("the projected token was not found")
	}
}

// walker fills strings, and records their paths by field.
type walker struct {
	t      *testing.T
	fields map[string][]string
}

func filled(t *testing.T) (*corev1.PodSpec, walker) {
	t.Helper()
	spec, w := &corev1.PodSpec{}, walker{t: t, fields: map[string][]string{}}
	w.fill(reflect.ValueOf(spec).Elem(), "", "spec")
	return spec, w
}

// fill sets v, which is at path and belongs to field ("<type>.<field>").
func (w walker) fill(v reflect.Value, field, path string) {
	w.t.Helper()
	if known, opaque := w.leaf(v, path); known {
		if !opaque {
			w.fields[field] = append(w.fields[field], path+".name")
		}
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			member := v.Type().Field(i)
			name, _, _ := strings.Cut(member.Tag.Get("json"), ",")
			at := path
			if name != "" {
				at += "." + name
			}
			w.fill(v.Field(i), v.Type().Name()+"."+member.Name, at)
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		w.fill(v.Elem(), field, path)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range v.Len() {
			w.fill(v.Index(i), field, fmt.Sprintf("%s[%d]", path, i))
		}
	case reflect.Map:
		w.fields[field] = append(w.fields[field], path)
		v.Set(reflect.MakeMap(v.Type()))
		if v.Type().Elem().Kind() == reflect.String {
			v.SetMapIndex(reflect.ValueOf(path).Convert(v.Type().Key()), reflect.ValueOf(path).Convert(v.Type().Elem()))
		}
	case reflect.String:
		w.fields[field] = append(w.fields[field], path)
		v.SetString(path)
	case reflect.Bool, reflect.Int32, reflect.Int64:
	default:
		w.t.Errorf("%s: the test does not know the type %s", path, v.Type())
	}
}

// leaf returns true for types that are not walked: references, which name what their field is for,
// and opaque types, which hold no names.
func (w walker) leaf(v reflect.Value, path string) (known, opaque bool) {
	if !v.CanAddr() {
		return false, false
	}
	switch obj := v.Addr().Interface().(type) {
	case *corev1.LocalObjectReference:
		obj.Name = path + ".name"
	case *corev1.SecretReference:
		obj.Name = path + ".name"
	case *corev1.ObjectReference:
		obj.Name = path + ".name"
	case *corev1.TypedLocalObjectReference:
		obj.Name = path + ".name"
	case *corev1.TypedObjectReference:
		obj.Name = path + ".name"
	case *resource.Quantity, *metav1.Time, *intstr.IntOrString, *metav1.ObjectMeta, *metav1.LabelSelector:
		return true, true
	default:
		return false, false
	}
	return true, false
}
