package e2e

import (
	"context"
	"errors"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
)

// startWebhook installs and runs a ready sakeeper webhook.
func startWebhook(t *testing.T, p plane, more ...string) (controlplane.Webhook, *controlplane.Sakeeper) {
	t.Helper()
	w, err := controlplane.NewWebhook()
	must(t, err)
	must(t, p.InstallWebhook(t.Context(), w))
	return w, startReadySakeeper(t, p.webhookArgs(t, w, more...))
}

// webhookArgs are the arguments of sakeeper webhook for this plane, with more after
// them. It goes at once when it is told to: a test's API server sees nothing of that.
func (p plane) webhookArgs(t *testing.T, w controlplane.Webhook, more ...string) []string {
	t.Helper()
	args, err := p.WebhookArgs(w)
	must(t, err)
	return append(append(args, "--shutdown-delay-duration=0s"), more...)
}

func pod(name string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PodSpec{
			InitContainers: []corev1.Container{{Name: "first", Image: "i"}},
			Containers:     []corev1.Container{{Name: "main", Image: "i"}},
		},
	}
}

func mustCreatePod(t *testing.T, client kubernetes.Interface, namespace string, pod *corev1.Pod) *corev1.Pod {
	t.Helper()
	created, err := client.CoreV1().Pods(namespace).Create(t.Context(), pod, metav1.CreateOptions{})
	must(t, err)
	return created
}

// expectAdmitted waits until the API server takes a pod, and returns it.
func expectAdmitted(t *testing.T, client kubernetes.Interface, namespace, name string) *corev1.Pod {
	t.Helper()
	var created *corev1.Pod
	eventually(t, "pod "+namespace+"/"+name, func(ctx context.Context) (err error) {
		created, err = client.CoreV1().Pods(namespace).Create(ctx, pod(name), metav1.CreateOptions{})
		return err
	})
	return created
}

// expectToken checks that every container has the token volume.
func expectToken(t *testing.T, pod *corev1.Pod) {
	t.Helper()
	if pod.Spec.ServiceAccountName != "default" {
		t.Errorf("the pod's account is %q", pod.Spec.ServiceAccountName)
	}
	for _, c := range append(pod.Spec.InitContainers, pod.Spec.Containers...) {
		mounted := ""
		for _, mount := range c.VolumeMounts {
			if mount.MountPath == "/var/run/secrets/kubernetes.io/serviceaccount" && mount.ReadOnly {
				mounted = mount.Name
			}
		}
		if !strings.HasPrefix(mounted, "kube-api-access-") || len(pod.Spec.Volumes) != 1 || pod.Spec.Volumes[0].Name != mounted {
			t.Errorf("container %s mounts %q of %v", c.Name, mounted, pod.Spec.Volumes)
		}
	}
}

func TestPodsGetAccountAndTokenAlsoRightAfterTheirNamespace(t *testing.T) {
	p := newPlane(t)
	startReadySakeeper(t, p.sakeeperArgs(t))
	startWebhook(t, p)
	for _, namespace := range []string{"one", "two", "three"} {
		_, err := p.client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{})
		must(t, err)
		expectToken(t, mustCreatePod(t, p.client, namespace, pod("pod")))
	}
	missing := pod("missing")
	missing.Spec.ServiceAccountName = "nobody"
	_, err := p.client.CoreV1().Pods("one").Create(t.Context(), missing, metav1.CreateOptions{})
	if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), `error looking up service account one/nobody: serviceaccount "nobody" not found`) {
		t.Errorf("a pod of an account that does not exist: %v", err)
	}
}

func TestTheWebhookRecoversWithoutAHand(t *testing.T) {
	p := newPlane(t)
	startReadySakeeper(t, p.sakeeperArgs(t))
	namespace := newNamespace(t, p.client)
	w, s := startWebhook(t, p)
	expectToken(t, mustCreatePod(t, p.client, namespace, pod("first")))

	// Somebody wipes the bundles.
	for _, kind := range []string{"mutatingwebhookconfiguration", "validatingwebhookconfiguration"} {
		must(t, p.RunKubectl(t.Context(), "patch", kind, "sakeeper-webhook", "--type=json",
			`-p=[{"op":"remove","path":"/webhooks/0/clientConfig/caBundle"}]`))
	}
	expectToken(t, expectAdmitted(t, p.client, namespace, "after-wiping"))

	// The API server restarts.
	must(t, p.KillServer())
	must(t, p.StartServer(t.Context()))
	expectToken(t, expectAdmitted(t, p.client, namespace, "after-restart"))

	// Its certificates are lost.
	must(t, p.client.CoreV1().Secrets(controlplane.Namespace).Delete(t.Context(), "sakeeper-webhook-certificates", metav1.DeleteOptions{}))
	eventually(t, "another Secret", func(ctx context.Context) error {
		_, err := p.client.CoreV1().Secrets(controlplane.Namespace).Get(ctx, "sakeeper-webhook-certificates", metav1.GetOptions{})
		return err
	})
	expectToken(t, expectAdmitted(t, p.client, namespace, "after-loss"))

	// There is no replica: nobody gets in unchecked.
	must(t, s.Stop())
	if _, err := p.client.CoreV1().Pods(namespace).Create(t.Context(), pod("unchecked"), metav1.CreateOptions{}); !apierrors.IsInternalError(err) {
		t.Errorf("a pod without a webhook: %v", err)
	}
	own := pod("own")
	own.Spec.ServiceAccountName = controlplane.WebhookAccount
	if _, err := p.client.CoreV1().Pods(controlplane.Namespace).Create(t.Context(), own, metav1.CreateOptions{}); err != nil {
		t.Errorf("the webhook's own pod: %v", err)
	}
	own.Name, own.Namespace = "own-elsewhere", namespace
	if _, err := p.client.CoreV1().Pods(namespace).Create(t.Context(), own, metav1.CreateOptions{}); err == nil {
		t.Error("a pod that says to be the webhook's, in another namespace, was let in")
	}
	startReadySakeeper(t, p.webhookArgs(t, w))
	startReadySakeeper(t, p.webhookArgs(t, mustElsewhere(t))) // a second replica agrees
	expectToken(t, expectAdmitted(t, p.client, namespace, "after-all"))
}

// mustElsewhere is another address on this machine.
func mustElsewhere(t *testing.T) controlplane.Webhook {
	t.Helper()
	w, err := controlplane.NewWebhook()
	must(t, err)
	return w
}

// TestBesideThePluginTheWebhookChangesNothing reads what the API server notes of
// each webhook call in its audit log.
func TestBesideThePluginTheWebhookChangesNothing(t *testing.T) {
	p := newPlaneWith(t, controlplane.Options{PodAdmission: true})
	startReadySakeeper(t, p.sakeeperArgs(t))
	namespace := newNamespace(t, p.client)
	startWebhook(t, p)
	mark := mustMark(t, p.ControlPlane)
	for _, create := range []func(*corev1.Pod){
		func(*corev1.Pod) {},
		func(p *corev1.Pod) { p.Spec.AutomountServiceAccountToken = new(bool) },
		func(p *corev1.Pod) {
			p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "mine", MountPath: "/var/run/secrets/kubernetes.io/serviceaccount"}}
			p.Spec.Volumes = []corev1.Volume{{Name: "mine"}}
		},
		func(p *corev1.Pod) { p.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "mine"}} },
	} {
		wanted := pod("")
		wanted.GenerateName = "pod-"
		create(wanted)
		mustCreatePod(t, p.client, namespace, wanted)
	}
	found, err := p.Audit.Since(t.Context(), mark, func(r controlplane.Request) bool { return r.Verb == "create" && r.Object.Resource == "pods" })
	must(t, err)
	calls := 0
	for _, r := range found {
		for key, value := range r.Annotations {
			if strings.HasPrefix(key, "mutation.webhook.admission.k8s.io/") {
				calls++
				if !strings.Contains(value, `"mutated":false`) {
					t.Errorf("%s: %s", key, value)
				}
			}
			if strings.HasPrefix(key, "patch.webhook.admission.k8s.io/") {
				t.Errorf("a patch: %s", value)
			}
		}
	}
	if calls != 4 {
		t.Error(errors.New("the webhook was not called for each pod"), calls)
	}
}
