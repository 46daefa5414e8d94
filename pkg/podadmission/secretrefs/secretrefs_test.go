package secretrefs_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/sakeeper/sakeeper/pkg/podadmission/secretrefs"
)

func local(name string) *corev1.LocalObjectReference {
	return &corev1.LocalObjectReference{Name: name}
}

func variable(name, secret string) corev1.EnvVar {
	return corev1.EnvVar{Name: name, ValueFrom: &corev1.EnvVarSource{
		SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: *local(secret)},
	}}
}

func from(secret string) corev1.EnvFromSource {
	return corev1.EnvFromSource{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: *local(secret)}}
}

func TestReferences(t *testing.T) {
	plain := corev1.EnvVar{Name: "PLAIN", Value: "secret"}
	spec := &corev1.PodSpec{
		ImagePullSecrets: []corev1.LocalObjectReference{{Name: "registry"}},
		Volumes: []corev1.Volume{
			{Name: "scratch"},
			{Name: "data", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "data"}}},
			{Name: "disk", VolumeSource: corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{NodePublishSecretRef: local("disk")}}},
			{Name: "open", VolumeSource: corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{Driver: "none needed"}}},
			{Name: "mixed", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
				{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: *local("config")}},
				{Secret: &corev1.SecretProjection{LocalObjectReference: *local("mixed")}},
			}}}},
		},
		InitContainers: []corev1.Container{{Name: "first", Env: []corev1.EnvVar{plain, variable("INIT", "init")}}},
		Containers: []corev1.Container{{Name: "idle"}, {
			Name: "main", Env: []corev1.EnvVar{variable("MAIN", "main")}, EnvFrom: []corev1.EnvFromSource{{}, from("all")},
		}},
		EphemeralContainers: []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{
			Name: "debug", EnvFrom: []corev1.EnvFromSource{from("")},
		}}},
	}
	want := []secretrefs.Reference{
		{Kind: secretrefs.SecretVolume, Name: "data", Holder: "data", Index: 1},
		{Kind: secretrefs.CSI, Name: "disk", Holder: "disk", Index: 2},
		{Kind: secretrefs.ProjectedSecret, Name: "mixed", Holder: "mixed", Index: 4, Inner: 1},
		{Kind: secretrefs.Env, Name: "init", Container: secretrefs.Init, Holder: "first", Variable: "INIT", Inner: 1},
		{Kind: secretrefs.Env, Name: "main", Container: secretrefs.Regular, Holder: "main", Variable: "MAIN", Index: 1},
		{Kind: secretrefs.EnvFrom, Name: "all", Container: secretrefs.Regular, Holder: "main", Index: 1, Inner: 1},
		{Kind: secretrefs.EnvFrom, Container: secretrefs.Ephemeral, Holder: "debug"},
		{Kind: secretrefs.ImagePullSecret, Name: "registry"},
	}
	if diff := cmp.Diff(want, slices.Collect(secretrefs.All(spec))); diff != "" {
		t.Errorf("references (-want +got):\n%s", diff)
	}
	for stop := range want { // a caller that stops must not be called again
		seen := 0
		for range secretrefs.All(spec) {
			if seen == stop {
				break
			}
			seen++
		}
	}
	if secretrefs.ProjectsToken(spec) {
		t.Error("a projected volume without a token counts as one with a token")
	}
}

func TestAnEmptyPodNamesNothing(t *testing.T) {
	spec := &corev1.PodSpec{}
	if got := slices.Collect(secretrefs.All(spec)); got != nil || secretrefs.ProjectsToken(spec) {
		t.Errorf("found %v", got)
	}
}

func TestContainersAreNotCopies(t *testing.T) {
	spec := &corev1.PodSpec{
		InitContainers:      make([]corev1.Container, 1),
		Containers:          make([]corev1.Container, 2),
		EphemeralContainers: make([]corev1.EphemeralContainer, 1),
	}
	want := []secretrefs.Place{{Kind: secretrefs.Init}, {Kind: secretrefs.Regular}, {Kind: secretrefs.Regular, Index: 1}, {Kind: secretrefs.Ephemeral}}
	var got []secretrefs.Place
	for place, container := range secretrefs.Containers(spec) {
		container.Name = "changed"
		got = append(got, place)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("containers (-want +got):\n%s", diff)
	}
	for _, name := range []string{spec.InitContainers[0].Name, spec.Containers[1].Name, spec.EphemeralContainers[0].Name} {
		if name != "changed" {
			t.Error("a copy was changed")
		}
	}
	for stop := range want {
		seen := 0
		for range secretrefs.Containers(spec) {
			if seen == stop {
				break
			}
			seen++
		}
	}
}

// BenchmarkAll is the cost for a pod that names three Secrets.
func BenchmarkAll(b *testing.B) {
	spec := &corev1.PodSpec{
		Volumes:    []corev1.Volume{{VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "data"}}}, {}, {}},
		Containers: []corev1.Container{{Env: []corev1.EnvVar{variable("A", "a"), {Name: "B"}}}, {EnvFrom: []corev1.EnvFromSource{from("c")}}},
	}
	b.ReportAllocs()
	for b.Loop() {
		for reference := range secretrefs.All(spec) {
			if reference.Name == "absent" {
				b.Fatal("named")
			}
		}
	}
}
