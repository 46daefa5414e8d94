package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/servingcert/pki"
	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
)

// startWebhook installs and starts sakeeper webhook, and waits until it is ready.
func startWebhook(t *testing.T, p controlPlane, more ...string) (controlplane.Webhook, *controlplane.Sakeeper) {
	t.Helper()
	w, err := controlplane.NewWebhook()
	must(t, err)
	must(t, p.InstallWebhook(t.Context(), w))
	return w, startReadySakeeper(t, p.webhookArgs(t, w, more...))
}

// webhookArgs are the arguments of sakeeper webhook for this control plane, followed by more.
// It stops without a delay, because there is no proxy that must learn of it.
func (p controlPlane) webhookArgs(t *testing.T, w controlplane.Webhook, more ...string) []string {
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

// expectAdmitted waits until the API server creates a pod, and returns it.
func expectAdmitted(t *testing.T, client kubernetes.Interface, namespace, name string) *corev1.Pod {
	t.Helper()
	var created *corev1.Pod
	eventually(t, "pod "+namespace+"/"+name, func(ctx context.Context) (err error) {
		created, err = client.CoreV1().Pods(namespace).Create(ctx, pod(name), metav1.CreateOptions{})
		return err
	})
	return created
}

// expectToken checks that every container mounts the token volume.
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
	p := newControlPlane(t)
	startReadySakeeper(t, p.sakeeperArgs(t))
	startWebhook(t, p)
	expectAdmitted(t, p.client, newNamespace(t, p.client), "first") // the API server knows the certificate
	late := 0
	for n := 1; n <= 3+late; n++ {
		namespace := fmt.Sprint("n-", n)
		_, err := p.client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{})
		must(t, err)
		asked := time.Now()
		created, err := p.client.CoreV1().Pods(namespace).Create(t.Context(), pod("pod"), metav1.CreateOptions{})
		// The webhook waits for two seconds, in which a very busy machine may not create the account.
		if waited := time.Since(asked); err != nil && waited >= 2*time.Second && late < 10 {
			t.Logf("after %v: %v", waited, err)
			late++
			continue
		}
		must(t, err)
		expectToken(t, created)
	}
	missing := pod("missing")
	missing.Spec.ServiceAccountName = "missing"
	_, err := p.client.CoreV1().Pods("n-1").Create(t.Context(), missing, metav1.CreateOptions{})
	if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), `error looking up service account n-1/missing: serviceaccount "missing" not found`) {
		t.Errorf("a pod of an account that does not exist: %v", err)
	}
}

// TestTheWebhookRecoversWithoutAHand has subtests that build on each other.
func TestTheWebhookRecoversWithoutAHand(t *testing.T) {
	p := newControlPlane(t)
	startReadySakeeper(t, p.sakeeperArgs(t))
	namespace := newNamespace(t, p.client)
	w, s := startWebhook(t, p)
	expectToken(t, expectAdmitted(t, p.client, namespace, "first"))

	expectBundlesComeBack(t, p)
	expectToken(t, expectAdmitted(t, p.client, namespace, "after-wiping"))

	// The API server restarts.
	must(t, p.KillServer())
	must(t, p.StartServer(t.Context()))
	expectToken(t, expectAdmitted(t, p.client, namespace, "after-restart"))

	expectLossIsTold(t, p, s)
	expectToken(t, mustCreatePod(t, p.client, namespace, pod("after-loss")))
	must(t, p.InstallWebhook(t.Context(), w))
	expectRenewed(t, p, pki.Pair{}) // any certificate is a new one
	expectToken(t, expectAdmitted(t, p.client, namespace, "after-renewal"))
	expectSecretOutlastsApply(t, p, w)
	expectToken(t, mustCreatePod(t, p.client, namespace, pod("after-applying")))

	must(t, s.Stop())
	expectOnlyOurOwnUnchecked(t, p, namespace)
	startReadySakeeper(t, p.webhookArgs(t, w))
	startReadySakeeper(t, p.webhookArgs(t, mustElsewhere(t))) // a second replica uses the same certificate
	expectToken(t, expectAdmitted(t, p.client, namespace, "after-all"))
}

// wiped removes each caBundle, and returns the configurations.
func wiped(t *testing.T, p controlPlane) [2]string {
	t.Helper()
	patch := []byte(`[{"op":"remove","path":"/webhooks/0/clientConfig/caBundle"}]`)
	api := p.client.AdmissionregistrationV1()
	mutating, err := api.MutatingWebhookConfigurations().Patch(t.Context(), "sakeeper-webhook", types.JSONPatchType, patch, metav1.PatchOptions{})
	must(t, err)
	validating, err := api.ValidatingWebhookConfigurations().Patch(t.Context(), "sakeeper-webhook", types.JSONPatchType, patch, metav1.PatchOptions{})
	must(t, err)
	return [2]string{string(mutating.Webhooks[0].ClientConfig.CABundle), string(validating.Webhooks[0].ClientConfig.CABundle)}
}

func bundles(ctx context.Context, p controlPlane) ([2]string, error) {
	api := p.client.AdmissionregistrationV1()
	mutating, err := api.MutatingWebhookConfigurations().Get(ctx, "sakeeper-webhook", metav1.GetOptions{})
	if err != nil {
		return [2]string{}, err
	}
	validating, err := api.ValidatingWebhookConfigurations().Get(ctx, "sakeeper-webhook", metav1.GetOptions{})
	if err != nil {
		return [2]string{}, err
	}
	return [2]string{string(mutating.Webhooks[0].ClientConfig.CABundle), string(validating.Webhooks[0].ClientConfig.CABundle)}, nil
}

// expectBundlesComeBack removes each caBundle, and waits until it is set again.
func expectBundlesComeBack(t *testing.T, p controlPlane) {
	t.Helper()
	before, err := bundles(t.Context(), p)
	must(t, err)
	if after := wiped(t, p); after != [2]string{} || before[0] == "" || before[1] == "" {
		t.Fatalf("before the bundles were wiped: %.40q, and after it: %.40q", before, after)
	}
	eventually(t, "the bundles", func(ctx context.Context) error {
		now, err := bundles(ctx, p)
		if err == nil && now != before {
			err = fmt.Errorf("they are %.40q, not %.40q", now, before)
		}
		return err
	})
}

// expectLossIsTold deletes the Secret. The webhook keeps serving its certificate, and reports
// what to do.
func expectLossIsTold(t *testing.T, p controlPlane, s *controlplane.Sakeeper) {
	t.Helper()
	must(t, p.client.CoreV1().Secrets(controlplane.Namespace).Delete(t.Context(), certificateSecret, metav1.DeleteOptions{}))
	const advice = "there is no secret " + controlplane.Namespace + "/" + certificateSecret + ": apply the manifests of the webhook again"
	eventually(t, "a word in the log", func(context.Context) error { return contains(s.Logs(), advice) })
	expectWebhookEvent(t, p, api.ReasonSecretMissing, advice)
	if code, text, err := s.Get(t.Context(), "/readyz"); err != nil || code != http.StatusOK {
		t.Errorf("ready: %d %s, error %v", code, text, err)
	}
	// A replica that starts now has no certificate.
	other := startSakeeper(t, p.webhookArgs(t, mustElsewhere(t)))
	eventually(t, "a word of what is missing", func(ctx context.Context) error {
		code, text, err := other.Get(ctx, "/readyz")
		if err == nil && code != http.StatusServiceUnavailable {
			err = fmt.Errorf("ready: %d", code)
		}
		return errors.Join(err, contains(text, advice))
	})
	must(t, other.Stop())
}

func expectWebhookEvent(t *testing.T, p controlPlane, reason, text string) {
	t.Helper()
	eventually(t, "an event "+reason, func(ctx context.Context) error {
		events, err := p.client.CoreV1().Events(controlplane.Namespace).List(ctx, metav1.ListOptions{FieldSelector: "reason=" + reason})
		if err != nil {
			return err
		}
		for _, e := range events.Items {
			if e.Source.Component == "sakeeper-webhook" && strings.Contains(e.Message, text) {
				return nil
			}
		}
		return fmt.Errorf("not among %d", len(events.Items))
	})
}

// expectSecretOutlastsApply checks that applying the manifests again keeps the Secret's data.
func expectSecretOutlastsApply(t *testing.T, p controlPlane, w controlplane.Webhook) {
	t.Helper()
	secrets := p.client.CoreV1().Secrets(controlplane.Namespace)
	before, err := secrets.Get(t.Context(), certificateSecret, metav1.GetOptions{})
	must(t, err)
	must(t, p.InstallWebhook(t.Context(), w))
	after, err := secrets.Get(t.Context(), certificateSecret, metav1.GetOptions{})
	must(t, err)
	if len(before.Data) == 0 || after.UID != before.UID || !maps.EqualFunc(before.Data, after.Data, bytes.Equal) {
		t.Errorf("before, the Secret had %d entries, and now %d, or others", len(before.Data), len(after.Data))
	}
}

// expectOnlyOurOwnUnchecked checks that without a replica only pods of sakeeper are created.
func expectOnlyOurOwnUnchecked(t *testing.T, p controlPlane, elsewhere string) {
	t.Helper()
	for name, tc := range map[string]struct {
		namespace, account string
		annotations        map[string]string
		admitted           bool
	}{
		"anybody":                {namespace: elsewhere},
		"own":                    {namespace: controlplane.Namespace, account: controlplane.WebhookAccount, admitted: true},
		"own-and-a-mirror-pod":   {namespace: controlplane.Namespace, account: controlplane.WebhookAccount, annotations: map[string]string{corev1.MirrorPodAnnotationKey: "hash"}},
		"own-with-annotations":   {namespace: controlplane.Namespace, account: controlplane.WebhookAccount, annotations: map[string]string{"a": "b"}, admitted: true},
		"own-elsewhere":          {namespace: elsewhere, account: controlplane.WebhookAccount},
		"the-controllers":        {namespace: controlplane.Namespace, account: controlplane.Account, admitted: true},
		"another-beside":         {namespace: controlplane.Namespace, account: "default"},
		"another-without-a-name": {namespace: controlplane.Namespace},
	} {
		wanted := pod(name)
		wanted.Spec.ServiceAccountName = tc.account
		wanted.Annotations = tc.annotations
		wanted.Labels = map[string]string{"app": controlplane.WebhookAccount} // any user can set it
		_, err := p.client.CoreV1().Pods(tc.namespace).Create(t.Context(), wanted, metav1.CreateOptions{})
		switch {
		case tc.admitted && err != nil:
			t.Errorf("pod %s: %v", name, err)
		case !tc.admitted && (!apierrors.IsInternalError(err) || !strings.Contains(err.Error(), "failed calling webhook")):
			t.Errorf("pod %s without a webhook: %v", name, err)
		}
	}
}

// TestBothConfigurationsLetTheSamePodsPass compares the match conditions, because above, while
// no replica answers, only those of the mutating configuration have an effect.
func TestBothConfigurationsLetTheSamePodsPass(t *testing.T) {
	manifest, err := os.ReadFile("../manifests/base/webhook/configurations.yaml")
	must(t, err)
	var expressions []string
	for _, part := range strings.Split(string(manifest), "- name: not-our-own-pods")[1:] {
		expression, _, _ := strings.Cut(part, "admissionReviewVersions")
		expressions = append(expressions, expression)
	}
	if len(expressions) != 2 || expressions[0] != expressions[1] || !strings.Contains(expressions[0], corev1.MirrorPodAnnotationKey) {
		t.Errorf("they differ: %q", expressions)
	}
}

// mustElsewhere returns another address on this machine.
func mustElsewhere(t *testing.T) controlplane.Webhook {
	t.Helper()
	w, err := controlplane.NewWebhook()
	must(t, err)
	return w
}

// TestBesideThePluginTheWebhookChangesNothing reads the audit annotations about each webhook
// call.
func TestBesideThePluginTheWebhookChangesNothing(t *testing.T) {
	p := newControlPlaneWith(t, controlplane.Options{PodAdmission: true})
	newLikeness(t, p)
	startWebhook(t, p)
	expectAdmitted(t, p.client, likenessNamespace, "first") // the API server knows the certificate
	mark := mustMark(t, p.ControlPlane)
	for name, change := range likePods() {
		wanted := pod("")
		wanted.GenerateName = "pod-"
		change(wanted)
		if _, err := p.client.CoreV1().Pods(likenessNamespace).Create(t.Context(), wanted, metav1.CreateOptions{}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if calls := countCalls(t, p, mark, func(key, note string) {
		if strings.HasPrefix(key, "patch.") || !strings.Contains(note, `"mutated":false`) {
			t.Errorf("%s: %s", key, note)
		}
	}); calls != len(likePods()) {
		t.Errorf("the webhook was called %d times for %d pods", calls, len(likePods()))
	}
}

// countCalls counts the calls of mutating webhooks for pods since mark, and logs the audit
// annotations of each call and patch.
func countCalls(t *testing.T, p controlPlane, mark controlplane.Mark, show func(key, note string)) int {
	t.Helper()
	found, err := p.Audit.Since(t.Context(), mark, func(r controlplane.Request) bool { return r.Verb == "create" && r.Object.Resource == "pods" })
	must(t, err)
	calls := 0
	for _, r := range found {
		for key, note := range r.Annotations {
			isCall := strings.HasPrefix(key, "mutation.webhook.admission.k8s.io/")
			if isCall {
				calls++
			}
			if isCall || strings.HasPrefix(key, "patch.webhook.admission.k8s.io/") {
				show(key, note)
			}
		}
	}
	return calls
}
