package e2e

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/rand"

	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
)

const likenessNamespace = "likeness"

// twins are two control planes with the same accounts: one with the in-tree plugin, one with
// the webhook instead.
type twins struct {
	plugin, webhook controlPlane
	address         controlplane.Webhook
	process         *controlplane.Sakeeper
}

func newTwins(t *testing.T) *twins {
	t.Helper()
	pair := &twins{plugin: newControlPlaneWith(t, controlplane.Options{PodAdmission: true}), webhook: newControlPlane(t)}
	newLikeness(t, pair.plugin)
	newLikeness(t, pair.webhook)
	pair.address, pair.process = startWebhook(t, pair.webhook)
	expectAdmitted(t, pair.webhook.client, likenessNamespace, "first")
	return pair
}

// newLikeness creates the namespace and the accounts of likePods.
func newLikeness(t *testing.T, p controlPlane) {
	t.Helper()
	newTeam(t, p, likenessNamespace)
	mustCreateAccount(t, p.client, likenessNamespace, "robot")
	for name, change := range map[string]func(*corev1.ServiceAccount){
		"tokenless": func(a *corev1.ServiceAccount) { a.AutomountServiceAccountToken = new(bool) },
		"puller":    func(a *corev1.ServiceAccount) { a.ImagePullSecrets = pullSecrets("registry", "mirror") },
		"limited":   func(a *corev1.ServiceAccount) { a.Annotations["kubernetes.io/enforce-mountable-secrets"] = "true" },
		"unlimited": func(a *corev1.ServiceAccount) { a.Annotations["kubernetes.io/enforce-mountable-secrets"] = "yes" },
	} {
		account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{}}}
		account.Secrets = []corev1.ObjectReference{{Name: "listed"}}
		account.ImagePullSecrets = pullSecrets("registry")
		change(account)
		_, err := p.client.CoreV1().ServiceAccounts(likenessNamespace).Create(t.Context(), account, metav1.CreateOptions{})
		must(t, err)
	}
}

// restart restarts the webhook with other flags.
func (w *twins) restart(t *testing.T, more ...string) {
	t.Helper()
	must(t, w.process.Stop())
	w.process = startReadySakeeper(t, w.webhook.webhookArgs(t, w.address, more...))
	expectAdmitted(t, w.webhook.client, likenessNamespace, "after-restart-"+rand.String(5))
}

func pullSecrets(names ...string) []corev1.LocalObjectReference {
	var all []corev1.LocalObjectReference
	for _, name := range names {
		all = append(all, corev1.LocalObjectReference{Name: name})
	}
	return all
}

// verdict is the result of a request for the client.
type verdict struct {
	Pod    *corev1.Pod
	Code   int32
	Reason metav1.StatusReason
	// Message has not the prefix that the API server adds for webhooks.
	Message string
	// prefixed is true if there was such a prefix.
	prefixed bool
}

func webhookPrefix() *regexp.Regexp {
	return regexp.MustCompile(`^admission webhook "(mutate|validate)\.pods\.sakeeper\.io" denied the request: `)
}

func tokenVolumeName() *regexp.Regexp { return regexp.MustCompile(`kube-api-access-[a-z0-9]{5}\b`) }

// judge returns a verdict without the fields that differ in every creation.
func judge(t *testing.T, pod *corev1.Pod, err error) verdict {
	t.Helper()
	if err == nil {
		for i := range pod.Spec.Volumes {
			normalise(&pod.Spec.Volumes[i].Name)
		}
		for _, containers := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
			for _, c := range containers {
				for i := range c.VolumeMounts {
					normalise(&c.VolumeMounts[i].Name)
				}
			}
		}
		pod.UID, pod.ResourceVersion, pod.CreationTimestamp, pod.ManagedFields = "", "", metav1.Time{}, nil
		return verdict{Pod: pod}
	}
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		t.Fatal(err)
	}
	prefix, message := webhookPrefix(), status.Status().Message
	return verdict{
		Code: status.Status().Code, Reason: status.Status().Reason,
		Message: prefix.ReplaceAllString(message, ""), prefixed: prefix.MatchString(message),
	}
}

func normalise(name *string) {
	*name = tokenVolumeName().ReplaceAllString(*name, "kube-api-access-#####")
}

// expectAlike sends the same request to both; wantCode zero: they allow it.
func (w *twins) expectAlike(t *testing.T, wantCode int32, ask func(context.Context, controlPlane) (*corev1.Pod, error)) {
	t.Helper()
	pod, err := ask(t.Context(), w.plugin)
	want := judge(t, pod, err)
	pod, err = ask(t.Context(), w.webhook)
	got := judge(t, pod, err)
	if diff := cmp.Diff(want, got, cmp.FilterPath(func(p cmp.Path) bool { return p.String() == "prefixed" }, cmp.Ignore())); diff != "" {
		t.Errorf("(-plugin +webhook):\n%s", diff)
	}
	if want.Code != wantCode {
		t.Errorf("the plugin answers %d: %s; want %d", want.Code, want.Message, wantCode)
	}
	if got.prefixed != (wantCode != 0) || want.prefixed {
		t.Errorf("the API server names the webhook: %t; and for the plugin: %t", got.prefixed, want.prefixed)
	}
}

func create(pod *corev1.Pod) func(context.Context, controlPlane) (*corev1.Pod, error) {
	return func(ctx context.Context, p controlPlane) (*corev1.Pod, error) {
		return p.client.CoreV1().Pods(likenessNamespace).Create(ctx, pod, metav1.CreateOptions{})
	}
}

func TestTheWebhookIsLikeThePlugin(t *testing.T) {
	w := newTwins(t)
	t.Run("pods", func(t *testing.T) {
		n := 0
		for name, change := range likePods() {
			wanted := pod(fmt.Sprintf("pod-%d", n))
			change(wanted)
			n++
			t.Run(name, func(t *testing.T) { w.expectAlike(t, 0, create(wanted)) })
		}
	})
	t.Run("refusals", func(t *testing.T) {
		for name, change := range unlikelyPods() {
			wanted := pod("refused")
			wanted.Spec.ServiceAccountName = "limited"
			change(wanted)
			t.Run(name, func(t *testing.T) { w.expectAlike(t, 403, create(wanted)) })
		}
	})
	t.Run("ephemeral containers", func(t *testing.T) { expectAlikeEphemeral(t, w) })
	t.Run("limits for everybody", func(t *testing.T) {
		w.restart(t, "--limit-secret-references")
		expectLimited(t, w)
	})
	t.Run("limits of every kind", func(t *testing.T) {
		w.restart(t, "--secret-reference-scope=all")
		expectLimitedInAllKinds(t, w)
	})
}

func expectAlikeEphemeral(t *testing.T, w *twins) {
	t.Helper()
	debugged := pod("debugged")
	debugged.Spec.ServiceAccountName = "limited"
	w.expectAlike(t, 0, create(debugged))
	n := 0
	for name, tc := range map[string]struct {
		in       corev1.EphemeralContainerCommon
		wantCode int32
	}{
		"env":            {in: corev1.EphemeralContainerCommon{Env: secretEnv("unlisted")}, wantCode: 500},
		"envFrom":        {in: corev1.EphemeralContainerCommon{EnvFrom: secretEnvFrom("unlisted")}, wantCode: 500},
		"what is listed": {in: corev1.EphemeralContainerCommon{Env: secretEnv("listed"), EnvFrom: secretEnvFrom("listed")}},
		"nothing":        {},
	} {
		tc.in.Name, tc.in.Image = fmt.Sprintf("debugger-%d", n), "i"
		n++
		t.Run(name, func(t *testing.T) {
			w.expectAlike(t, tc.wantCode, func(ctx context.Context, p controlPlane) (*corev1.Pod, error) {
				pods := p.client.CoreV1().Pods(likenessNamespace)
				found, err := pods.Get(ctx, "debugged", metav1.GetOptions{})
				if err != nil {
					return nil, err
				}
				found.Spec.EphemeralContainers = append(found.Spec.EphemeralContainers, corev1.EphemeralContainer{EphemeralContainerCommon: tc.in})
				return pods.UpdateEphemeralContainers(ctx, "debugged", found, metav1.UpdateOptions{})
			})
		})
	}
}

// expectLimited compares the flag of the webhook with the annotation of an account, for which
// the in-tree plugin has the same message.
func expectLimited(t *testing.T, w *twins) {
	t.Helper()
	for name, change := range unlikelyPods() {
		of := func(account string) *corev1.Pod {
			wanted := pod("refused")
			wanted.Spec.ServiceAccountName = account
			change(wanted)
			return wanted
		}
		if of("limited").Spec.ServiceAccountName != "limited" {
			continue // it is about the account, and not about references
		}
		t.Run(name, func(t *testing.T) {
			refused := map[string]verdict{}
			for account, p := range map[string]controlPlane{"limited": w.plugin, "unlimited": w.webhook} {
				wanted := of(account)
				created, err := create(wanted)(t.Context(), p)
				refused[account] = judge(t, created, err)
			}
			want, got := refused["limited"], refused["unlimited"]
			want.Message = regexp.MustCompile(`\blimited\b`).ReplaceAllString(want.Message, "unlimited")
			if want.Code != 403 || got.Code != want.Code || got.Reason != want.Reason || got.Message != want.Message {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	}
}

// furtherVolumes reference a Secret in ways that in-tree does not limit, by the field in the
// message.
func furtherVolumes(secret string) map[string]corev1.VolumeSource {
	ref := &corev1.LocalObjectReference{Name: secret}
	return map[string]corev1.VolumeSource{
		"projected.sources[0].secret.name": {Projected: &corev1.ProjectedVolumeSource{
			Sources: []corev1.VolumeProjection{{Secret: &corev1.SecretProjection{LocalObjectReference: *ref}}},
		}},
		"csi.nodePublishSecretRef.name": {CSI: &corev1.CSIVolumeSource{Driver: "driver.example", NodePublishSecretRef: ref}},
		"azureFile.secretName":          {AzureFile: &corev1.AzureFileVolumeSource{SecretName: secret, ShareName: "share"}},
		"cephfs.secretRef.name":         {CephFS: &corev1.CephFSVolumeSource{Monitors: []string{"monitor"}, SecretRef: ref}},
		"cinder.secretRef.name":         {Cinder: &corev1.CinderVolumeSource{VolumeID: "id", SecretRef: ref}},
		"flexVolume.secretRef.name":     {FlexVolume: &corev1.FlexVolumeSource{Driver: "example/driver", SecretRef: ref}},
		"iscsi.secretRef.name": {ISCSI: &corev1.ISCSIVolumeSource{
			TargetPortal: "10.0.0.1:3260", IQN: "iqn.2026-01.example:disk", DiscoveryCHAPAuth: true, SecretRef: ref,
		}},
		"rbd.secretRef.name":       {RBD: &corev1.RBDVolumeSource{CephMonitors: []string{"monitor"}, RBDImage: "image", SecretRef: ref}},
		"scaleIO.secretRef.name":   {ScaleIO: &corev1.ScaleIOVolumeSource{Gateway: "gateway", System: "system", VolumeName: "volume", SecretRef: ref}},
		"storageos.secretRef.name": {StorageOS: &corev1.StorageOSVolumeSource{VolumeName: "volume", SecretRef: ref}},
	}
}

// expectLimitedInAllKinds checks references that in-tree allows.
func expectLimitedInAllKinds(t *testing.T, w *twins) {
	t.Helper()
	n := 0
	for name, tc := range map[string]struct {
		account, secret string
		refused         bool
	}{
		"unlisted":    {account: "limited", secret: "unlisted", refused: true},
		"listed":      {account: "limited", secret: "listed"},
		"not limited": {account: "robot", secret: "unlisted"},
	} {
		for field, source := range furtherVolumes(tc.secret) {
			wanted, want := pod(fmt.Sprintf("further-%d", n)), ""
			n++
			wanted.Spec.ServiceAccountName, wanted.Spec.Volumes = tc.account, []corev1.Volume{{Name: "v", VolumeSource: source}}
			if tc.refused {
				want = fmt.Sprintf("pods %q is forbidden: spec.volumes[0].%s=%q is not allowed because service account %s does not reference that secret",
					wanted.Name, field, tc.secret, tc.account)
			}
			t.Run(name+": "+field, func(t *testing.T) {
				if _, err := create(wanted)(t.Context(), w.plugin); err != nil {
					t.Errorf("the plugin refuses: %v", err)
				}
				created, err := create(wanted)(t.Context(), w.webhook)
				if got := judge(t, created, err); got.Message != want || (got.Code == 403) != tc.refused {
					t.Errorf("got %+v, want %q", got, want)
				}
			})
		}
	}
}
