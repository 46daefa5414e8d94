package controllers

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sakeeper/sakeeper/pkg/controllers/accounttemplate"
	"github.com/sakeeper/sakeeper/pkg/controllers/pullsecretcopy"
	"github.com/sakeeper/sakeeper/pkg/controllers/rootca"
	"github.com/sakeeper/sakeeper/pkg/controllers/serviceaccount"
	"github.com/sakeeper/sakeeper/pkg/controllers/tokencleaner"
	"github.com/sakeeper/sakeeper/pkg/controllers/tokengeneration"
	"github.com/sakeeper/sakeeper/pkg/controllers/tokeninventory"
	"github.com/sakeeper/sakeeper/pkg/controllers/tokenrequest"
	"github.com/sakeeper/sakeeper/pkg/controllers/tokensecret"
)

func TestSelectControllers(t *testing.T) {
	const s, k, r, c, g, q = serviceaccount.Name, tokensecret.Name, rootca.Name, tokencleaner.Name, tokengeneration.Name, tokenrequest.Name
	const i = tokeninventory.Name
	const a, p = accounttemplate.Name, pullsecretcopy.Name
	cases := map[string]struct {
		in      []string
		want    []string
		wantErr string
	}{
		"the star is all but three":             {in: []string{"*"}, want: []string{s, k, r, c, g, i}},
		"which are on by their names":           {in: []string{"*", q, a, p}, want: []string{s, k, r, c, g, q, i, a, p}},
		"or its other name alone":               {in: []string{"token-request"}, want: []string{q}},
		"unless it is turned off first":         {in: []string{"-" + q, q, "*"}, want: []string{s, k, r, c, g, i}},
		"a name is that one":                    {in: []string{r}, want: []string{r}},
		"all but one":                           {in: []string{"*", "-" + k}, want: []string{s, r, c, g, i}},
		"in whatever order":                     {in: []string{"-" + k, "*"}, want: []string{s, r, c, g, i}},
		"the first entry of a controller wins":  {in: []string{"-" + k, k, "*"}, want: []string{s, r, c, g, i}},
		"also when it is the one that turns on": {in: []string{k, "-" + k}, want: []string{k}},
		"off alone is nothing":                  {in: []string{"-" + k}},
		"no entry is nothing":                   {in: nil},
		"in-tree's old names work":              {in: []string{"*", "-serviceaccount", "-serviceaccount-token", "-legacy-service-account-token-cleaner"}, want: []string{r, g, i}},
		"and mean the same controller":          {in: []string{"-root-ca-cert-publisher", r, "*"}, want: []string{s, k, c, g, i}},
		"a star that comes twice":               {in: []string{"*", "*"}, want: []string{s, k, r, c, g, i}},
		"an unknown name":                       {in: []string{"*", "nonsense"}, want: []string{s, k, r, c, g, i}, wantErr: unknown("nonsense")},
		"an unknown name that is turned off":    {in: []string{"*", "-nonsense"}, want: []string{s, k, r, c, g, i}, wantErr: unknown("-nonsense")},
		"the star cannot be turned off":         {in: []string{"-*"}, wantErr: unknown("-*")},
		"an empty entry":                        {in: []string{""}, wantErr: unknown("")},
		"all that is unknown is told":           {in: []string{"a", "b"}, wantErr: unknown("a") + "\n" + unknown("b")},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got, err := selectControllers(tc.in)
			want := map[string]bool{}
			for _, name := range tc.want {
				want[name] = true
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			text := ""
			if err != nil {
				text = err.Error()
			}
			if diff := cmp.Diff(tc.wantErr, text); diff != "" {
				t.Errorf("error (-want +got):\n%s", diff)
			}
		})
	}
}

func unknown(entry string) string {
	return `"` + entry + `" is not a controller; there are serviceaccount-controller, serviceaccount-token-controller, root-ca-certificate-publisher-controller, legacy-serviceaccount-token-cleaner-controller, token-generation-controller, token-request-controller, token-inventory-controller, service-account-template-controller, pull-secret-copy-controller`
}
