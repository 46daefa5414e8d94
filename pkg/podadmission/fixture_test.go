package podadmission

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/ktesting"

	"github.com/sakeeper/sakeeper/pkg/podadmission/rules"
	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/testkit/leaks"
)

func TestMain(m *testing.M) { leaks.Main(m) }

const requestUID = types.UID("70000000-0000-4000-8000-000000000001")

func newContext(t testing.TB) context.Context {
	t.Helper()
	return klog.NewContext(t.Context(), ktesting.NewLogger(t, ktesting.DefaultConfig))
}

// fixture is a reviewer whose cache is filled by the test.
type fixture struct {
	*Reviewer
	client *fake.Clientset
}

// newFixture sets the suffix of generated names to "abcde". live are the objects of the API server.
func newFixture(t testing.TB, settings rules.Settings, live ...runtime.Object) fixture {
	t.Helper()
	client := fake.NewClientset(live...)
	settings.Suffix = func() string { return "abcde" }
	informer, err := Accounts(client)
	if err != nil {
		t.Fatal(err)
	}
	reviewer, err := New(Config{
		Accounts: informer, Client: client.CoreV1(), Secrets: client.CoreV1(), Settings: settings, Awaited: []string{"robot"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return fixture{Reviewer: reviewer, client: client}
}

// cache adds accounts to the cache.
func (f fixture) cache(t testing.TB, accounts ...*corev1.ServiceAccount) {
	t.Helper()
	for _, account := range accounts {
		if err := f.accounts.informer.GetStore().Add(reduce(account)); err != nil {
			t.Fatal(err)
		}
	}
}

// requests are the requests of the client.
func (f fixture) requests() []testkit.Request { return testkit.Requests(f.client.Actions()) }

// creationOf returns the request to create the pod raw.
func creationOf(raw string) *admissionv1.AdmissionRequest {
	return &admissionv1.AdmissionRequest{
		UID:       requestUID,
		Kind:      metav1.GroupVersionKind{Version: "v1", Kind: "Pod"},
		Resource:  metav1.GroupVersionResource{Version: "v1", Resource: "pods"},
		Namespace: "team",
		Operation: admissionv1.Create,
		Object:    runtime.RawExtension{Raw: []byte(raw)},
	}
}

// plain is a pod in JSON with those fields in its spec.
func plain(spec string) string {
	return `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web","namespace":"team"},"spec":{` + spec + `}}`
}

const mainContainer = `"containers":[{"name":"main"}]`

// realistic is a pod as the API server sends it.
func realistic(t testing.TB) string {
	t.Helper()
	data, err := os.ReadFile("testdata/pod.json")
	if err != nil {
		t.Fatal(err)
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, data); err != nil {
		t.Fatal(err)
	}
	return compact.String()
}

// expectPatch expects that a request is allowed with that patch in JSON; empty: without a patch.
func expectPatch(t *testing.T, response *admissionv1.AdmissionResponse, err error, want string) {
	t.Helper()
	if err != nil || !response.Allowed || response.UID != requestUID || response.Result != nil {
		t.Fatalf("response %v, error %v", response, err)
	}
	if diff := cmp.Diff(indented(t, want), indented(t, string(response.Patch))); diff != "" {
		t.Errorf("patch (-want +got):\n%s", diff)
	}
	if hasType := response.PatchType != nil; hasType != (len(response.Patch) > 0) || hasType && *response.PatchType != admissionv1.PatchTypeJSONPatch {
		t.Errorf("patch type %v", response.PatchType)
	}
}

func indented(t *testing.T, raw string) string {
	t.Helper()
	if raw == "" {
		return ""
	}
	var value any
	if err := json.Unmarshal([]byte(raw), &value); err != nil {
		t.Fatalf("%v in %s", err, raw)
	}
	text, err := json.MarshalIndent(value, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// expectRefused expects that a request is refused with that code and message.
func expectRefused(t *testing.T, response *admissionv1.AdmissionResponse, err error, code int32, message string) {
	t.Helper()
	if err != nil || response.Allowed || response.UID != requestUID || response.Result == nil || response.Patch != nil {
		t.Fatalf("response %v, error %v", response, err)
	}
	if diff := cmp.Diff(message, response.Result.Message); diff != "" || response.Result.Code != code {
		t.Errorf("code %d, message (-want +got):\n%s", response.Result.Code, diff)
	}
}

// mustApply applies a patch like the API server.
func mustApply(t testing.TB, raw, patch []byte) []byte {
	t.Helper()
	if len(patch) == 0 {
		return raw
	}
	operations, err := jsonpatch.DecodePatch(patch)
	if err != nil {
		t.Fatalf("%v in %s", err, patch)
	}
	patched, err := operations.Apply(raw)
	if err != nil {
		t.Fatalf("%v: %s to %s", err, patch, raw)
	}
	return patched
}

func defaultAccount(opts ...testkit.Option) *corev1.ServiceAccount {
	return testkit.ServiceAccount("team/default", opts...)
}

// within is the context of a request with that timeout; zero: without a timeout.
func within(t *testing.T, timeout time.Duration) context.Context {
	t.Helper()
	if timeout == 0 {
		return newContext(t)
	}
	ctx, cancel := context.WithTimeout(newContext(t), timeout)
	t.Cleanup(cancel)
	return ctx
}
