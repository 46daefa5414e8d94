package rights

import (
	"net/http"
	"strings"

	"k8s.io/apimachinery/pkg/fields"
)

// Right is the right to make one kind of request.
type Right struct {
	Verb, Group, Resource, Subresource string
}

// resource returns the resource as roles have it.
func (r Right) resource() string {
	if r.Subresource != "" {
		return r.Resource + "/" + r.Subresource
	}
	return r.Resource
}

// String returns for example "create serviceaccounts/token", and for a resource outside the core
// group "update leases.coordination.k8s.io".
func (r Right) String() string {
	text := r.Verb + " " + r.resource()
	if r.Group != "" {
		text += "." + r.Group
	}
	return text
}

// Target is what a right is needed for. Empty fields stand for all.
type Target struct{ Namespace, Name string }

// parse returns what the API server requires a user to be allowed to for a request. It returns false
// for a URL that is no resource. Base is the path of the API server's URL. Subresources of namespaces
// are not recognized: sakeeper uses none.
func parse(base string, request *http.Request) (Right, Target, bool) {
	path, ok := strings.CutPrefix(request.URL.Path, strings.TrimSuffix(base, "/"))
	parts := strings.Split(strings.Trim(path, "/"), "/")
	var right Right
	switch {
	case ok && len(parts) > 2 && parts[0] == "api":
		parts = parts[2:]
	case ok && len(parts) > 3 && parts[0] == "apis":
		right.Group, parts = parts[1], parts[3:]
	default:
		return right, Target{}, false
	}
	var target Target
	if parts[0] == "namespaces" && len(parts) > 1 {
		target.Namespace = parts[1]
		if len(parts) > 2 {
			parts = parts[2:]
		}
	}
	right.Resource = parts[0]
	if len(parts) > 1 {
		target.Name = parts[1]
	}
	if len(parts) > 2 {
		right.Subresource = parts[2]
	}
	right.Verb = verbOf(request, target.Name == "")
	if right.Verb == "list" || right.Verb == "watch" {
		target.Name = selectedName(request)
	}
	return right, target, true
}

// verbOf returns the verb of a request for a collection or for one object.
func verbOf(request *http.Request, collection bool) string {
	switch request.Method {
	case http.MethodPost:
		return "create"
	case http.MethodPut:
		return "update"
	case http.MethodPatch:
		return "patch"
	case http.MethodDelete:
		if collection {
			return "deletecollection"
		}
		return "delete"
	}
	switch watch := request.URL.Query().Get("watch"); {
	case !collection:
		return "get"
	case watch == "true" || watch == "1":
		return "watch"
	default:
		return "list"
	}
}

// selectedName returns the name that a list or watch is limited to: roles may be limited to it too.
func selectedName(request *http.Request) string {
	selector, err := fields.ParseSelector(request.URL.Query().Get("fieldSelector"))
	if err != nil {
		return ""
	}
	name, _ := selector.RequiresExactMatch("metadata.name")
	return name
}
