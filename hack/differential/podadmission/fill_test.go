package podadmission

import (
	"reflect"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// unions are the types of which one pointer field at a time is meant to be set.
var unions = map[reflect.Type]bool{
	reflect.TypeFor[corev1.VolumeSource]():     true,
	reflect.TypeFor[corev1.VolumeProjection](): true,
	reflect.TypeFor[corev1.EnvVarSource]():     true,
	reflect.TypeFor[corev1.EnvFromSource]():    true,
}

// favoured are the fields of unions that the rules check; projected volumes have two rules.
var favoured = []string{
	"secret", "azureFile", "cephfs", "cinder", "flexVolume", "projected", "projected", "rbd", "scaleIO", "iscsi", "storageos", "csi",
	"serviceAccountToken", "secretKeyRef", "secretRef",
}

// fill draws a value of any API type. It walks the type, so that a volume type or
// reference of a later API version is generated without a change here.
func (g *generator) fill(v reflect.Value, path string) {
	switch v.Kind() {
	case reflect.Struct:
		switch {
		case unions[v.Type()]:
			g.fillUnion(v, path)

			return
		case v.Type() == reflect.TypeFor[resource.Quantity]():
			return
		}
		for _, field := range reflect.VisibleFields(v.Type()) {
			if field.IsExported() && len(field.Index) == 1 {
				g.fill(v.FieldByIndex(field.Index), below(path, field))
			}
		}
	case reflect.Pointer:
		if g.chance(0.7) {
			v.Set(reflect.New(v.Type().Elem()))
			g.fill(v.Elem(), path)
		}
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), pick(g, []int{0, 1, 1, 2, 2}), 2))
		for i := range v.Len() {
			g.fill(v.Index(i), path)
		}
	case reflect.String:
		v.SetString(g.text(path))
	case reflect.Bool:
		v.SetBool(g.chance(0.5))
	case reflect.Int, reflect.Int32, reflect.Int64:
		v.SetInt(g.Int64N(5))
	default: // the rules check no maps
	}
}

// fillUnion sets one field, rarely a second one, which an API server refuses only
// after admission. Mirror pods get no second one: the package comment says why.
func (g *generator) fillUnion(v reflect.Value, path string) {
	var all, interesting []reflect.StructField
	for _, field := range reflect.VisibleFields(v.Type()) {
		if field.Type.Kind() != reflect.Pointer {
			continue
		}
		all = append(all, field)
		for _, name := range favoured {
			if name == jsonName(field) {
				interesting = append(interesting, field)
			}
		}
	}
	for again := true; again; again = !g.mirror && g.chance(0.02) {
		field := pick(g, all)
		if g.chance(0.5) {
			field = pick(g, interesting)
		}
		value := v.FieldByIndex(field.Index)
		value.Set(reflect.New(field.Type.Elem()))
		g.fill(value.Elem(), below(path, field))
	}
}

// text draws a string. For the name of a Secret it draws one that ServiceAccounts list, or by
// chance another one or none, and records its path.
func (g *generator) text(path string) string {
	parts := strings.Split(path, ".")
	leaf, parent := parts[len(parts)-1], strings.ToLower(parts[len(parts)-2])
	if leaf != "secretName" && (leaf != "name" || !strings.Contains(parent, "secret")) {
		return pick(g, []string{"settings", "example.com/driver", "v1", "metadata.name", "database", ""})
	}
	name := pick(g, listed)
	switch {
	case g.chance(g.blank):
		name = ""
	case g.chance(g.unlisted):
		name = unlisted
	}
	if name != "" {
		g.secretPlaces = append(g.secretPlaces, path)
	}

	return name
}

func below(path string, field reflect.StructField) string {
	if field.Anonymous {
		return path
	}

	return path + "." + jsonName(field)
}

func jsonName(field reflect.StructField) string {
	name, _, _ := strings.Cut(field.Tag.Get("json"), ",")

	return name
}
