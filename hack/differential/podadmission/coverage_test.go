package podadmission

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apiserver/pkg/admission"
)

// coverage counts what the cases of a run reached, by label.
type coverage map[string]int

// require fails the test for each label that no case reached.
func (c coverage) require(t *testing.T, labels []string) {
	t.Helper()
	for _, label := range labels {
		if c[label] == 0 {
			t.Errorf("no case reached: %s", label)
		}
	}
	rarest := func(a, b string) int { return cmp.Or(c[a]-c[b], strings.Compare(a, b)) }
	for _, label := range slices.SortedFunc(maps.Keys(c), rarest) {
		t.Logf("%6d %s", c[label], label)
	}
}

// labels are the labels that one case reached.
func labels(o *observed) []string {
	switch {
	case o.request.Operation == admission.Update && o.request.Subresource == "ephemeralcontainers":
		return slices.Concat(verdict("ephemeral", o.admitted), marked("ephemeral", o))
	case o.request.Operation != admission.Create || o.request.Subresource != "":
		return verdict(fmt.Sprintf("%s pods/%s", o.request.Operation, o.request.Subresource), o.admitted)
	case o.mirror:
		return slices.Concat(verdict("mirror", o.admitted), secretPlaces(o))
	case !o.admitted.Allowed:
		return slices.Concat(verdict("create", o.admitted), verdict("validate", o.validated), marked("create", o))
	default:
		return slices.Concat(verdict("create", o.admitted), verdict("validate", o.validated), marked("create", o),
			names(o), automount(o), token(o), pullSecrets(o), listedSecrets(o))
	}
}

// The parts of a message that vary within one rule.
var variable = regexp.MustCompile(`"[^"]*"|(init|main|debug)[0-9]|envVar \S*`)

func verdict(what string, of outcome) []string {
	if of.Allowed {
		return []string{what + ": allowed"}
	}
	subject, message, forbidden := strings.Cut(of.Message, " is forbidden: ")
	if !forbidden {
		message = of.Message
	}
	message = variable.ReplaceAllString(message, "*")
	result := []string{fmt.Sprintf("%s: %d %s: %s", what, of.Code, of.Reason, message)}
	if forbidden {
		result = append(result, "subject: "+subject)
	}

	return result
}

// marked labels the value of the annotation, or the flag, that enabled the check, or left it
// disabled for a pod with a reference that would fail it.
func marked(what string, o *observed) []string {
	mark, ok := "", false
	if o.account != nil {
		mark, ok = o.account.Annotations[enforceMark]
	}
	by := "no annotation"
	switch {
	case o.request.LimitSecretReferences && ok:
		by = "the flag beside an annotation"
	case o.request.LimitSecretReferences:
		by = "the flag alone"
	case ok:
		by = strconv.Quote(mark)
	}
	switch {
	case strings.Contains(o.admitted.Message, "does not reference that"):
		return []string{what + ": enforced by " + by}
	case o.admitted.Allowed && referencesUnlisted(o.given, what):
		return []string{what + ": not enforced by " + by}
	default:
		return nil
	}
}

// referencesUnlisted returns true if the pod references a Secret that no account lists, at a
// place that is checked.
func referencesUnlisted(pod *corev1.Pod, what string) bool {
	var containers []corev1.Container
	if what == "ephemeral" {
		for _, c := range pod.Spec.EphemeralContainers {
			containers = append(containers, corev1.Container(c.EphemeralContainerCommon))
		}
	} else {
		containers = slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers)
	}
	env := func(e corev1.EnvVar) bool {
		return e.ValueFrom != nil && e.ValueFrom.SecretKeyRef != nil && e.ValueFrom.SecretKeyRef.Name == unlisted
	}
	envFrom := func(e corev1.EnvFromSource) bool { return e.SecretRef != nil && e.SecretRef.Name == unlisted }

	return slices.ContainsFunc(containers, func(c corev1.Container) bool {
		return slices.ContainsFunc(c.Env, env) || slices.ContainsFunc(c.EnvFrom, envFrom)
	})
}

// secretPlaces names the only reference to a Secret that a refused mirror pod had.
func secretPlaces(o *observed) []string {
	if len(o.secretPlaces) != 1 || !strings.Contains(o.admitted.Message, "may not reference secrets") {
		return nil
	}

	return []string{"mirror: only " + o.secretPlaces[0]}
}

// listedSecrets names the references that passed an enforced check.
func listedSecrets(o *observed) []string {
	if !o.request.LimitSecretReferences {
		return nil
	}
	result := make([]string, 0, len(o.secretPlaces))
	for _, place := range slices.Compact(slices.Sorted(slices.Values(o.secretPlaces))) {
		result = append(result, "enforced: allowed "+place)
	}

	return result
}

func names(o *observed) []string {
	where := "account: in the cache"
	if !o.cached {
		where = "account: only live"
	}
	spec := o.request.Pod.Spec
	said := map[bool]string{true: "said", false: "absent"}
	label := fmt.Sprintf("name: %s, alias %s", said[spec.ServiceAccountName != ""], said[spec.DeprecatedServiceAccount != ""])
	if spec.ServiceAccountName != "" && spec.DeprecatedServiceAccount != "" && spec.ServiceAccountName != spec.DeprecatedServiceAccount {
		label = "name: other than the alias"
	}

	return []string{where, fmt.Sprintf("%s, patched %v", label, o.request.Patched)}
}

func automount(o *observed) []string {
	say := func(b *bool) string {
		if b == nil {
			return "nothing"
		}

		return fmt.Sprint(*b)
	}

	return []string{fmt.Sprintf("automount: pod says %s, account %s", say(o.request.Pod.Spec.AutomountServiceAccountToken), say(o.account.AutomountServiceAccountToken))}
}

// token labels whether the pod got the token volume, and values that are close to those that
// the rules check.
func token(o *observed) []string {
	before, after := o.given.Spec, o.admitted.Pod.Spec
	mounted := ""
	var result []string
	for _, pair := range [][2][]corev1.Container{{before.InitContainers, after.InitContainers}, {before.Containers, after.Containers}} {
		for i := range pair[0] {
			old, all := pair[0][i].VolumeMounts, pair[1][i].VolumeMounts
			if len(all) == len(old) {
				continue
			}
			mounted = all[len(old)].Name
			for _, mount := range old {
				result = append(result, fmt.Sprintf("token: mounted beside %q", mount.MountPath))
			}
		}
	}
	added := len(after.Volumes) > len(before.Volumes)
	for _, volume := range before.Volumes {
		if added {
			result = append(result, fmt.Sprintf("token: volume beside %q", volume.Name))
		}
	}
	switch {
	case mounted == "":
		return append(result, "token: no mount")
	case added:
		return append(result, "token: volume added")
	default:
		return append(result, fmt.Sprintf("token: volume %q reused", mounted))
	}
}

func pullSecrets(o *observed) []string {
	return []string{fmt.Sprintf("imagePullSecrets: of the pod %v, of the account %v",
		len(o.given.Spec.ImagePullSecrets) > 0, len(o.account.ImagePullSecrets) > 0)}
}
