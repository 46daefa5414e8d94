package podadmission

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	admissionv1 "k8s.io/api/admission/v1"
	registrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"
)

// root is the directory of the main module, and manifest has the webhook configurations.
const (
	root     = "../../.."
	manifest = root + "/manifests/base/webhook/configurations.yaml"
)

// sakeeper is a process that answers the reviews of our webhooks: TestAnswerReviews of
// pkg/podadmission, which has the same types. It is used from one goroutine.
type sakeeper struct {
	ask    *json.Encoder
	answer *json.Decoder

	// mutating and validating are the rules of the webhooks.
	mutating, validating []registrationv1.RuleWithOperations
}

type asked struct {
	Webhook               string                        `json:"webhook"`
	Request               *admissionv1.AdmissionRequest `json:"request"`
	Cached                []corev1.ServiceAccount       `json:"cached"`
	Live                  []corev1.ServiceAccount       `json:"live"`
	LimitSecretReferences bool                          `json:"limitSecretReferences"`
}

type answered struct {
	Response *admissionv1.AdmissionResponse `json:"response"`
	Error    string                         `json:"error"`
}

// buildSakeeper builds the program and returns its path.
func buildSakeeper(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "podadmission.test")
	build := exec.CommandContext(t.Context(), "go", "test", "-c", "-o", program, "./pkg/podadmission")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building pkg/podadmission: %v: %s", err, out)
	}

	return program
}

// startSakeeper runs the program until the test ends.
func startSakeeper(t *testing.T, program string) *sakeeper {
	t.Helper()
	process := exec.CommandContext(context.WithoutCancel(t.Context()), program, "-test.run", "^TestAnswerReviews$")
	process.Env = append(os.Environ(), "ANSWER_REVIEWS=1")
	process.Stdout, process.Stderr = os.Stderr, os.Stderr
	questions, ours, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	answers, theirs, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	process.Stdin, process.ExtraFiles = questions, []*os.File{theirs}
	if err := errors.Join(process.Start(), questions.Close(), theirs.Close()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(ours.Close(), process.Wait(), answers.Close()); err != nil {
			t.Errorf("ending pkg/podadmission: %v", err)
		}
	})
	s := &sakeeper{ask: json.NewEncoder(ours), answer: json.NewDecoder(answers)}
	if err := s.register(); err != nil {
		t.Fatal(err)
	}

	return s
}

// register reads the webhook configurations of the manifests.
func (s *sakeeper) register() error {
	text, err := os.ReadFile(manifest)
	if err != nil {
		return err
	}
	var mutating registrationv1.MutatingWebhookConfiguration
	var validating registrationv1.ValidatingWebhookConfiguration
	first, second, _ := strings.Cut(string(text), "\n---\n")
	if err := errors.Join(yaml.UnmarshalStrict([]byte(first), &mutating), yaml.UnmarshalStrict([]byte(second), &validating)); err != nil {
		return fmt.Errorf("reading %s: %w", manifest, err)
	}
	s.mutating, s.validating = mutating.Webhooks[0].Rules, validating.Webhooks[0].Rules

	return nil
}

// mutate calls our mutating webhook and returns the patched pod, or the refusal.
func (s *sakeeper) mutate(r *request, given *corev1.Pod) (*corev1.Pod, *outcome, error) {
	if !sent(s.mutating, r) {
		return given, nil, nil
	}
	raw, err := rawOf(given)
	if err != nil {
		return nil, nil, err
	}
	response, err := s.review("mutate", r, raw)
	if err != nil {
		return nil, nil, err
	}
	if !response.Allowed {
		return nil, refusedBy(response), nil
	}
	if len(response.Patch) == 0 {
		return given, nil, nil
	}
	operations, err := jsonpatch.DecodePatch(response.Patch)
	if err != nil {
		return nil, nil, fmt.Errorf("decoding the patch %s: %w", response.Patch, err)
	}
	patched, err := operations.Apply(raw)
	if err != nil {
		return nil, nil, fmt.Errorf("applying the patch %s: %w", response.Patch, err)
	}
	var pod corev1.Pod
	err = json.Unmarshal(patched, &pod)
	pod.TypeMeta = given.TypeMeta

	return &pod, nil, err
}

// validate calls our validating webhook and returns the refusal, or nil.
func (s *sakeeper) validate(r *request, pod *corev1.Pod) (*outcome, error) {
	if !sent(s.validating, r) {
		return nil, nil
	}
	raw, err := rawOf(pod)
	if err != nil {
		return nil, err
	}
	response, err := s.review("validate", r, raw)
	if err == nil && response.Patch != nil {
		err = fmt.Errorf("the validating webhook returned a patch: %s", response.Patch)
	}
	if err != nil {
		return nil, err
	}

	return refusedBy(response), nil
}

// sent returns true if an API server calls a webhook with those rules.
func sent(rules []registrationv1.RuleWithOperations, r *request) bool {
	resource := strings.TrimSuffix("pods/"+r.Subresource, "/")

	return slices.ContainsFunc(rules, func(rule registrationv1.RuleWithOperations) bool {
		return slices.Contains(rule.Operations, registrationv1.OperationType(r.Operation)) && slices.Contains(rule.Resources, resource)
	})
}

func rawOf(pod *corev1.Pod) ([]byte, error) {
	typed := *pod
	typed.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}

	return json.Marshal(&typed)
}

func (s *sakeeper) review(webhook string, r *request, raw []byte) (*admissionv1.AdmissionResponse, error) {
	err := s.ask.Encode(asked{
		Webhook: webhook,
		Request: &admissionv1.AdmissionRequest{
			UID:  "70000000-0000-4000-8000-000000000001",
			Kind: metav1.GroupVersionKind{Version: "v1", Kind: "Pod"}, Resource: metav1.GroupVersionResource{Version: "v1", Resource: "pods"},
			SubResource: r.Subresource, Operation: admissionv1.Operation(r.Operation), Namespace: namespace, Name: r.Name,
			Object: runtime.RawExtension{Raw: raw},
		},
		Cached: r.Cached, Live: r.Live, LimitSecretReferences: r.LimitSecretReferences,
	})
	if err != nil {
		return nil, fmt.Errorf("asking pkg/podadmission: %w", err)
	}
	var a answered
	if err := s.answer.Decode(&a); err != nil {
		return nil, fmt.Errorf("reading the answer of pkg/podadmission: %w", err)
	}
	if a.Response == nil {
		return nil, fmt.Errorf("pkg/podadmission has no answer: %s", a.Error)
	}

	return a.Response, nil
}

// refusedBy returns the refusal as the client gets it, without the prefix of the API server;
// nil if the pod is allowed.
func refusedBy(response *admissionv1.AdmissionResponse) *outcome {
	if response.Allowed {
		return nil
	}
	o := refused(response.Result)

	return &o
}
