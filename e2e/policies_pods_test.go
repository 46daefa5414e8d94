package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// newLimitedPlane starts a control plane with the in-tree plugin, and with the policy that the command
// prints for all accounts, which the plugin does not limit. It returns a namespace with the accounts
// default and ro.bot, which list the Secret listed.
func newLimitedPlane(t *testing.T) (p controlPlane, namespace string) {
	t.Helper()
	p = newInTreePlane(t)
	namespace = newTeam(t, p, "team")
	mustCreateAccount(t, p.client, namespace, "ro.bot", "listed")
	_, err := p.client.CoreV1().ServiceAccounts(namespace).Patch(t.Context(), "default", types.MergePatchType, []byte(`{"secrets":[{"name":"listed"}]}`), metav1.PatchOptions{})
	must(t, err)
	p.shell(t, "..", "'"+shared.binary+"' policies secret-references --limit-secret-references | kubectl apply -f -")
	expectLimitedByPolicy(t, p, namespace)
	return p, namespace
}

// TestEphemeralContainersAreLimitedByAPolicy: in a pod that runs, one with an unlisted Secret is refused, and one
// with a listed Secret is added.
func TestEphemeralContainersAreLimitedByAPolicy(t *testing.T) {
	p, namespace := newLimitedPlane(t)
	pods := p.client.CoreV1().Pods(namespace)
	mustCreatePod(t, p.client, namespace, pod("running"))
	add := func(name string, set func(*corev1.EphemeralContainerCommon)) error {
		running, err := pods.Get(t.Context(), "running", metav1.GetOptions{})
		must(t, err)
		c := corev1.EphemeralContainerCommon{Name: name, Image: "i", ImagePullPolicy: corev1.PullAlways, TerminationMessagePolicy: corev1.TerminationMessageReadFile}
		set(&c)
		running.Spec.EphemeralContainers = append(running.Spec.EphemeralContainers, corev1.EphemeralContainer{EphemeralContainerCommon: c})
		_, err = pods.UpdateEphemeralContainers(t.Context(), "running", running, metav1.UpdateOptions{})
		return err
	}
	const because = `referencing secret.secretName="other" is not allowed because service account default does not reference that secret`
	for name, tc := range map[string]struct {
		set  func(*corev1.EphemeralContainerCommon)
		want string // what the policy says; empty: it is added
	}{
		"plain": {set: func(*corev1.EphemeralContainerCommon) {}},
		"listed": {set: func(c *corev1.EphemeralContainerCommon) {
			c.Env, c.EnvFrom = secretEnv("listed"), secretEnvFrom("listed")
		}},
		"by-env":      {set: func(c *corev1.EphemeralContainerCommon) { c.Env = secretEnv("other") }, want: "ephemeral container by-env with envVar VAR " + because},
		"by-env-from": {set: func(c *corev1.EphemeralContainerCommon) { c.EnvFrom = secretEnvFrom("other") }, want: "ephemeral container by-env-from with envFrom " + because},
	} {
		if err := add(name, tc.set); denied(err) != tc.want || err == nil != (tc.want == "") || err != nil && !apierrors.IsForbidden(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	running, err := pods.Get(t.Context(), "running", metav1.GetOptions{})
	must(t, err)
	if n := len(running.Spec.EphemeralContainers); n != 2 {
		t.Errorf("%d ephemeral containers were added", n)
	}
}

// TestUnusualPodsUnderAPolicy: a policy decides on them as on others, or the API server or the in-tree plugin
// refuses them; none is refused because the policy could not be evaluated.
func TestUnusualPodsUnderAPolicy(t *testing.T) {
	p, namespace := newLimitedPlane(t)
	eventually(t, "the account with a dot", func(ctx context.Context) error {
		_, err := post(ctx, p, namespace, `{"metadata": {"name": "p"}, "spec": {"serviceAccountName": "ro.bot", "containers": [{"name": "c", "image": "i"}], "volumes": [{"name": "v", "projected": {"sources": [{"secret": {"name": "other"}}]}}]}}`)
		if err == nil {
			return errors.New("its pod is admitted")
		}
		return nil
	})
	const (
		containers = `"containers": [{"name": "c", "image": "i"}]`
		unlisted   = `"volumes": [{"name": "v", "projected": {"sources": [{"secret": {"name": "other"}}]}}]`
		refused    = `spec.volumes[0].projected.sources[0].secret.name="other" is not allowed because service account %s does not reference that secret`
	)
	mirror := `"metadata": {"name": "p", "annotations": {"` + corev1.MirrorPodAnnotationKey + `": "x"}}`
	for name, tc := range map[string]struct {
		in   string
		code int
		want string // the end of the message
	}{
		"an account with a dot":  {in: `{"metadata": {"name": "p"}, "spec": {"serviceAccountName": "ro.bot", ` + containers + `, ` + unlisted + `}}`, code: 403, want: fmt.Sprintf(refused, "ro.bot")},
		"the deprecated field":   {in: `{"metadata": {"name": "p"}, "spec": {"serviceAccount": "ro.bot", ` + containers + `, ` + unlisted + `}}`, code: 403, want: fmt.Sprintf(refused, "ro.bot")},
		"no account":             {in: `{"metadata": {"name": "p"}, "spec": {` + containers + `, ` + unlisted + `}}`, code: 403, want: fmt.Sprintf(refused, "default")},
		"a name to be generated": {in: `{"metadata": {"generateName": "p-"}, "spec": {` + containers + `}}`, code: 201},
		"no metadata":            {in: `{"spec": {` + containers + `}}`, code: 422, want: `metadata.name: Required value: name or generateName is required`},
		"no metadata, unlisted":  {in: `{"spec": {` + containers + `, ` + unlisted + `}}`, code: 422, want: `metadata.name: Required value: name or generateName is required`},
		"no containers":          {in: `{"metadata": {"name": "p"}, "spec": {"serviceAccountName": "ro.bot"}}`, code: 422, want: `spec.containers: Required value`},
		"no spec":                {in: `{"metadata": {"name": "p"}}`, code: 422, want: `spec.containers: Required value`},
		"a mirror pod":           {in: `{` + mirror + `, "spec": {"nodeName": "n", ` + containers + `}}`, code: 201},
		"a mirror pod, unlisted": {in: `{` + mirror + `, "spec": {"nodeName": "n", ` + containers + `, ` + unlisted + `}}`, code: 403, want: `a mirror pod may not reference secrets`},
		"a mirror pod, account":  {in: `{` + mirror + `, "spec": {"nodeName": "n", "serviceAccountName": "ro.bot", ` + containers + `}}`, code: 403, want: `a mirror pod may not reference service accounts`},
	} {
		t.Run(name, func(t *testing.T) {
			code, err := post(t.Context(), p, namespace, tc.in)
			if code != tc.code || err == nil != (tc.code == http.StatusCreated) || err != nil && !strings.HasSuffix(err.Error(), tc.want) {
				t.Errorf("got %d, %v; want %d, %s", code, err, tc.code, tc.want)
			}
		})
	}
}

// post sends a pod as it stands, to be admitted and not created.
func post(ctx context.Context, p controlPlane, namespace, pod string) (code int, err error) {
	err = p.client.CoreV1().RESTClient().Post().Namespace(namespace).Resource("pods").Param("dryRun", metav1.DryRunAll).
		SetHeader("Content-Type", "application/json").Body([]byte(pod)).Do(ctx).StatusCode(&code).Error()
	return code, err
}
