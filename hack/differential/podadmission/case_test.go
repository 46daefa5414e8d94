package podadmission

import (
	"encoding/json"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	api "k8s.io/kubernetes/pkg/apis/core"
	_ "k8s.io/kubernetes/pkg/apis/core/install" // the conversions and defaults of an API server
	"sigs.k8s.io/yaml"
)

const namespace = "team"

// request is one case: the request of a client, the ServiceAccounts and the settings. It is
// printed and shrunk as JSON.
type request struct {
	Operation   admission.Operation `json:"operation"`
	Subresource string              `json:"subresource,omitempty"`
	// Name is the name in the request; empty for a CREATE with generateName.
	Name string     `json:"name,omitempty"`
	Pod  corev1.Pod `json:"pod"`

	Cached []corev1.ServiceAccount `json:"cached,omitempty"` // in the cache, and live
	Live   []corev1.ServiceAccount `json:"live,omitempty"`   // live only: the cache lags behind

	LimitSecretReferences bool `json:"limitSecretReferences,omitempty"`
	// Patched: another webhook wrote the pod. It then reaches sakeeper defaulted, but not
	// converted, so that serviceAccount and serviceAccountName may differ.
	Patched bool `json:"patched,omitempty"`
}

func (r *request) String() string {
	text, err := yaml.Marshal(r)
	if err != nil {
		return fmt.Sprintf("%+v", *r)
	}

	return string(text)
}

// possible returns true if r can reach admission in an API server.
func (r *request) possible() bool {
	return r.Operation != "" && r.Pod.Namespace == namespace && r.Name == r.Pod.Name
}

// account returns the ServiceAccount of that name in the namespace of the pod, from the cache
// or else live.
func (r *request) account(name string) (account *corev1.ServiceAccount, cached bool) {
	is := func(a corev1.ServiceAccount) bool { return a.Namespace == namespace && a.Name == name }
	if i := slices.IndexFunc(r.Cached, is); i >= 0 {
		return &r.Cached[i], true
	}
	if i := slices.IndexFunc(r.Live, is); i >= 0 {
		return &r.Live[i], false
	}

	return nil, false
}

// outcome is the result for the client.
type outcome struct {
	Allowed bool
	Code    int32
	Reason  string
	Message string
	Details string
	Pod     *corev1.Pod // nil when it was refused
}

// decoded returns the pod as an API server has it after decoding.
func decoded(pod *corev1.Pod) (*api.Pod, error) {
	text, err := json.Marshal(pod)
	if err != nil {
		return nil, err
	}

	return decodedText(text)
}

func decodedText(text []byte) (*api.Pod, error) {
	var pod corev1.Pod
	if err := json.Unmarshal(text, &pod); err != nil {
		return nil, err
	}
	legacyscheme.Scheme.Default(&pod)

	var internal api.Pod
	if err := legacyscheme.Scheme.Convert(&pod, &internal, nil); err != nil {
		return nil, err
	}

	return &internal, nil
}

// versioned returns the pod as an API server shows it to webhooks and clients.
func versioned(internal *api.Pod) (*corev1.Pod, error) {
	var converted corev1.Pod
	if err := legacyscheme.Scheme.Convert(internal.DeepCopy(), &converted, nil); err != nil {
		return nil, err
	}

	return reread(&converted)
}

// reread returns the pod encoded and decoded, so that values which are equal in JSON, such as
// an empty and a nil list, are equal.
func reread(pod *corev1.Pod) (*corev1.Pod, error) {
	text, err := json.Marshal(pod)
	if err != nil {
		return nil, err
	}
	var read corev1.Pod

	return &read, json.Unmarshal(text, &read)
}

// shown returns the pod in the review that sakeeper gets.
func (r *request) shown() (*corev1.Pod, error) {
	if r.Patched {
		pod := r.Pod.DeepCopy()
		legacyscheme.Scheme.Default(pod)

		return reread(pod)
	}
	internal, err := decoded(&r.Pod)
	if err != nil {
		return nil, err
	}

	return versioned(internal)
}
