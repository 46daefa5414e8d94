package secretrefs

import corev1 "k8s.io/api/core/v1"

// names are the names in a volume source, by kind; nil if there is none of the kind. A valid volume
// has one source, but admission may see volumes before they are validated.
type names [StorageOS + 1]*string

func namesIn(source *corev1.VolumeSource) (found names) {
	if s := source.Secret; s != nil {
		found[SecretVolume] = &s.SecretName
	}
	if s := source.AzureFile; s != nil {
		found[AzureFile] = &s.SecretName
	}
	if s := source.CephFS; s != nil {
		found.set(CephFS, s.SecretRef)
	}
	if s := source.Cinder; s != nil {
		found.set(Cinder, s.SecretRef)
	}
	if s := source.CSI; s != nil {
		found.set(CSI, s.NodePublishSecretRef)
	}
	if s := source.FlexVolume; s != nil {
		found.set(FlexVolume, s.SecretRef)
	}
	if s := source.ISCSI; s != nil {
		found.set(ISCSI, s.SecretRef)
	}
	if s := source.RBD; s != nil {
		found.set(RBD, s.SecretRef)
	}
	if s := source.ScaleIO; s != nil {
		found.set(ScaleIO, s.SecretRef)
	}
	if s := source.StorageOS; s != nil {
		found.set(StorageOS, s.SecretRef)
	}
	return found
}

func (n *names) set(kind Kind, ref *corev1.LocalObjectReference) {
	if ref != nil {
		n[kind] = &ref.Name
	}
}

func ofVolume(volume *corev1.Volume, index int, yield func(Reference) bool) bool {
	found := Reference{Index: index, Holder: volume.Name}
	for kind, name := range namesIn(&volume.VolumeSource) {
		if name == nil {
			continue
		}
		found.Kind, found.Name = Kind(kind), *name
		if !yield(found) {
			return false
		}
	}
	if volume.Projected == nil {
		return true
	}
	for i := range volume.Projected.Sources {
		if secret := volume.Projected.Sources[i].Secret; secret != nil {
			found.Kind, found.Name, found.Inner = ProjectedSecret, secret.Name, i
			if !yield(found) {
				return false
			}
		}
	}
	return true
}
