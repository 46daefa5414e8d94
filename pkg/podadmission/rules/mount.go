package rules

import (
	"cmp"
	"iter"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/utils/ptr"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/podadmission/secretrefs"
)

// TokenSeconds is the lifetime that a projected token requests. By this number the API server
// recognizes tokens of injected volumes, and extends them for clients that never read the file
// again.
const TokenSeconds = 3607

// NeedsToken returns true if [Mutate] mounts a token. It does not if every container has a mount at
// the path already, or if the pod or the ServiceAccount opted out.
func NeedsToken(pod *corev1.Pod, account *corev1.ServiceAccount) bool {
	if isMirror(pod) || !automounts(pod, account) {
		return false
	}
	for range withoutToken(pod) {
		return true
	}
	return false
}

// automounts returns the setting of the pod, else that of the ServiceAccount, else true.
func automounts(pod *corev1.Pod, account *corev1.ServiceAccount) bool {
	if setting := pod.Spec.AutomountServiceAccountToken; setting != nil {
		return *setting
	}
	return ptr.Deref(account.AutomountServiceAccountToken, true)
}

// withoutToken visits the init and regular containers without a mount at the path of the token.
func withoutToken(pod *corev1.Pod) iter.Seq2[secretrefs.Place, *corev1.Container] {
	return func(yield func(secretrefs.Place, *corev1.Container) bool) {
		for place, container := range secretrefs.Containers(&pod.Spec) {
			if place.Kind == secretrefs.Ephemeral || mountsAtTokenPath(container) {
				continue
			}
			if !yield(place, container) {
				return
			}
		}
	}
}

func mountsAtTokenPath(container *corev1.Container) bool {
	for i := range container.VolumeMounts {
		if container.VolumeMounts[i].MountPath == api.ServiceAccountDir {
			return true
		}
	}
	return false
}

// mountToken adds the mount to every container that has none at its path, and the volume unless the
// pod has it.
func mountToken(pod *corev1.Pod, account *corev1.ServiceAccount, tokenSecret string, s Settings, changes *Changes) error {
	if !NeedsToken(pod, account) {
		return nil
	}
	source := projectedToken
	if s.TokenVolumeSource == SecretTokens {
		if tokenSecret == "" {
			return noToken(account)
		}
		source = func(pod *corev1.Pod, s Settings) (string, *corev1.Volume) { return secretToken(pod, tokenSecret, s) }
	}
	name, missing := source(pod, s)
	mount := corev1.VolumeMount{Name: name, ReadOnly: true, MountPath: api.ServiceAccountDir}
	for place, container := range withoutToken(pod) {
		container.VolumeMounts = append(container.VolumeMounts, mount)
		changes.Mounted = append(changes.Mounted, place)
	}
	changes.Mount = mount
	if missing != nil {
		pod.Spec.Volumes = append(pod.Spec.Volumes, *missing)
		changes.Volume = missing
	}
	return nil
}

// projectedToken returns the name of the volume with the projected token, and that volume if the pod
// has none. As in-tree, a volume is recognized by the prefix of its name alone.
func projectedToken(pod *corev1.Pod, s Settings) (string, *corev1.Volume) {
	for i := range pod.Spec.Volumes {
		if name := pod.Spec.Volumes[i].Name; strings.HasPrefix(name, TokenVolumePrefix) {
			return name, nil
		}
	}
	name := TokenVolumePrefix + s.suffix()
	return name, &corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{Projected: projection(cmp.Or(s.TokenExpirationSeconds, TokenSeconds))}}
}

func projection(seconds int64) *corev1.ProjectedVolumeSource {
	return &corev1.ProjectedVolumeSource{
		DefaultMode: ptr.To(corev1.ProjectedVolumeSourceDefaultMode),
		Sources: []corev1.VolumeProjection{
			{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{
				Path: corev1.ServiceAccountTokenKey, ExpirationSeconds: new(seconds),
			}},
			{ConfigMap: &corev1.ConfigMapProjection{
				LocalObjectReference: corev1.LocalObjectReference{Name: api.RootCAConfigMap},
				Items:                []corev1.KeyToPath{{Key: corev1.ServiceAccountRootCAKey, Path: corev1.ServiceAccountRootCAKey}},
			}},
			{DownwardAPI: &corev1.DownwardAPIProjection{
				Items: []corev1.DownwardAPIVolumeFile{{
					Path:     corev1.ServiceAccountNamespaceKey,
					FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "metadata.namespace"},
				}},
			}},
		},
	}
}

// secretToken returns the name of the volume with that token Secret, and that volume if the pod has
// none.
func secretToken(pod *corev1.Pod, secret string, s Settings) (string, *corev1.Volume) {
	taken := map[string]bool{}
	for i := range pod.Spec.Volumes {
		volume := &pod.Spec.Volumes[i]
		if volume.Secret != nil && volume.Secret.SecretName == secret {
			return volume.Name, nil
		}
		taken[volume.Name] = true
	}
	// The name of a Secret may have dots and 253 characters, that of a volume may not.
	name := strings.ReplaceAll(secret, ".", "-")
	if taken[name] || len(name) > validation.DNS1123LabelMaxLength {
		const end = suffixLength + len("-")
		name = name[:min(len(name), validation.DNS1123LabelMaxLength-end)] + "-" + s.suffix()
	}
	return name, &corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{
		SecretName: secret, DefaultMode: ptr.To(corev1.SecretVolumeSourceDefaultMode),
	}}}
}
