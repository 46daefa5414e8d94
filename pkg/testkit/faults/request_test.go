package faults

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRequestsAreParsedAsInAuditLogs(t *testing.T) {
	tests := map[string]struct {
		inMethod, inPath string
		want             Request
	}{
		"get":                {http.MethodGet, secret, Request{Verb: "get", Resource: "secrets", Namespace: "team", Name: "token"}},
		"list":               {http.MethodGet, "/api/v1/secrets?limit=500", Request{Verb: "list", Resource: "secrets"}},
		"watch":              {http.MethodGet, "/api/v1/secrets?watch=1", Request{Verb: "watch", Resource: "secrets"}},
		"watch that resumes": {http.MethodGet, "/api/v1/secrets?watch=true&resourceVersion=7", Request{Verb: "watch", Resource: "secrets", Resumes: true}},
		"watch that begins with a list": {
			http.MethodGet, "/api/v1/secrets?watch=true&resourceVersion=7&sendInitialEvents=true", Request{Verb: "watch", Resource: "secrets"},
		},
		"create":            {http.MethodPost, "/api/v1/namespaces/team/secrets", Request{Verb: "create", Resource: "secrets", Namespace: "team"}},
		"update":            {http.MethodPut, secret, Request{Verb: "update", Resource: "secrets", Namespace: "team", Name: "token"}},
		"patch":             {http.MethodPatch, secret, Request{Verb: "patch", Resource: "secrets", Namespace: "team", Name: "token"}},
		"delete":            {http.MethodDelete, secret, Request{Verb: "delete", Resource: "secrets", Namespace: "team", Name: "token"}},
		"delete collection": {http.MethodDelete, "/api/v1/namespaces/team/secrets", Request{Verb: "deletecollection", Resource: "secrets", Namespace: "team"}},
		"subresource": {
			http.MethodPost, "/api/v1/namespaces/team/serviceaccounts/builder/token",
			Request{Verb: "create", Resource: "serviceaccounts", Subresource: "token", Namespace: "team", Name: "builder"},
		},
		"namespace":             {http.MethodGet, "/api/v1/namespaces/team", Request{Verb: "get", Resource: "namespaces", Name: "team"}},
		"status of a namespace": {http.MethodPut, "/api/v1/namespaces/team/status", Request{Verb: "update", Resource: "namespaces", Subresource: "status", Name: "team"}},
		"group": {
			http.MethodPost, "/apis/authentication.k8s.io/v1/tokenreviews", Request{Verb: "create", Resource: "tokenreviews"},
		},
		"no resource": {http.MethodGet, "/version", Request{Verb: "get", Resource: "/version"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, read(httptest.NewRequestWithContext(t.Context(), tt.inMethod, tt.inPath, nil))); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
