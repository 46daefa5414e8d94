package e2e

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
)

// expectRetryLater checks a refusal that says what is missing for a token.
func expectRetryLater(t *testing.T, err error, missing string) {
	t.Helper()
	if !apierrors.IsServerTimeout(err) {
		t.Fatalf("refused with %q: %v", apierrors.ReasonForError(err), err)
	}
	if seconds, ok := apierrors.SuggestsClientDelay(err); !ok || seconds != 1 {
		t.Errorf("retry after %d s (said: %t): %v", seconds, ok, err)
	}
	if err := contains(err.Error(), `No API token found for service account "robot": `+missing); err != nil {
		t.Error(err)
	}
}

func robotPod(name string) *corev1.Pod {
	p := pod(name)
	p.Spec.ServiceAccountName = "robot"
	return p
}

// expectSecretMounted checks that the Secret is the only volume, and is mounted in every
// container.
func expectSecretMounted(t *testing.T, pod *corev1.Pod, secret string) {
	t.Helper()
	mode := corev1.SecretVolumeSourceDefaultMode
	want := []corev1.Volume{{Name: secret, VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: secret, DefaultMode: &mode}}}}
	if diff := cmp.Diff(want, pod.Spec.Volumes); diff != "" {
		t.Errorf("volumes of pod %s (-want +got):\n%s", pod.Name, diff)
	}
	for _, c := range append(pod.Spec.InitContainers, pod.Spec.Containers...) {
		want := []corev1.VolumeMount{{Name: secret, ReadOnly: true, MountPath: "/var/run/secrets/kubernetes.io/serviceaccount"}}
		if diff := cmp.Diff(want, c.VolumeMounts); diff != "" {
			t.Errorf("mounts of container %s of pod %s (-want +got):\n%s", c.Name, pod.Name, diff)
		}
	}
}

// TestTokensFromSecrets has subtests that build on each other.
func TestTokensFromSecrets(t *testing.T) {
	p := newControlPlane(t)
	startReadySakeeper(t, p.sakeeperArgs(t))
	namespace := newNamespace(t, p.client)
	w, s := startWebhook(t, p, "--token-volume-source=secret", "-v=10")
	account := mustCreateAccount(t, p.client, namespace, "robot", "robot-token", "second-token")
	create := func(ctx context.Context, pod *corev1.Pod) (*corev1.Pod, error) {
		return p.client.CoreV1().Pods(namespace).Create(ctx, pod, metav1.CreateOptions{})
	}

	eventually(t, "a pod that needs no token", func(ctx context.Context) error { // the API server knows the certificate
		first := pod("first")
		first.Spec.AutomountServiceAccountToken = new(bool)
		_, err := create(ctx, first)
		return err
	})

	// Without the rights of the component, the message has the reason.
	_, err := create(t.Context(), robotPod("no-rights"))
	if !apierrors.IsForbidden(err) || contains(err.Error(), "error looking up service account token for "+namespace+"/robot: secrets \"robot-token\" is forbidden") != nil {
		t.Errorf("a pod whose token the webhook may not read: %v", err)
	}
	w.TokensFromSecrets = true
	must(t, p.InstallWebhook(t.Context(), w))

	// The account lists Secrets that do not exist, and then one without a token.
	eventually(t, "the webhook's rights", func(ctx context.Context) error {
		if _, err = create(ctx, robotPod("early")); !apierrors.IsForbidden(err) {
			return nil
		}
		return err
	})
	expectRetryLater(t, err, "it lists no token Secret that exists")
	mustCreateSecret(t, p.client, namespace, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "robot-token"}, Data: map[string][]byte{"token": []byte("not one")}})
	_, err = create(t.Context(), robotPod("early"))
	expectRetryLater(t, err, "it lists no token Secret that exists")

	// A retry is allowed once the token controller has filled one.
	mustCreateSecret(t, p.client, namespace, tokenSecret("second-token", "robot"))
	var admitted *corev1.Pod
	eventually(t, "the pod", func(ctx context.Context) (err error) {
		admitted, err = create(ctx, robotPod("early"))
		if err != nil && !apierrors.IsServerTimeout(err) {
			t.Errorf("while the token is made: %v", err)
		}
		return err
	})
	expectSecretMounted(t, admitted, "second-token")
	expectUser(t, p.ControlPlane, expectFilled(t, p.client, namespace, "second-token", account, p.Admin.CAData), "system:serviceaccount:"+namespace+":robot")

	// A pod without a token volume needs none.
	without := robotPod("without")
	without.Spec.AutomountServiceAccountToken = new(bool)
	if created := mustCreatePod(t, p.client, namespace, without); len(created.Spec.Volumes) > 0 {
		t.Errorf("a pod without a token has volumes: %v", created.Spec.Volumes)
	}
	if err := errors.Join(checkReads(t, p, namespace), contains(s.Logs(), "/api/v1/namespaces/"+namespace+"/secrets/second-token")); err != nil {
		t.Error(err)
	}
}

// checkReads checks which Secrets of a namespace the webhook has read.
func checkReads(t *testing.T, p controlPlane, namespace string) error {
	t.Helper()
	reads, err := p.Audit.Since(t.Context(), 0, func(r controlplane.Request) bool {
		return r.User.Username == webhookUser && r.Object.Namespace == namespace && r.Object.Resource == "secrets"
	})
	if err == nil && len(reads) == 0 {
		return errors.New("the audit log has no read of a Secret")
	}
	for _, r := range reads {
		if name := r.Object.Name; r.Verb != "get" || (name != "robot-token" && name != "second-token") {
			err = errors.Join(err, fmt.Errorf("the webhook asked for %s %s", r.Verb, r.URI))
		}
	}
	return err
}
