package rules_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sakeeper/sakeeper/pkg/podadmission/rules"
	"github.com/sakeeper/sakeeper/pkg/testkit"
)

// expectRefusal expects an error with that status code and message; an empty message: no error.
func expectRefusal(t *testing.T, err error, code int32, message string) {
	t.Helper()
	if message == "" {
		if err != nil {
			t.Errorf("got %v", err)
		}
		return
	}
	status := apierrors.APIStatus(nil)
	if !errors.As(err, &status) {
		t.Fatalf("got %v", err)
	}
	if diff := cmp.Diff(message, status.Status().Message); diff != "" || status.Status().Code != code || status.Status().Status != metav1.StatusFailure {
		t.Errorf("code %d, message (-want +got):\n%s", status.Status().Code, diff)
	}
}

func TestUnlistedSecretsAreRefused(t *testing.T) {
	const end = ` is not allowed because service account robot does not reference that `
	cases := map[string]struct {
		in   *corev1.Pod
		want string
	}{
		"listed Secrets": {
			in: newPod(secretVolume("listed"), initContainer("listed"), initContainerFrom("listed"), container("listed"), containerFrom("listed"), pullSecret("registry")),
		},
		"a volume":                {in: newPod(secretVolume("listed"), secretVolume("x")), want: `volume with secret.secretName="x"` + end + "secret"},
		"a volume without a name": {in: newPod(secretVolume("")), want: `volume with secret.secretName=""` + end + "secret"},
		"an init container's variable": {
			in: newPod(initContainer("x")), want: `init container first with envVar KEY referencing secret.secretName="x"` + end + "secret",
		},
		"an init container's envFrom": {
			in: newPod(initContainerFrom("x")), want: `init container first with envFrom referencing secret.secretName="x"` + end + "secret",
		},
		"a container's variable": {
			in: newPod(container("x")), want: `container main with envVar KEY referencing secret.secretName="x"` + end + "secret",
		},
		"a container's envFrom": {
			in: newPod(containerFrom("x")), want: `container main with envFrom referencing secret.secretName="x"` + end + "secret",
		},
		"a pull secret": {
			in: newPod(pullSecret("registry"), pullSecret("x")), want: `imagePullSecrets[1].name="x"` + end + "imagePullSecret",
		},
		"a pull secret that is listed as a Secret": {
			in: newPod(pullSecret("listed")), want: `imagePullSecrets[0].name="listed"` + end + "imagePullSecret",
		},
		"a volume with a Secret that is listed as a pull secret": {
			in: newPod(secretVolume("registry")), want: `volume with secret.secretName="registry"` + end + "secret",
		},
		"volumes come first, pull secrets last": {
			in: newPod(pullSecret("1"), container("2"), initContainer("3"), secretVolume("4")), want: `volume with secret.secretName="4"` + end + "secret",
		},
		"init containers come before containers": {
			in: newPod(pullSecret("1"), container("2"), initContainer("3")), want: `init container first with envVar KEY referencing secret.secretName="3"` + end + "secret",
		},
		"ephemeral containers are not checked when a pod is created": {in: newPod(ephemeral(withEnv("debug", "x")))},
		"other volumes are not checked": {
			in: newPod(volume("mixed", corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
				{Secret: &corev1.SecretProjection{LocalObjectReference: *ref("x")}},
			}}})),
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			want := tc.want
			if want != "" {
				want = `pods "web" is forbidden: ` + want
			}
			expectRefusal(t, rules.Validate(tc.in, robot(), rules.Settings{LimitSecretReferences: true}), 403, want)
			if err := rules.Validate(tc.in, robot(), rules.Settings{}); err != nil {
				t.Errorf("without a limit: %v", err)
			}
		})
	}
}

// otherVolumes are the volume sources that name the Secret "x" and that in-tree does not limit, by
// the field in the refusal.
func otherVolumes() map[string]corev1.VolumeSource {
	return map[string]corev1.VolumeSource{
		"azureFile.secretName": {AzureFile: &corev1.AzureFileVolumeSource{SecretName: "x"}},
		"cephfs.secretRef":     {CephFS: &corev1.CephFSVolumeSource{SecretRef: ref("x")}},
		"cinder.secretRef":     {Cinder: &corev1.CinderVolumeSource{SecretRef: ref("x")}},
		"csi.nodePublishSecretRef": {
			CSI: &corev1.CSIVolumeSource{NodePublishSecretRef: ref("x")},
		},
		"flexVolume.secretRef": {FlexVolume: &corev1.FlexVolumeSource{SecretRef: ref("x")}},
		"iscsi.secretRef":      {ISCSI: &corev1.ISCSIVolumeSource{SecretRef: ref("x")}},
		"rbd.secretRef":        {RBD: &corev1.RBDVolumeSource{SecretRef: ref("x")}},
		"scaleIO.secretRef":    {ScaleIO: &corev1.ScaleIOVolumeSource{SecretRef: ref("x")}},
		"storageos.secretRef":  {StorageOS: &corev1.StorageOSVolumeSource{SecretRef: ref("x")}},
		"projected.sources[1].secret": {
			Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
				{Secret: &corev1.SecretProjection{LocalObjectReference: *ref("listed")}},
				{Secret: &corev1.SecretProjection{LocalObjectReference: *ref("x")}},
			}},
		},
	}
}

func TestScopeAllLimitsEveryKindOfReference(t *testing.T) {
	all := rules.Settings{LimitSecretReferences: true, SecretReferenceScope: rules.AllScope}
	for field, source := range otherVolumes() {
		t.Run(field, func(t *testing.T) {
			pod := newPod(secretVolume("listed"), volume("disk", source))
			if !strings.HasSuffix(field, "Name") {
				field += ".name"
			}
			expectRefusal(t, rules.Validate(pod, robot(), all), 403,
				`pods "web" is forbidden: spec.volumes[1].`+field+`="x" is not allowed because service account robot does not reference that secret`)
			account := robot(testkit.WithReferences("x"))
			if err := rules.Validate(pod, account, all); err != nil {
				t.Errorf("listed: %v", err)
			}
			if err := rules.Validate(pod, robot(), rules.Settings{LimitSecretReferences: true}); err != nil {
				t.Errorf("in-tree scope: %v", err)
			}
		})
	}
	t.Run("references of the in-tree scope", func(t *testing.T) {
		expectRefusal(t, rules.Validate(newPod(containerFrom("x")), robot(), all), 403,
			`pods "web" is forbidden: container main with envFrom referencing secret.secretName="x" is not allowed because service account robot does not reference that secret`)
	})
	t.Run("ephemeral containers", func(t *testing.T) {
		expectRefusal(t, rules.Validate(newPod(ephemeral(withEnv("debug", "x"))), robot(), all), 403,
			`pods "web" is forbidden: ephemeral container debug with envVar KEY referencing secret.secretName="x" is not allowed because service account robot does not reference that secret`)
	})
}

func TestMirrorPods(t *testing.T) {
	const (
		secrets  = `pods "web" is forbidden: a mirror pod may not reference secrets`
		accounts = `pods "web" is forbidden: a mirror pod may not reference service accounts`
	)
	type testCase struct {
		in   *corev1.Pod
		want string
	}
	cases := map[string]testCase{
		"a plain mirror pod": {in: newPod(mirror)},
		"an account":         {in: newPod(mirror, func(p *corev1.Pod) { p.Spec.ServiceAccountName = "robot" }), want: accounts},
		"a deprecated field": {in: newPod(mirror, func(p *corev1.Pod) { p.Spec.DeprecatedServiceAccount = "robot" }), want: accounts},
		"an account first":   {in: newPod(mirror, pullSecret("x"), func(p *corev1.Pod) { p.Spec.ServiceAccountName = "robot" }), want: accounts},
		"a pull secret":      {in: newPod(mirror, pullSecret("x")), want: secrets},
		"a secret volume":    {in: newPod(mirror, secretVolume("x")), want: secrets},
		"an empty name":      {in: newPod(mirror, secretVolume(""))},
		"a variable":         {in: newPod(mirror, container("x")), want: secrets},
		"an envFrom":         {in: newPod(mirror, initContainerFrom("x")), want: secrets},
		"an ephemeral one":   {in: newPod(mirror, ephemeral(withEnv("debug", "x"))), want: secrets},
		"a config map":       {in: newPod(mirror, volume("c", corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{}}))},
		"a projected config": {in: newPod(mirror, volume("c", corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: make([]corev1.VolumeProjection, 1)}}))},
		"a token": {
			in: newPod(mirror, volume("c", corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
				{}, {ServiceAccountToken: &corev1.ServiceAccountTokenProjection{}},
			}}})),
			want: `pods "web" is forbidden: a mirror pod may not use ServiceAccountToken volume projections`,
		},
	}
	for field, source := range otherVolumes() {
		cases[field] = testCase{in: newPod(mirror, volume("disk", source)), want: secrets}
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			before := tc.in.DeepCopy()
			changes, named, err := create(tc.in, nil, "", rules.Settings{LimitSecretReferences: true, TokenVolumeSource: rules.SecretTokens})
			expectRefusal(t, err, 403, tc.want)
			if diff := cmp.Diff(before, tc.in); diff != "" || named {
				t.Errorf("the pod was changed:\n%s", diff)
			}
			if diff := cmp.Diff(rules.Changes{}, changes); diff != "" {
				t.Errorf("changes:\n%s", diff)
			}
			if rules.NeedsAccount(tc.in) || rules.NeedsToken(tc.in, nil) {
				t.Error("a mirror pod needs something")
			}
		})
	}
}

func TestEverySecretThatTheAccountListsIsAllowed(t *testing.T) {
	account := robot(testkit.WithReferences("first"))
	account.ImagePullSecrets = append(account.ImagePullSecrets, corev1.LocalObjectReference{Name: "mirror"})
	pod := newPod(secretVolume("first"), secretVolume("listed"), pullSecret("registry"), pullSecret("mirror"))
	if err := rules.Validate(pod, account, rules.Settings{LimitSecretReferences: true}); err != nil {
		t.Error(err)
	}
}

func TestEphemeralContainers(t *testing.T) {
	const refused = ` referencing secret.secretName="x" is not allowed because service account robot does not reference that secret`
	cases := map[string]struct {
		in       *corev1.Pod
		wantCode int32
		want     string
	}{
		"listed Secrets": {in: newPod(ephemeral(withEnv("debug", "listed")), ephemeral(withEnvFrom("debug", "listed")))},
		"a variable":     {in: newPod(ephemeral(withEnv("debug", "x"))), wantCode: 500, want: "ephemeral container debug with envVar KEY" + refused},
		"an envFrom":     {in: newPod(ephemeral(withEnvFrom("debug", "x"))), wantCode: 500, want: "ephemeral container debug with envFrom" + refused},
		"no account": {
			in: newPod(unnamed, ephemeral(withEnv("debug", "x"))), wantCode: 403,
			want: `pods "web" is forbidden: no service account specified for pod team/web`,
		},
		"the rest of the pod is not checked": {in: newPod(secretVolume("x"), container("x"), initContainerFrom("x"), pullSecret("x"))},
		"a mirror pod":                       {in: newPod(ephemeral(withEnv("debug", "x")), annotatedAsMirror), wantCode: 500, want: "ephemeral container debug with envVar KEY" + refused},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			for _, scope := range []rules.Scope{"", rules.InTreeScope, rules.AllScope} {
				s := rules.Settings{LimitSecretReferences: true, SecretReferenceScope: scope}
				expectRefusal(t, rules.ValidateEphemeralContainers(tc.in, robot(), s), tc.wantCode, tc.want)
			}
			if err := rules.ValidateEphemeralContainers(tc.in, robot(), rules.Settings{}); tc.wantCode == 500 && err != nil {
				t.Errorf("without a limit: %v", err)
			}
		})
	}
}
