package podadmission

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"github.com/sakeeper/sakeeper/pkg/podadmission/rules"
	"github.com/sakeeper/sakeeper/pkg/testkit"
)

const (
	tokenVolume = `{"name":"kube-api-access-abcde","projected":{"defaultMode":420,"sources":[
		{"serviceAccountToken":{"expirationSeconds":3607,"path":"token"}},
		{"configMap":{"name":"kube-root-ca.crt","items":[{"key":"ca.crt","path":"ca.crt"}]}},
		{"downwardAPI":{"items":[{"path":"namespace","fieldRef":{"apiVersion":"v1","fieldPath":"metadata.namespace"}}]}}]}}`
	tokenMount = `{"name":"kube-api-access-abcde","readOnly":true,"mountPath":"/var/run/secrets/kubernetes.io/serviceaccount"}`
)

func TestPatches(t *testing.T) {
	withPullSecret := defaultAccount()
	withPullSecret.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "registry"}}
	cases := map[string]struct {
		in        string
		inAccount *corev1.ServiceAccount
		want      string
	}{
		"the pod has nothing": {
			in: plain(mainContainer), inAccount: withPullSecret,
			want: `[{"op":"add","path":"/spec/serviceAccountName","value":"default"},
				{"op":"add","path":"/spec/imagePullSecrets","value":[{"name":"registry"}]},
				{"op":"add","path":"/spec/volumes","value":[` + tokenVolume + `]},
				{"op":"add","path":"/spec/containers/0/volumeMounts","value":[` + tokenMount + `]}]`,
		},
		"lists that are empty, or null": {
			in:        plain(`"serviceAccountName":"","volumes":null,"imagePullSecrets":[],"containers":[{"name":"main","volumeMounts":[]},{"name":"proxy","volumeMounts":null}]`),
			inAccount: withPullSecret,
			want: `[{"op":"add","path":"/spec/serviceAccountName","value":"default"},
				{"op":"add","path":"/spec/imagePullSecrets","value":[{"name":"registry"}]},
				{"op":"add","path":"/spec/volumes","value":[` + tokenVolume + `]},
				{"op":"add","path":"/spec/containers/0/volumeMounts","value":[` + tokenMount + `]},
				{"op":"add","path":"/spec/containers/1/volumeMounts","value":[` + tokenMount + `]}]`,
		},
		"lists that are not empty": {
			in: plain(`"serviceAccountName":"default","volumes":[{"name":"v"}],"imagePullSecrets":[{"name":"mine"}],
				"initContainers":[{"name":"a"},{"name":"b","volumeMounts":[{"name":"v","mountPath":"/v"}]}],
				"containers":[{"name":"main","volumeMounts":[{"name":"v","mountPath":"/v"}]}]`),
			inAccount: withPullSecret,
			want: `[{"op":"add","path":"/spec/volumes/-","value":` + tokenVolume + `},
				{"op":"add","path":"/spec/initContainers/0/volumeMounts","value":[` + tokenMount + `]},
				{"op":"add","path":"/spec/initContainers/1/volumeMounts/-","value":` + tokenMount + `},
				{"op":"add","path":"/spec/containers/0/volumeMounts/-","value":` + tokenMount + `}]`,
		},
		"the pod has everything": {
			in: plain(`"serviceAccountName":"default","containers":[{"name":"main","volumeMounts":[{"name":"v","mountPath":"/var/run/secrets/kubernetes.io/serviceaccount"}]}]`),
		},
		"a pod without a namespace": {
			in:        `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web"},"spec":{"automountServiceAccountToken":false}}`,
			inAccount: defaultAccount(),
			want:      `[{"op":"add","path":"/spec/serviceAccountName","value":"default"}]`,
		},
		"a mirror pod": {
			in: `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web","namespace":"team","annotations":{"kubernetes.io/config.mirror":""}},"spec":{` + mainContainer + `}}`,
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, rules.Settings{})
			if tc.inAccount == nil {
				tc.inAccount = defaultAccount()
			}
			f.cache(t, tc.inAccount)
			request := creationOf(tc.in)
			response, err := f.Mutate(newContext(t), request)
			expectPatch(t, response, err, tc.want)
			request.Object.Raw = mustApply(t, request.Object.Raw, response.Patch)
			response, err = f.Mutate(newContext(t), request)
			expectPatch(t, response, err, "")
			response, err = f.Validate(newContext(t), request)
			expectPatch(t, response, err, "")
			if n := len(f.requests()); n != 0 {
				t.Errorf("%d requests", n)
			}
		})
	}
}

// TestCases sends the pods of the rules' test data, with fields that no type has: the patch must do
// what the rules do, and the fields must be kept.
func TestCases(t *testing.T) {
	dirs, err := filepath.Glob("rules/testdata/*")
	if err != nil || len(dirs) == 0 {
		t.Fatalf("%d cases, error %v", len(dirs), err)
	}
	for _, dir := range dirs {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			var account corev1.ServiceAccount
			var settings rules.Settings // the fields that the file sets
			var want map[string]any
			mustReadYAML(t, filepath.Join(dir, "account.yaml"), &account)
			if _, err := os.Stat(filepath.Join(dir, "settings.yaml")); err == nil {
				mustReadYAML(t, filepath.Join(dir, "settings.yaml"), &settings)
			}
			mustReadYAML(t, filepath.Join(dir, "want.yaml"), &want)
			live := []runtime.Object{}
			if !strings.HasPrefix(filepath.Base(dir), "no-token") {
				for _, secret := range account.Secrets {
					live = append(live, testkit.Secret("team/"+secret.Name,
						testkit.WithAccount(account.Name), testkit.WithData(corev1.ServiceAccountTokenKey, "token")))
				}
			}
			f := newFixture(t, settings, live...)
			f.cache(t, &account)
			raw := withInvented(t, filepath.Join(dir, "in.yaml"))
			request := creationOf(string(raw))
			response, err := f.Mutate(newContext(t), request)
			if err != nil {
				t.Fatal(err)
			}
			if code, refused := want["code"]; refused {
				expectRefused(t, response, err, int32(code.(float64)), want["message"].(string))
				return
			}
			if !response.Allowed {
				t.Fatalf("refused: %v", response.Result)
			}
			patched := mustApply(t, raw, response.Patch)
			request.Object.Raw = patched
			again, err := f.Mutate(newContext(t), request)
			expectPatch(t, again, err, "")

			if n := strings.Count(string(raw), inventedField); n < 4 || strings.Count(string(patched), inventedField) != n {
				t.Errorf("%d invented fields became %s", n, patched)
			}
			var got, wanted corev1.Pod
			mustReadYAML(t, filepath.Join(dir, "want.yaml"), &wanted)
			if err := json.Unmarshal(patched, &got); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(wanted.Spec, got.Spec); diff != "" {
				t.Errorf("pod (-want +got):\n%s", diff)
			}
		})
	}
}

const inventedField = "inventedField"

// withInvented reads a pod and adds to every object in it a field that no type has.
func withInvented(t *testing.T, path string) []byte {
	t.Helper()
	var value any
	mustReadYAML(t, path, &value)
	invent(value)
	raw, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func invent(value any) {
	switch value := value.(type) {
	case map[string]any:
		for key, member := range value {
			if key != "annotations" { // any key is allowed there
				invent(member)
			}
		}
		value[inventedField] = map[string]any{"of": "a later version"}
	case []any:
		for _, member := range value {
			invent(member)
		}
	}
}

func mustReadYAML(t *testing.T, path string, into any) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(data, into); err != nil {
		t.Fatal(err)
	}
}

// TestRefusals: both webhooks refuse what the rules refuse.
func TestRefusals(t *testing.T) {
	f := newFixture(t, rules.Settings{LimitSecretReferences: true})
	f.cache(t, defaultAccount())
	const otherSecret = `"volumes":[{"name":"v","secret":{"secretName":"theirs"}}],`
	const wantOther = `pods "web" is forbidden: volume with secret.secretName="theirs" is not allowed because service account default does not reference that secret`

	request := creationOf(plain(otherSecret + mainContainer))
	response, err := f.Mutate(newContext(t), request)
	expectRefused(t, response, err, 403, wantOther)
	request = creationOf(plain(otherSecret + `"serviceAccountName":"default",` + mainContainer))
	response, err = f.Validate(newContext(t), request)
	expectRefused(t, response, err, 403, wantOther)
	response, err = f.Validate(newContext(t), creationOf(plain(mainContainer)))
	expectRefused(t, response, err, 403, `pods "web" is forbidden: no service account specified for pod team/web`)
	response, err = f.Validate(newContext(t), creationOf(plain(`"serviceAccountName":"absent",`+mainContainer)))
	expectRefused(t, response, err, 403, `pods "web" is forbidden: error looking up service account team/absent: serviceaccount "absent" not found`)
	mirror := strings.Replace(plain(`"serviceAccountName":"default",`+mainContainer), `"name":"web"`, `"name":"web","annotations":{"kubernetes.io/config.mirror":""}`, 1)
	for _, handler := range []func() (*admissionv1.AdmissionResponse, error){
		func() (*admissionv1.AdmissionResponse, error) { return f.Mutate(newContext(t), creationOf(mirror)) },
		func() (*admissionv1.AdmissionResponse, error) { return f.Validate(newContext(t), creationOf(mirror)) },
	} {
		response, err = handler()
		expectRefused(t, response, err, 403, `pods "web" is forbidden: a mirror pod may not reference service accounts`)
	}
}

func TestEphemeralContainers(t *testing.T) {
	ephemeral := func(account, secret string) *admissionv1.AdmissionRequest {
		request := creationOf(plain(`"serviceAccountName":"` + account + `",` + mainContainer +
			`,"ephemeralContainers":[{"name":"debug","envFrom":[{"secretRef":{"name":"` + secret + `"}}]}]`))
		request.Operation, request.SubResource, request.Name = admissionv1.Update, "ephemeralcontainers", "web"
		return request
	}
	f := newFixture(t, rules.Settings{LimitSecretReferences: true})
	f.cache(t, defaultAccount(testkit.WithReferences("listed")))

	response, err := f.Validate(newContext(t), ephemeral("default", "listed"))
	expectPatch(t, response, err, "")
	response, err = f.Validate(newContext(t), ephemeral("default", "theirs"))
	expectRefused(t, response, err, 500, `ephemeral container debug with envFrom referencing secret.secretName="theirs" is not allowed because service account default does not reference that secret`)
	response, err = f.Validate(newContext(t), ephemeral("", "listed"))
	expectRefused(t, response, err, 403, `pods "web" is forbidden: no service account specified for pod team/web`)
	response, err = f.Validate(newContext(t), ephemeral("absent", "listed"))
	expectRefused(t, response, err, 403, `pods "web" is forbidden: error looking up service account team/absent: serviceaccount "absent" not found`)
	response, err = f.Mutate(newContext(t), ephemeral("absent", "theirs"))
	expectPatch(t, response, err, "")

	odd := ephemeral("default", "listed") // kubelet makes no such mirror pod, but a user may
	odd.Object.Raw = []byte(strings.Replace(string(odd.Object.Raw), `"name":"web"`, `"name":"web","annotations":{"kubernetes.io/config.mirror":""}`, 1))
	response, err = f.Validate(newContext(t), odd)
	expectPatch(t, response, err, "")
}

// TestAPatchKeepsAPod as an API server sends it.
func TestAPatchKeepsAPod(t *testing.T) {
	f := newFixture(t, rules.Settings{})
	f.cache(t, defaultAccount())
	raw := realistic(t)
	response, err := f.Mutate(newContext(t), creationOf(raw))
	expectPatch(t, response, err, `[{"op":"add","path":"/spec/serviceAccountName","value":"default"},
		{"op":"add","path":"/spec/volumes/-","value":`+tokenVolume+`},
		{"op":"add","path":"/spec/containers/0/volumeMounts/-","value":`+tokenMount+`},
		{"op":"add","path":"/spec/containers/1/volumeMounts","value":[`+tokenMount+`]}]`)
	var before, after corev1.Pod
	if err := json.Unmarshal([]byte(raw), &before); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(mustApply(t, []byte(raw), response.Patch), &after); err != nil {
		t.Fatal(err)
	}
	after.Spec.ServiceAccountName = ""
	after.Spec.Volumes = after.Spec.Volumes[:1]
	for i := range after.Spec.Containers {
		mounts := after.Spec.Containers[i].VolumeMounts
		after.Spec.Containers[i].VolumeMounts = mounts[:len(mounts)-1]
	}
	before.Spec.Containers[1].VolumeMounts = []corev1.VolumeMount{}
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("pod without the additions (-before +after):\n%s", diff)
	}
}
