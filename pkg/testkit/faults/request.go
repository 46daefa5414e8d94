package faults

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// Request is a request of a client, with the fields as in an audit log.
type Request struct {
	Verb, Resource, Subresource, Namespace, Name string
	// Resumes is true for a watch from a resourceVersion of the client. Other watches begin
	// with a list.
	Resumes   bool
	UserAgent string
	// TimeoutSeconds is how long a watch is to last. Zero: it does not say.
	TimeoutSeconds int
}

// Kind returns "<verb> <resource>" or "<verb> <resource>/<subresource>".
func (r Request) Kind() string {
	if r.Subresource == "" {
		return r.Verb + " " + r.Resource
	}
	return r.Verb + " " + r.Resource + "/" + r.Subresource
}

// Writes returns true if the verb is not get, list or watch.
func (r Request) Writes() bool {
	return !slices.Contains([]string{"get", "list", "watch"}, r.Verb)
}

func read(r *http.Request) Request {
	request := Request{Verb: strings.ToLower(r.Method), UserAgent: r.UserAgent()}
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	switch {
	case parts[0] == "api" && len(parts) > 2:
		parts = parts[2:]
	case parts[0] == "apis" && len(parts) > 3:
		parts = parts[3:]
	default:
		request.Resource = r.URL.Path
		return request
	}
	if parts[0] == "namespaces" && len(parts) > 2 && !slices.Contains([]string{"status", "finalize"}, parts[2]) {
		request.Namespace, parts = parts[1], parts[2:]
	}
	request.Resource = parts[0]
	if len(parts) > 1 {
		request.Name = parts[1]
	}
	if len(parts) > 2 {
		request.Subresource = parts[2]
	}
	request.Verb = verb(r, request.Name)
	query := r.URL.Query()
	request.Resumes = request.Verb == "watch" && query.Get("resourceVersion") != "" && query.Get("sendInitialEvents") != "true"
	request.TimeoutSeconds, _ = strconv.Atoi(query.Get("timeoutSeconds")) // what is no number says nothing
	return request
}

func verb(r *http.Request, name string) string {
	switch r.Method {
	case http.MethodGet:
		switch watch := r.URL.Query().Get("watch"); {
		case watch == "true" || watch == "1":
			return "watch"
		case name == "":
			return "list"
		default:
			return "get"
		}
	case http.MethodPost:
		return "create"
	case http.MethodPut:
		return "update"
	case http.MethodDelete:
		if name == "" {
			return "deletecollection"
		}
		return "delete"
	default:
		return strings.ToLower(r.Method)
	}
}
