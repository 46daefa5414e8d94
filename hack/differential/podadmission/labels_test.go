package podadmission

import (
	"fmt"
	"slices"
	"strconv"
)

// required are the labels that a run must reach: every result of the plugin, and every
// boundary value of the generator.
func required() []string {
	return slices.Concat(answers, requiredMirror(), requiredMarks(), requiredNames(), requiredTokens())
}

var answers = []string{
	"create: allowed",
	"create: 403 Forbidden: error looking up service account team/default: serviceaccount * not found",
	"create: 403 Forbidden: error looking up service account team/builder: serviceaccount * not found",
	"create: 403 Forbidden: error looking up service account team/missing: serviceaccount * not found",
	"create: 403 Forbidden: volume with secret.secretName=* is not allowed because service account builder does not reference that secret",
	"create: 403 Forbidden: init container * with * referencing secret.secretName=* is not allowed because service account builder does not reference that secret",
	"create: 403 Forbidden: init container * with envFrom referencing secret.secretName=* is not allowed because service account builder does not reference that secret",
	"create: 403 Forbidden: container * with * referencing secret.secretName=* is not allowed because service account builder does not reference that secret",
	"create: 403 Forbidden: container * with envFrom referencing secret.secretName=* is not allowed because service account builder does not reference that secret",
	"create: 403 Forbidden: imagePullSecrets[0].name=* is not allowed because service account builder does not reference that imagePullSecret",
	"create: 403 Forbidden: imagePullSecrets[1].name=* is not allowed because service account builder does not reference that imagePullSecret",
	"validate: allowed",
	"validate: 403 Forbidden: no service account specified for pod team/web",
	"validate: 403 Forbidden: no service account specified for pod team/",
	"mirror: allowed",
	"mirror: 403 Forbidden: a mirror pod may not reference service accounts",
	"mirror: 403 Forbidden: a mirror pod may not reference secrets",
	"mirror: 403 Forbidden: a mirror pod may not use ServiceAccountToken volume projections",
	"ephemeral: allowed",
	"ephemeral: 403 Forbidden: no service account specified for pod team/web",
	"ephemeral: 403 Forbidden: error looking up service account team/default: serviceaccount * not found",
	"ephemeral: 403 Forbidden: error looking up service account team/missing: serviceaccount * not found",
	"ephemeral: 500 : ephemeral container * with * referencing secret.secretName=* is not allowed because service account builder does not reference that secret",
	"ephemeral: 500 : ephemeral container * with envFrom referencing secret.secretName=* is not allowed because service account builder does not reference that secret",
	"UPDATE pods/: allowed",
	"UPDATE pods/status: allowed",
	"DELETE pods/: allowed",
	"CONNECT pods/exec: allowed",
	"CREATE pods/binding: allowed",
	"CREATE pods/eviction: allowed",
	`subject: pods "web"`,
	`subject: pods "web-"`,
	`subject: pods "Unknown"`,
}

func requiredMirror() []string {
	places := []string{
		"imagePullSecrets.name", "volumes.azureFile.secretName", "volumes.cephfs.secretRef.name", "volumes.cinder.secretRef.name",
		"volumes.csi.nodePublishSecretRef.name", "volumes.flexVolume.secretRef.name", "volumes.iscsi.secretRef.name",
		"volumes.projected.sources.secret.name", "volumes.rbd.secretRef.name", "volumes.scaleIO.secretRef.name",
		"volumes.secret.secretName", "volumes.storageos.secretRef.name",
	}
	for _, containers := range []string{"initContainers", "containers", "ephemeralContainers"} {
		places = append(places, containers+".env.valueFrom.secretKeyRef.name", containers+".envFrom.secretRef.name")
	}
	var result []string
	for _, place := range places {
		result = append(result, "mirror: only "+place, "enforced: allowed "+place)
	}

	return result
}

func requiredMarks() []string {
	var result []string
	for _, what := range []string{"create", "ephemeral"} {
		for _, mark := range marks {
			not := "not "
			if on, err := strconv.ParseBool(mark); err == nil && on {
				not = ""
			}
			result = append(result, fmt.Sprintf("%s: %senforced by %q", what, not, mark))
		}
		result = append(result, what+": not enforced by no annotation",
			what+": enforced by the flag alone", what+": enforced by the flag beside an annotation")
	}

	return result
}

func requiredNames() []string {
	result := []string{"account: in the cache", "account: only live"}
	for _, patched := range []bool{false, true} {
		for _, name := range []string{"absent, alias absent", "absent, alias said", "said, alias absent", "said, alias said", "other than the alias"} {
			result = append(result, fmt.Sprintf("name: %s, patched %v", name, patched))
		}
	}
	for _, pod := range []bool{false, true} {
		for _, account := range []bool{false, true} {
			result = append(result, fmt.Sprintf("imagePullSecrets: of the pod %v, of the account %v", pod, account))
		}
	}

	return result
}

func requiredTokens() []string {
	result := []string{"token: no mount", "token: volume added"}
	for _, pod := range []string{"nothing", "true", "false"} {
		for _, account := range []string{"nothing", "true", "false"} {
			result = append(result, fmt.Sprintf("automount: pod says %s, account %s", pod, account))
		}
	}
	for _, path := range mountPaths {
		if path != tokenPath {
			result = append(result, fmt.Sprintf("token: mounted beside %q", path))
		}
	}
	for _, name := range volumeNames {
		form := "token: volume beside %q"
		if len(name) >= len(volumePrefix) && name[:len(volumePrefix)] == volumePrefix {
			form = "token: volume %q reused"
		}
		result = append(result, fmt.Sprintf(form, name))
	}

	return result
}
