package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
)

// newPolicyPlane starts a control plane with the in-tree plugin, the controllers, and the components of
// manifests/components/policies of those names, and waits until the types in them are checked.
func newPolicyPlane(t *testing.T, names ...string) controlPlane {
	t.Helper()
	p := newControlPlaneWith(t, controlplane.Options{PodAdmission: true})
	startReadySakeeper(t, p.sakeeperArgs(t))
	stop, err := p.StartControllerManager(controlplane.ControllerManager{Controllers: []string{"validatingadmissionpolicy-status-controller"}})
	must(t, err)
	t.Cleanup(func() { must(t, stop()) })
	for _, name := range names {
		must(t, p.Install(t.Context(), "policies/"+name))
	}
	expectTypesChecked(t, p)
	return p
}

// expectTypesChecked waits until kube-controller-manager has checked the types in all policies, and expects no warning.
func expectTypesChecked(t *testing.T, p controlPlane) {
	t.Helper()
	eventually(t, "type checking", func(ctx context.Context) error {
		policies, err := p.client.AdmissionregistrationV1().ValidatingAdmissionPolicies().List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		for _, policy := range policies.Items {
			if policy.Status.TypeChecking == nil || policy.Status.ObservedGeneration != policy.Generation {
				return fmt.Errorf("%s is not checked", policy.Name)
			}
			for _, warning := range policy.Status.TypeChecking.ExpressionWarnings {
				t.Errorf("%s: %s: %s", policy.Name, warning.FieldRef, warning.Warning)
			}
		}
		return nil
	})
}

// denied returns the message of a policy; empty if err is none of a policy.
func denied(err error) string {
	status := apierrors.APIStatus(nil)
	if !errors.As(err, &status) {
		return ""
	}
	_, message, _ := strings.Cut(status.Status().Message, " denied request: ")
	return message
}

// csiPod names a Secret where the in-tree plugin does not look.
func csiPod(name, secret string) *corev1.Pod {
	p := pod(name)
	p.Spec.Volumes = []corev1.Volume{{Name: "disk", VolumeSource: corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{
		Driver: "driver.example.com", NodePublishSecretRef: &corev1.LocalObjectReference{Name: secret},
	}}}}
	return p
}

func TestSecretReferencesAreLimitedByAPolicy(t *testing.T) {
	p := newPolicyPlane(t, "secret-references")
	namespace := newNamespace(t, p.client)
	for _, in := range []string{namespace, metav1.NamespaceSystem} {
		eventually(t, "the account", func(ctx context.Context) error {
			account, err := p.client.CoreV1().ServiceAccounts(in).Get(ctx, "default", metav1.GetOptions{})
			if err != nil {
				return err
			}
			account.Annotations = map[string]string{"kubernetes.io/enforce-mountable-secrets": "true"}
			account.Secrets = []corev1.ObjectReference{{Name: "listed"}}
			_, err = p.client.CoreV1().ServiceAccounts(in).Update(ctx, account, metav1.UpdateOptions{})
			return err
		})
	}
	eventually(t, "a refusal", func(ctx context.Context) error {
		_, err := p.client.CoreV1().Pods(namespace).Create(ctx, csiPod("refused", "other"), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		const want = `spec.volumes[0].csi.nodePublishSecretRef.name="other" is not allowed because service account default does not reference that secret`
		if err == nil {
			return errors.New("it is admitted")
		}
		if !apierrors.IsForbidden(err) || denied(err) != want {
			return err
		}
		return nil
	})
	mustCreatePod(t, p.client, namespace, csiPod("allowed", "listed"))
	mustCreatePod(t, p.client, metav1.NamespaceSystem, csiPod("excluded", "other"))

	running := mustCreatePod(t, p.client, namespace, pod("running"))
	for secret, want := range map[string]string{
		"other":  `ephemeral container debug with envFrom referencing secret.secretName="other" is not allowed because service account default does not reference that secret`,
		"listed": "",
	} {
		running.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{
			Name: "debug", Image: "i", TerminationMessagePolicy: corev1.TerminationMessageReadFile, ImagePullPolicy: corev1.PullAlways,
			EnvFrom: []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: secret}}}},
		}}}
		_, err := p.client.CoreV1().Pods(namespace).UpdateEphemeralContainers(t.Context(), running.Name, running, metav1.UpdateOptions{DryRun: []string{metav1.DryRunAll}})
		// The in-tree plugin may be the first to refuse it.
		if want == "" && err != nil || want != "" && (err == nil || !strings.HasSuffix(err.Error(), want)) {
			t.Errorf("an ephemeral container with the Secret %s: %v", secret, err)
		}
	}
}
