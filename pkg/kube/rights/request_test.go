package rights

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParse(t *testing.T) {
	type parsed struct {
		Right  string
		Target Target
	}
	cases := map[string]struct {
		method, base, url string
		want              *parsed // nil: no resource
	}{
		"a list of all namespaces":     {http.MethodGet, "/", "/api/v1/secrets?limit=500", &parsed{Right: "list secrets"}},
		"a watch of one namespace":     {http.MethodGet, "/", "/api/v1/namespaces/n/secrets?watch=true", &parsed{"watch secrets", Target{Namespace: "n"}}},
		"a watch of one name":          {http.MethodGet, "", "/api/v1/configmaps?fieldSelector=metadata.name%3Dca&watch=1", &parsed{"watch configmaps", Target{Name: "ca"}}},
		"a list by another field":      {http.MethodGet, "/", "/api/v1/secrets?fieldSelector=type%3Dt", &parsed{Right: "list secrets"}},
		"a list by a bad selector":     {http.MethodGet, "/", "/api/v1/secrets?fieldSelector=metadata.name", &parsed{Right: "list secrets"}},
		"an object":                    {http.MethodGet, "/", "/api/v1/namespaces/n/secrets/s", &parsed{"get secrets", Target{"n", "s"}}},
		"a subresource":                {http.MethodPost, "/", "/api/v1/namespaces/n/serviceaccounts/a/token", &parsed{"create serviceaccounts/token", Target{"n", "a"}}},
		"a create":                     {http.MethodPost, "/", "/api/v1/namespaces/n/serviceaccounts", &parsed{"create serviceaccounts", Target{Namespace: "n"}}},
		"an update in another group":   {http.MethodPut, "/", "/apis/coordination.k8s.io/v1/namespaces/n/leases/l", &parsed{"update leases.coordination.k8s.io", Target{"n", "l"}}},
		"a patch without a namespace":  {http.MethodPatch, "/", "/apis/g/v1/things/x", &parsed{"patch things.g", Target{Name: "x"}}},
		"a delete":                     {http.MethodDelete, "/", "/api/v1/namespaces/n/secrets/s", &parsed{"delete secrets", Target{"n", "s"}}},
		"a delete of all":              {http.MethodDelete, "/", "/api/v1/namespaces/n/secrets", &parsed{"deletecollection secrets", Target{Namespace: "n"}}},
		"namespaces":                   {http.MethodGet, "/", "/api/v1/namespaces", &parsed{Right: "list namespaces"}},
		"a namespace":                  {http.MethodGet, "/", "/api/v1/namespaces/n", &parsed{"get namespaces", Target{"n", "n"}}},
		"below the path of a proxy":    {http.MethodGet, "/clusters/c/", "/clusters/c/api/v1/secrets", &parsed{Right: "list secrets"}},
		"not below the path":           {http.MethodGet, "/clusters/c", "/api/v1/secrets", nil},
		"a URL that is no resource":    {http.MethodGet, "/", "/openid/v1/jwks", nil},
		"discovery":                    {http.MethodGet, "/", "/api/v1", nil},
		"discovery of another group":   {http.MethodGet, "/", "/apis/g/v1", nil},
		"the root of the API server":   {http.MethodGet, "/", "/", nil},
		"a watch of an object by name": {http.MethodGet, "/", "/api/v1/namespaces/n/secrets?watch=true&fieldSelector=metadata.name%3Ds", &parsed{"watch secrets", Target{"n", "s"}}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			var got *parsed
			if right, target, ok := parse(tc.base, httptest.NewRequest(tc.method, tc.url, nil)); ok {
				got = &parsed{right.String(), target}
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
