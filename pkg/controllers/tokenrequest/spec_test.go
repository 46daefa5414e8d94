package tokenrequest

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sakeeper/sakeeper/pkg/api"
)

// annotations makes annotations from their names without the prefix, and values.
func annotations(pairs ...string) map[string]string {
	all := map[string]string{}
	for i := 0; i < len(pairs); i += 2 {
		all["sakeeper.io/"+pairs[i]] = pairs[i+1]
	}
	return all
}

func TestParse(t *testing.T) {
	const (
		audiences = "has an empty audience or a blank; separate audiences by commas alone, or remove the annotation for the API server's own"
		lifetime  = "is not a duration from 10m to 1193046h, such as 24h"
		key       = "is not a key for the token; set it to one of letters, digits, '-', '_' and '.', other than ca.crt and namespace"
		server    = "is not the URL of an API server, such as https://api.example.com:6443"
		noServer  = "set it to the URL of the API server (https://HOST:PORT): kubeconfig needs one, and there is no --public-server"
		account   = "is not the name of a ServiceAccount; set it to one in this namespace"
	)
	plain := tokenSpec{account: "robot", lifetime: 24 * time.Hour, format: formatToken, tokenKey: "token"}
	with := func(change func(*tokenSpec)) tokenSpec { spec := plain; change(&spec); return spec }
	long := strings.Repeat("x", 100)
	cases := map[string]struct {
		in       map[string]string
		inPublic string
		want     tokenSpec
		wantErr  []string
	}{
		"the account alone": {in: annotations("service-account", "robot"), want: plain},
		"everything": {in: annotations("service-account", "robot", "audiences", "a,b:c", "lifetime", "90m", "format", "custom", "token-key", "password"), want: with(func(spec *tokenSpec) {
			spec.audiences, spec.lifetime, spec.format, spec.tokenKey = []string{"a", "b:c"}, 90*time.Minute, "custom", "password"
		})},
		"the shortest lifetime": {in: annotations("service-account", "robot", "lifetime", "10m"), want: with(func(spec *tokenSpec) { spec.lifetime = 10 * time.Minute })},
		"the longest lifetime":  {in: annotations("service-account", "robot", "lifetime", "4294967296s"), want: with(func(spec *tokenSpec) { spec.lifetime = (1 << 32) * time.Second })},
		"parts of seconds":      {in: annotations("service-account", "robot", "lifetime", "600.9s"), want: with(func(spec *tokenSpec) { spec.lifetime = 10 * time.Minute })},
		"a format that does not use the server": {
			in: annotations("service-account", "robot", "server", "nonsense"), inPublic: "https://public", want: plain,
		},
		"the public server": {
			in: annotations("service-account", "robot", "format", "kubeconfig"), inPublic: "https://public",
			want: with(func(spec *tokenSpec) { spec.format, spec.server, spec.tokenKey = "kubeconfig", "https://public", "" }),
		},
		"a server of its own": {
			in: annotations("service-account", "robot", "format", "argocd-cluster", "server", "https://own:1/path"), inPublic: "https://public",
			want: with(func(spec *tokenSpec) {
				spec.format, spec.server, spec.tokenKey = "argocd-cluster", "https://own:1/path", ""
			}),
		},

		"no account":                      {in: annotations(), wantErr: []string{`service-account: "" ` + account}},
		"a bad account":                   {in: annotations("service-account", "Robot!"), wantErr: []string{`service-account: "Robot!" ` + account}},
		"an account of another namespace": {in: annotations("service-account", "team/robot"), wantErr: []string{`service-account: "team/robot" ` + account}},
		"an empty audience":               {in: annotations("service-account", "robot", "audiences", ""), wantErr: []string{`audiences: "" ` + audiences}},
		"a comma at the end":              {in: annotations("service-account", "robot", "audiences", "a,"), wantErr: []string{`audiences: "a," ` + audiences}},
		"a blank":                         {in: annotations("service-account", "robot", "audiences", "a, b"), wantErr: []string{`audiences: "a, b" ` + audiences}},
		"no duration":                     {in: annotations("service-account", "robot", "lifetime", "1d"), wantErr: []string{`lifetime: "1d" ` + lifetime}},
		"an empty duration":               {in: annotations("service-account", "robot", "lifetime", ""), wantErr: []string{`lifetime: "" ` + lifetime}},
		"too short":                       {in: annotations("service-account", "robot", "lifetime", "9m59s"), wantErr: []string{`lifetime: "9m59s" ` + lifetime}},
		"negative":                        {in: annotations("service-account", "robot", "lifetime", "-24h"), wantErr: []string{`lifetime: "-24h" ` + lifetime}},
		"an infinite duration":            {in: annotations("service-account", "robot", "lifetime", "+Inf"), wantErr: []string{`lifetime: "+Inf" ` + lifetime}},
		"no number":                       {in: annotations("service-account", "robot", "lifetime", "NaNh"), wantErr: []string{`lifetime: "NaNh" ` + lifetime}},
		"an exponent":                     {in: annotations("service-account", "robot", "lifetime", "1e2h"), wantErr: []string{`lifetime: "1e2h" ` + lifetime}},
		"longer than a duration":          {in: annotations("service-account", "robot", "lifetime", "9999999999h"), wantErr: []string{`lifetime: "9999999999h" ` + lifetime}},
		"a second too long":               {in: annotations("service-account", "robot", "lifetime", "4294967297s"), wantErr: []string{`lifetime: "4294967297s" ` + lifetime}},
		"longer than a server can":        {in: annotations("service-account", "robot", "lifetime", "2000000h"), wantErr: []string{`lifetime: "2000000h" ` + lifetime}},
		"an unknown format":               {in: annotations("service-account", "robot", "format", "jks", "token-key", "k"), wantErr: []string{`format: "jks" is not one of token, kubeconfig, argocd-cluster, custom`}},
		"an empty format":                 {in: annotations("service-account", "robot", "format", ""), wantErr: []string{`format: "" is not one of token, kubeconfig, argocd-cluster, custom`}},
		"custom without a key":            {in: annotations("service-account", "robot", "format", "custom"), wantErr: []string{`token-key: "" ` + key}},
		"an invalid key":                  {in: annotations("service-account", "robot", "format", "custom", "token-key", "a/b"), wantErr: []string{`token-key: "a/b" ` + key}},
		"a key of other data":             {in: annotations("service-account", "robot", "format", "custom", "token-key", "ca.crt"), wantErr: []string{`token-key: "ca.crt" ` + key}},
		"a key in another format":         {in: annotations("service-account", "robot", "token-key", "k"), wantErr: []string{`token-key: is for sakeeper.io/format=custom alone; set that, or remove the annotation`}},
		"no server at all":                {in: annotations("service-account", "robot", "format", "kubeconfig"), wantErr: []string{"server: " + noServer}},
		"a server without TLS":            {in: annotations("service-account", "robot", "format", "kubeconfig", "server", "http://api"), wantErr: []string{`server: "http://api" ` + server}},
		"a server without scheme":         {in: annotations("service-account", "robot", "format", "kubeconfig", "server", "api:6443"), wantErr: []string{`server: "api:6443" ` + server}},
		"an empty server":                 {in: annotations("service-account", "robot", "format", "kubeconfig", "server", ""), inPublic: "https://public", wantErr: []string{`server: "" ` + server}},
		"a server with a password":        {in: annotations("service-account", "robot", "format", "kubeconfig", "server", "https://a:b@api"), wantErr: []string{`server: "https://a:b@api" ` + server}},
		"several problems": {
			in:      annotations("audiences", " ", "lifetime", "x", "format", "custom"),
			wantErr: []string{`service-account: "" ` + account, `audiences: " " ` + audiences, `lifetime: "x" ` + lifetime, `token-key: "" ` + key},
		},
		"a long value":                        {in: annotations("service-account", "robot", "format", long), wantErr: []string{`format: "` + long[:64] + `..." is not one of token, kubeconfig, argocd-cluster, custom`}},
		"a value that may be a token":         {in: annotations("service-account", "robot", "lifetime", "eyJhbGciOi"), wantErr: []string{`lifetime: the value (withheld: it looks like a token) ` + lifetime}},
		"an account name that may be a token": {in: annotations("service-account", "eyJhbGciOi"), wantErr: []string{`service-account: the value (withheld: it looks like a token) ` + account}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got, problems := parse(tc.in, tc.inPublic)
			for i := range problems {
				problems[i] = strings.TrimPrefix(problems[i], "sakeeper.io/")
			}
			if diff := cmp.Diff(tc.wantErr, problems); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
			if len(tc.wantErr) > 0 {
				return
			}
			if diff := cmp.Diff(tc.want, got, cmp.AllowUnexported(tokenSpec{})); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add("robot", "a,b", "24h", "custom", "https://api", "k")
	f.Fuzz(func(t *testing.T, account, audiences, lifetime, format, server, key string) {
		spec, problems := parse(map[string]string{
			api.ServiceAccountAnnotation: account, api.AudiencesAnnotation: audiences, api.LifetimeAnnotation: lifetime,
			api.FormatAnnotation: format, api.ServerAnnotation: server, api.TokenKeyAnnotation: key,
		}, "")
		if len(problems) > 0 {
			return
		}
		data, err := spec.render("t", target{namespace: "n", secret: "s", ca: []byte("c")})
		if err != nil || len(data) != len(spec.keys()) {
			t.Errorf("%+v: %d keys, want %v (%v)", spec, len(data), spec.keys(), err)
		}
		if spec.lifetime < minLifetime || spec.lifetime > maxLifetime {
			t.Errorf("a lifetime of %v", spec.lifetime)
		}
	})
}
