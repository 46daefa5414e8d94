package tokenrequest

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sakeeper/sakeeper/pkg/api"
)

// settings are annotations by their names without the prefix.
func settings(pairs ...string) map[string]string {
	annotations := map[string]string{}
	for i := 0; i < len(pairs); i += 2 {
		annotations["sakeeper.io/"+pairs[i]] = pairs[i+1]
	}
	return annotations
}

func TestParse(t *testing.T) {
	const (
		audiences = "has an empty audience or a blank; separate audiences by commas alone, or remove the annotation for the API server's own"
		lifetime  = "is not a duration from 10m to 1193046h, such as 24h"
		key       = "is not a key for the token; set it to one of letters, digits, '-', '_' and '.', other than ca.crt and namespace"
		server    = "is not the URL of an API server, such as https://api.example.com:6443"
		noServer  = "is required by sakeeper.io/format=kubeconfig while the controller has no --public-server; set it to the URL of the API server, such as https://api.example.com:6443"
		account   = "is not the name of a ServiceAccount; set it to one in this namespace"
	)
	plain := asked{account: "robot", lifetime: 24 * time.Hour, format: formatToken, tokenKey: "token"}
	with := func(change func(*asked)) asked { a := plain; change(&a); return a }
	long := strings.Repeat("x", 100)
	cases := map[string]struct {
		in       map[string]string
		inPublic string
		want     asked
		wantErr  []string
	}{
		"the account alone": {in: settings("service-account", "robot"), want: plain},
		"everything": {in: settings("service-account", "robot", "audiences", "a,b:c", "lifetime", "90m", "format", "custom", "token-key", "password"), want: with(func(a *asked) {
			a.audiences, a.lifetime, a.format, a.tokenKey = []string{"a", "b:c"}, 90*time.Minute, "custom", "password"
		})},
		"the shortest lifetime": {in: settings("service-account", "robot", "lifetime", "10m"), want: with(func(a *asked) { a.lifetime = 10 * time.Minute })},
		"the longest lifetime":  {in: settings("service-account", "robot", "lifetime", "4294967296s"), want: with(func(a *asked) { a.lifetime = (1 << 32) * time.Second })},
		"parts of seconds":      {in: settings("service-account", "robot", "lifetime", "600.9s"), want: with(func(a *asked) { a.lifetime = 10 * time.Minute })},
		"another format is no user of the server": {
			in: settings("service-account", "robot", "server", "nonsense"), inPublic: "https://public", want: plain,
		},
		"the public server": {
			in: settings("service-account", "robot", "format", "kubeconfig"), inPublic: "https://public",
			want: with(func(a *asked) { a.format, a.server, a.tokenKey = "kubeconfig", "https://public", "" }),
		},
		"a server of its own": {
			in: settings("service-account", "robot", "format", "argocd-cluster", "server", "https://own:1/path"), inPublic: "https://public",
			want: with(func(a *asked) { a.format, a.server, a.tokenKey = "argocd-cluster", "https://own:1/path", "" }),
		},

		"no account":               {in: settings(), wantErr: []string{`service-account: "" ` + account}},
		"a bad account":            {in: settings("service-account", "Robot!"), wantErr: []string{`service-account: "Robot!" ` + account}},
		"an account elsewhere":     {in: settings("service-account", "team/robot"), wantErr: []string{`service-account: "team/robot" ` + account}},
		"an empty audience":        {in: settings("service-account", "robot", "audiences", ""), wantErr: []string{`audiences: "" ` + audiences}},
		"a comma at the end":       {in: settings("service-account", "robot", "audiences", "a,"), wantErr: []string{`audiences: "a," ` + audiences}},
		"a blank":                  {in: settings("service-account", "robot", "audiences", "a, b"), wantErr: []string{`audiences: "a, b" ` + audiences}},
		"no duration":              {in: settings("service-account", "robot", "lifetime", "1d"), wantErr: []string{`lifetime: "1d" ` + lifetime}},
		"an empty duration":        {in: settings("service-account", "robot", "lifetime", ""), wantErr: []string{`lifetime: "" ` + lifetime}},
		"too short":                {in: settings("service-account", "robot", "lifetime", "9m59s"), wantErr: []string{`lifetime: "9m59s" ` + lifetime}},
		"negative":                 {in: settings("service-account", "robot", "lifetime", "-24h"), wantErr: []string{`lifetime: "-24h" ` + lifetime}},
		"a day of infinity":        {in: settings("service-account", "robot", "lifetime", "+Inf"), wantErr: []string{`lifetime: "+Inf" ` + lifetime}},
		"no number":                {in: settings("service-account", "robot", "lifetime", "NaNh"), wantErr: []string{`lifetime: "NaNh" ` + lifetime}},
		"an exponent":              {in: settings("service-account", "robot", "lifetime", "1e2h"), wantErr: []string{`lifetime: "1e2h" ` + lifetime}},
		"longer than a duration":   {in: settings("service-account", "robot", "lifetime", "9999999999h"), wantErr: []string{`lifetime: "9999999999h" ` + lifetime}},
		"a second too long":        {in: settings("service-account", "robot", "lifetime", "4294967297s"), wantErr: []string{`lifetime: "4294967297s" ` + lifetime}},
		"longer than a server can": {in: settings("service-account", "robot", "lifetime", "2000000h"), wantErr: []string{`lifetime: "2000000h" ` + lifetime}},
		"an unknown format":        {in: settings("service-account", "robot", "format", "jks", "token-key", "k"), wantErr: []string{`format: "jks" is not one of token, kubeconfig, argocd-cluster, custom`}},
		"an empty format":          {in: settings("service-account", "robot", "format", ""), wantErr: []string{`format: "" is not one of token, kubeconfig, argocd-cluster, custom`}},
		"custom without a key":     {in: settings("service-account", "robot", "format", "custom"), wantErr: []string{`token-key: "" ` + key}},
		"a key that cannot be":     {in: settings("service-account", "robot", "format", "custom", "token-key", "a/b"), wantErr: []string{`token-key: "a/b" ` + key}},
		"a key that is taken":      {in: settings("service-account", "robot", "format", "custom", "token-key", "ca.crt"), wantErr: []string{`token-key: "ca.crt" ` + key}},
		"a key in another format":  {in: settings("service-account", "robot", "token-key", "k"), wantErr: []string{`token-key: is for sakeeper.io/format=custom alone; set that, or remove the annotation`}},
		"no server at all":         {in: settings("service-account", "robot", "format", "kubeconfig"), wantErr: []string{"server: " + noServer}},
		"a server without TLS":     {in: settings("service-account", "robot", "format", "kubeconfig", "server", "http://api"), wantErr: []string{`server: "http://api" ` + server}},
		"a server without scheme":  {in: settings("service-account", "robot", "format", "kubeconfig", "server", "api:6443"), wantErr: []string{`server: "api:6443" ` + server}},
		"an empty server":          {in: settings("service-account", "robot", "format", "kubeconfig", "server", ""), inPublic: "https://public", wantErr: []string{`server: "" ` + server}},
		"a server with a password": {in: settings("service-account", "robot", "format", "kubeconfig", "server", "https://a:b@api"), wantErr: []string{`server: "https://a:b@api" ` + server}},
		"all that is wrong": {
			in:      settings("audiences", " ", "lifetime", "x", "format", "custom"),
			wantErr: []string{`service-account: "" ` + account, `audiences: " " ` + audiences, `lifetime: "x" ` + lifetime, `token-key: "" ` + key},
		},
		"a long value":          {in: settings("service-account", "robot", "format", long), wantErr: []string{`format: "` + long[:64] + `..." is not one of token, kubeconfig, argocd-cluster, custom`}},
		"what may be a token":   {in: settings("service-account", "robot", "lifetime", "eyJhbGciOi"), wantErr: []string{`lifetime: the value (withheld: it looks like a token) ` + lifetime}},
		"also when it is named": {in: settings("service-account", "eyJhbGciOi"), wantErr: []string{`service-account: the value (withheld: it looks like a token) ` + account}},
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
			if diff := cmp.Diff(tc.want, got, cmp.AllowUnexported(asked{})); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add("robot", "a,b", "24h", "custom", "https://api", "k")
	f.Fuzz(func(t *testing.T, account, audiences, lifetime, format, server, key string) {
		a, problems := parse(map[string]string{
			api.ServiceAccountAnnotation: account, api.AudiencesAnnotation: audiences, api.LifetimeAnnotation: lifetime,
			api.FormatAnnotation: format, api.ServerAnnotation: server, api.TokenKeyAnnotation: key,
		}, "")
		if len(problems) > 0 {
			return
		}
		data, err := a.render("t", place{namespace: "n", secret: "s", ca: []byte("c")})
		if err != nil || len(data) != len(a.keys()) {
			t.Errorf("%+v: %d keys, want %v (%v)", a, len(data), a.keys(), err)
		}
		if a.lifetime < minLifetime || a.lifetime > maxLifetime {
			t.Errorf("a lifetime of %v", a.lifetime)
		}
	})
}
