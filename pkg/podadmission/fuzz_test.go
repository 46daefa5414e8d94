package podadmission

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/yaml"

	"github.com/sakeeper/sakeeper/pkg/podadmission/rules"
	"github.com/sakeeper/sakeeper/pkg/testkit"
)

// FuzzReview sends any bytes as a review. A request that is allowed to create a pod must have a pod of
// its namespace that the rules allow, and the patch must apply to the pod as an API server would
// have sent it, do what the rules do, and be empty the second time. A pod that is allowed by a
// validating webhook must be allowed by the rules.
func FuzzReview(f *testing.F) {
	seeds, err := filepath.Glob("rules/testdata/*/in.yaml")
	if err != nil || len(seeds) == 0 {
		f.Fatalf("%d seeds, error %v", len(seeds), err)
	}
	for _, seed := range seeds {
		data, err := os.ReadFile(seed)
		if err != nil {
			f.Fatal(err)
		}
		raw, err := yaml.YAMLToJSON(data)
		if err != nil {
			f.Fatal(err)
		}
		creation := reviewOf(f, string(raw))
		f.Add(creation)
		f.Add(bytes.Replace(creation, []byte(`"operation":"CREATE"`), []byte(`"operation":"UPDATE","subResource":"ephemeralcontainers"`), 1))
	}
	f.Add(reviewOf(f, realistic(f)))
	f.Add([]byte(`{"request":{"uid":"1","kind":{"version":"v1","kind":"Pod"},"resource":{"version":"v1","resource":"pods"},"operation":"UPDATE","subResource":"ephemeralcontainers","namespace":"team","object":{}}}`))
	f.Add([]byte(`{"request":{"uid":"1","object":null}}`))
	f.Add([]byte(`{}`))
	fixtures := map[string]fixture{}
	for name, settings := range map[string]rules.Settings{
		"usual": {}, "strict": {LimitSecretReferences: true, SecretReferenceScope: rules.AllScope},
	} {
		fixtures[name] = newFixture(f, settings)
		for _, account := range []string{"team/default", "team/robot"} {
			fixtures[name].cache(f, testkit.ServiceAccount(account, testkit.WithReferences("mine")))
		}
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var review admissionv1.AdmissionReview
		if utiljson.Unmarshal(body, &review) != nil {
			return
		}
		ctx, cancel := context.WithTimeout(t.Context(), reserve) // too short for a wait
		defer cancel()
		for _, f := range fixtures {
			f.client.ClearActions()
			checkMutate(ctx, t, f, review.Request)
			checkValidate(ctx, t, f, review.Request)
		}
	})
}

func checkValidate(ctx context.Context, t *testing.T, f fixture, request *admissionv1.AdmissionRequest) {
	t.Helper()
	response, err := f.Validate(ctx, request)
	if (response == nil) == (err == nil) {
		t.Fatalf("response %v, error %v", response, err)
	}
	if err == nil && response.Patch != nil {
		t.Errorf("a validating webhook returned a patch: %s", response.Patch)
	}
	if err != nil || !response.Allowed {
		return
	}
	if request.Resource.Resource != "pods" || request.Resource.Group != "" {
		t.Fatalf("allowed %v", request.Resource)
	}
	creates := request.Operation == admissionv1.Create && request.SubResource == ""
	debugs := request.Operation == admissionv1.Update && request.SubResource == "ephemeralcontainers"
	if !creates && !debugs {
		if request.SubResource != "" || request.Operation != admissionv1.Update && request.Operation != admissionv1.Delete {
			t.Fatalf("allowed the operation %q on %q", request.Operation, request.SubResource)
		}
		return
	}
	pod := mustBePod(t, request)
	var account *corev1.ServiceAccount
	if debugs || rules.NeedsAccount(pod) {
		if account = f.accounts.cached(nameOf(request.Namespace, rules.AccountName(pod))); account == nil {
			t.Fatalf("allowed a pod of the unknown account %q", rules.AccountName(pod))
		}
	}
	validate := rules.Validate
	if debugs {
		validate = rules.ValidateEphemeralContainers
	}
	if err := validate(pod, account, f.settings); err != nil {
		t.Fatalf("allowed what the rules refuse: %v", err)
	}
}

// mustBePod returns the pod of a request that was allowed.
func mustBePod(t *testing.T, request *admissionv1.AdmissionRequest) *corev1.Pod {
	t.Helper()
	pod := &corev1.Pod{}
	if err := utiljson.Unmarshal(request.Object.Raw, pod); err != nil || pod.Kind != "Pod" || pod.Namespace != "" && pod.Namespace != request.Namespace {
		t.Fatalf("allowed %s in %q, error %v", request.Object.Raw, request.Namespace, err)
	}
	return pod
}

func checkMutate(ctx context.Context, t *testing.T, f fixture, request *admissionv1.AdmissionRequest) {
	t.Helper()
	response, err := f.Mutate(ctx, request)
	if (response == nil) == (err == nil) {
		t.Fatalf("response %v, error %v", response, err)
	}
	if err != nil || !response.Allowed || request.Operation != admissionv1.Create {
		if err == nil && response.Patch != nil {
			t.Errorf("patch %s", response.Patch)
		}
		return
	}
	pod := mustBePod(t, request)
	raw, err := json.Marshal(pod) // no field twice, no null in a list
	if err != nil {
		return // an API server cannot have sent it
	}
	patched := mustApply(t, raw, response.Patch)
	again := *request
	again.Object.Raw = patched
	second, err := f.Mutate(ctx, &again)
	if err != nil || !second.Allowed || second.Patch != nil {
		t.Fatalf("the second time: response %v, error %v", second, err)
	}
	expectRulesDid(t, f, pod, request.Namespace, patched)
}

// expectRulesDid expects that the patched pod is pod after the rules.
func expectRulesDid(t *testing.T, f fixture, pod *corev1.Pod, namespace string, patched []byte) {
	t.Helper()
	var got corev1.Pod
	if err := json.Unmarshal(patched, &got); err != nil {
		t.Fatal(err)
	}
	rules.Default(pod)
	var account *corev1.ServiceAccount
	if rules.NeedsAccount(pod) {
		if account = f.accounts.cached(nameOf(namespace, rules.AccountName(pod))); account == nil {
			t.Fatalf("allowed a pod of the unknown account %q", rules.AccountName(pod))
		}
	}
	if _, err := rules.Mutate(pod, account, "", f.settings); err != nil {
		t.Fatal(err)
	}
	if err := rules.Validate(pod, account, f.settings); err != nil {
		t.Fatalf("allowed what the rules refuse: %v", err)
	}
	written, err := json.Marshal(pod)
	if err != nil {
		t.Fatal(err)
	}
	var want corev1.Pod
	if err := json.Unmarshal(written, &want); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want.Spec, got.Spec); diff != "" {
		t.Errorf("pod (-want +got):\n%s", diff)
	}
}

// reviewOf is the review that an API server sends for the creation of the pod raw.
func reviewOf(t testing.TB, raw string) []byte {
	t.Helper()
	request, err := json.Marshal(creationOf(raw))
	if err != nil {
		t.Fatal(err)
	}
	var whole map[string]any
	if err := json.Unmarshal(request, &whole); err != nil {
		t.Fatal(err)
	}
	whole["requestKind"], whole["requestResource"], whole["dryRun"] = whole["kind"], whole["resource"], false
	whole["name"] = "web"
	whole["userInfo"] = map[string]any{
		"username": "system:serviceaccount:kube-system:replicaset-controller", "uid": "f0000000-0000-4000-8000-000000000003",
		"groups": []string{"system:serviceaccounts", "system:serviceaccounts:kube-system", "system:authenticated"},
		"extra":  map[string][]string{"authentication.kubernetes.io/credential-id": {"JTI=f0000000-0000-4000-8000-000000000004"}},
	}
	whole["options"] = map[string]any{"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"}
	body, err := json.Marshal(map[string]any{"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": whole})
	if err != nil {
		t.Fatal(err)
	}
	return body
}
