package testkit

import (
	"encoding/json"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clienttesting "k8s.io/client-go/testing"
)

// Request is a call of a fake client in a form that tests can compare.
type Request struct {
	Verb string
	// Resource is "<resource>" or "<resource>/<subresource>".
	Resource string
	// Name is "<namespace>/<name>".
	Name string
	// Body is the object of a create or update, the content of a patch, and the
	// *metav1.Preconditions of a delete.
	Body any
}

// Requests converts the actions that a fake client recorded. A patch that is not a JSON
// merge patch gets the verb "patch <type>".
func Requests(actions []clienttesting.Action) []Request {
	var requests []Request
	for _, action := range actions {
		r := Request{Verb: action.GetVerb(), Resource: action.GetResource().Resource}
		if sub := action.GetSubresource(); sub != "" {
			r.Resource += "/" + sub
		}
		switch a := action.(type) {
		case clienttesting.UpdateActionImpl:
			r.Name, r.Body = nameOf(a.Object.(metav1.Object)), a.Object
		case clienttesting.CreateActionImpl:
			r.Name, r.Body = nameOf(a.Object.(metav1.Object)), a.Object
		case clienttesting.PatchActionImpl:
			r.Name, r.Body = a.Namespace+"/"+a.Name, decoded(a.Patch)
			if a.PatchType != "application/merge-patch+json" {
				r.Verb += " " + string(a.PatchType)
			}
		case clienttesting.DeleteActionImpl:
			r.Name, r.Body = a.Namespace+"/"+a.Name, a.DeleteOptions.Preconditions
		case clienttesting.GetActionImpl:
			r.Name = a.Namespace + "/" + a.Name
		}
		requests = append(requests, r)
	}
	return requests
}

func nameOf(o metav1.Object) string { return o.GetNamespace() + "/" + o.GetName() }

func decoded(patch []byte) any {
	var body map[string]any
	if err := json.Unmarshal(patch, &body); err != nil {
		return string(patch)
	}
	return body
}
