package podadmission

import (
	"context"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sakeeper/sakeeper/pkg/podadmission/rules"
)

// TestBadRequests sends what the webhook configurations never send.
func TestBadRequests(t *testing.T) {
	pod := plain(mainContainer)
	with := func(change func(*admissionv1.AdmissionRequest)) *admissionv1.AdmissionRequest {
		request := creationOf(pod)
		change(request)
		return request
	}
	object := creationOf
	cases := map[string]struct {
		in   *admissionv1.AdmissionRequest
		want string // its beginning
	}{
		"another resource":         {in: with(func(r *admissionv1.AdmissionRequest) { r.Resource.Resource = "secrets" }), want: "this webhook is for pods of v1, not for "},
		"another group":            {in: with(func(r *admissionv1.AdmissionRequest) { r.Resource.Group = "example.com" }), want: "this webhook is for pods of v1, not for "},
		"another version":          {in: with(func(r *admissionv1.AdmissionRequest) { r.Resource.Version = "v2" }), want: "this webhook is for pods of v1, not for "},
		"no resource":              {in: with(func(r *admissionv1.AdmissionRequest) { r.Resource = metav1.GroupVersionResource{} }), want: "this webhook is for pods of v1, not for "},
		"another kind":             {in: with(func(r *admissionv1.AdmissionRequest) { r.Kind.Kind = "Binding" }), want: "this webhook is for the kind Pod of v1, not for "},
		"another subresource":      {in: with(func(r *admissionv1.AdmissionRequest) { r.SubResource = "exec" }), want: `this webhook has no rule for the operation "CREATE" on pods and the subresource "exec"`},
		"resize":                   {in: with(func(r *admissionv1.AdmissionRequest) { r.Operation, r.SubResource = "UPDATE", "resize" }), want: `this webhook has no rule for the operation "UPDATE" on pods and the subresource "resize"`},
		"ephemeral containers new": {in: with(func(r *admissionv1.AdmissionRequest) { r.SubResource = "ephemeralcontainers" }), want: `this webhook has no rule for the operation "CREATE" on pods and the subresource "ephemeralcontainers"`},
		"connect":                  {in: with(func(r *admissionv1.AdmissionRequest) { r.Operation = "CONNECT" }), want: `this webhook has no rule for the operation "CONNECT" on pods and the subresource ""`},
		"no operation":             {in: with(func(r *admissionv1.AdmissionRequest) { r.Operation = "" }), want: `this webhook has no rule for the operation "" on pods and the subresource ""`},
		"an operation in another case": {
			in: with(func(r *admissionv1.AdmissionRequest) { r.Operation = "create" }), want: `this webhook has no rule for the operation "create" on pods and the subresource ""`,
		},
		"no object":              {in: with(func(r *admissionv1.AdmissionRequest) { r.Object = runtime.RawExtension{} }), want: "the request has no object"},
		"null":                   {in: object("null"), want: `the object is a "" of "", not a Pod of v1`},
		"a list":                 {in: object("[]"), want: "the object cannot be read as a pod: "},
		"truncated":              {in: object(pod[:len(pod)-1]), want: "the object cannot be read as a pod: "},
		"two objects":            {in: object(pod + pod), want: "the object cannot be read as a pod: "},
		"bytes":                  {in: object("\x00\xff"), want: "the object cannot be read as a pod: "},
		"fields of another type": {in: object(plain(`"containers":{"name":"main"}`)), want: "the object cannot be read as a pod: "},
		"a Secret":               {in: object(`{"apiVersion":"v1","kind":"Secret","metadata":{"name":"web","namespace":"team"}}`), want: `the object is a "Secret" of "v1", not a Pod of v1`},
		"no kind":                {in: object(`{"metadata":{"name":"web","namespace":"team"},"spec":{}}`), want: `the object is a "" of "", not a Pod of v1`},
		"another namespace":      {in: with(func(r *admissionv1.AdmissionRequest) { r.Namespace = "theirs" }), want: `the pod is in the namespace "team", the request in "theirs"`},
		"no namespace":           {in: with(func(r *admissionv1.AdmissionRequest) { r.Namespace = "" }), want: "the request has no namespace"},
		"no spec":                {in: object(`{"apiVersion":"v1","kind":"Pod","metadata":{"namespace":"team"}}`), want: "the pod has no spec"},
		"an empty spec, as null": {in: object(`{"apiVersion":"v1","kind":"Pod","metadata":{"namespace":"team"},"spec":null}`), want: "the pod has no spec"},
		"spec in another case":   {in: object(strings.Replace(pod, `"spec"`, `"Spec"`, 1)), want: "the pod has no spec"},
	}
	f := newFixture(t, rules.Settings{})
	f.cache(t, defaultAccount())
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			for path, handler := range map[string]func(context.Context, *admissionv1.AdmissionRequest) (*admissionv1.AdmissionResponse, error){
				"mutate": f.Mutate, "validate": f.Validate,
			} {
				response, err := handler(newContext(t), tc.in)
				if err != nil || response.Allowed || response.UID != requestUID {
					t.Fatalf("%s: response %v, error %v", path, response, err)
				}
				if got := response.Result; !strings.HasPrefix(got.Message, tc.want) || got.Code != 400 || got.Reason != metav1.StatusReasonBadRequest {
					t.Errorf("%s: got %v", path, got)
				}
			}
		})
	}
}

func TestRequestsWithoutARule(t *testing.T) {
	f := newFixture(t, rules.Settings{LimitSecretReferences: true})
	for name, in := range map[string]admissionv1.Operation{"an update": admissionv1.Update, "a deletion": admissionv1.Delete} {
		t.Run(name, func(t *testing.T) {
			request := creationOf(plain(`"volumes":[{"name":"v","secret":{"secretName":"theirs"}}],` + mainContainer))
			request.Operation = in
			if in == admissionv1.Delete {
				request.Object, request.OldObject = request.OldObject, request.Object
			}
			response, err := f.Mutate(newContext(t), request)
			expectPatch(t, response, err, "")
			response, err = f.Validate(newContext(t), request)
			expectPatch(t, response, err, "")
		})
	}
}

func TestRequestsThatCannotBeAnswered(t *testing.T) {
	f := newFixture(t, rules.Settings{})
	nameless := creationOf(plain(mainContainer))
	nameless.UID = ""
	for want, in := range map[string]*admissionv1.AdmissionRequest{"the review has no request": nil, "the request has no uid": nameless} {
		for _, handler := range []func(context.Context, *admissionv1.AdmissionRequest) (*admissionv1.AdmissionResponse, error){f.Mutate, f.Validate} {
			response, err := handler(newContext(t), in)
			if response != nil || err == nil {
				t.Fatalf("response %v, error %v", response, err)
			}
			if diff := cmp.Diff(want, err.Error()); diff != "" {
				t.Errorf("error (-want +got):\n%s", diff)
			}
		}
	}
}
