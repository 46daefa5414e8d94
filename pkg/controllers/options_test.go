package controllers

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"k8s.io/client-go/rest"

	"github.com/sakeeper/sakeeper/pkg/controllers/tokengeneration"
	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/testkit/leaks"
)

func TestMain(m *testing.M) {
	// Connections stay open until they have been idle for a while.
	leaks.Main(m, goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"), goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"),
		goleak.IgnoreAnyFunction("golang.org/x/net/http2.(*clientConnReadLoop).run"))
}

// complete are options that New takes.
func complete() Options {
	return Options{
		Config: &rest.Config{Host: "https://127.0.0.1:1"},
		Keys:   KeySet(testkit.Keys("p256")),
		RootCA: CABytes(testkit.Bundle().PEM()),
	}
}

func TestNewReturnsAllProblemsTogether(t *testing.T) {
	cases := map[string]struct {
		in   func(*Options)
		want []string // a part of each problem
	}{
		"complete options": {in: func(*Options) {}},
		"nothing at all": {
			in:   func(o *Options) { *o = Options{} },
			want: []string{"Config is required", "Keys is required by the serviceaccount-token-controller", "RootCA is required"},
		},
		"controllers that do not exist": {
			in:   func(o *Options) { o.Controllers = []string{"*", "tokens", "-*"} },
			want: []string{`"tokens" is not a controller`, `"-*" is not a controller`},
		},
		"no controller": {
			in:   func(o *Options) { o.Controllers = []string{"-serviceaccount-controller"} },
			want: []string{"turns no controller on"},
		},
		"no keys where no controller makes tokens": {
			in: func(o *Options) {
				o.Keys, o.Controllers = nil, []string{"*", "-serviceaccount-token-controller"}
			},
		},
		"no keys where tokens are generated": {
			in: func(o *Options) {
				o.Keys, o.Controllers = nil, []string{"*", "-serviceaccount-token-controller"}
				o.TokenGeneration.Mode = tokengeneration.ModeAll
			},
			want: []string{"Keys is required"},
		},
		"no root CA where no controller needs it": {
			in: func(o *Options) { o.Keys, o.RootCA, o.Controllers = nil, nil, []string{"serviceaccount-controller"} },
		},
		"negative numbers": {
			in: func(o *Options) {
				o.TokenSecret.Workers, o.TokenSecret.ResignQPS, o.TokenCleaner.Interval = -1, -1, -1
				o.TokenInventory.Interval = -1
			},
			want: []string{"TokenSecret.Workers: -1", "TokenSecret.ResignQPS: -1", "TokenCleaner: Period and Interval", "TokenInventory.Interval: -1ns is negative"},
		},
		"values that do not exist": {
			in: func(o *Options) {
				o.TokenSecret.Resign, o.TokenGeneration.Mode, o.TokenRequest.PublicServer = "some", "some", "ftp://server"
			},
			want: []string{`TokenSecret.Resign: "some"`, `TokenGeneration.Mode: "some"`, `TokenRequest.PublicServer: "ftp://server"`},
		},
		"names that no ServiceAccount can have": {
			in:   func(o *Options) { o.ServiceAccount.Names = []string{"default", "Robot"} },
			want: []string{`ServiceAccount.Names: "Robot"`},
		},
		"names that no namespace can have": {
			in: func(o *Options) {
				o.PullSecretCopy.SourceNamespaces, o.PullSecretCopy.TargetNamespaces = []string{"a", "b.c"}, []string{"D"}
			},
			want: []string{`PullSecretCopy: "b.c"`, `PullSecretCopy: "D"`},
		},
		"an empty list of names": {
			in:   func(o *Options) { o.ServiceAccount.Names = []string{} },
			want: []string{"ServiceAccount.Names is empty"},
		},
		"a host that is none": {
			in:   func(o *Options) { o.Config.Host = "https://[" },
			want: []string{"Config: "},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			in := complete()
			tc.in(&in)
			suite, err := New(in)
			if len(tc.want) == 0 {
				if err != nil || suite == nil {
					t.Fatalf("got %v", err)
				}
				return
			}
			if err == nil {
				t.Fatal("no error")
			}
			lines := strings.Split(err.Error(), "\n")
			if len(lines) != len(tc.want) {
				t.Fatalf("got %d problems, want %d:\n%v", len(lines), len(tc.want), err)
			}
			for i, want := range tc.want {
				if !strings.Contains(lines[i], want) {
					t.Errorf("got %q, want it to contain %q", lines[i], want)
				}
			}
		})
	}
}

func TestNewLeavesTheOptionsOfTheCallerAlone(t *testing.T) {
	in := complete()
	if _, err := New(in); err != nil {
		t.Fatal(err)
	}
	if in.Config.QPS != 0 || in.Config.UserAgent != "" || in.Config.ContentType != "" {
		t.Errorf("changed: %v", in.Config)
	}
}

func TestEnabled(t *testing.T) {
	all := []string{"legacy-serviceaccount-token-cleaner-controller", "root-ca-certificate-publisher-controller", "serviceaccount-controller", "serviceaccount-token-controller"}
	cases := map[string]struct {
		in   []string
		mode tokengeneration.Mode
		want []string
	}{
		"nothing means all but those that are off by default": {want: all},
		"so does a star":                              {in: []string{"*"}, want: all},
		"token generation has a mode of its own":      {mode: tokengeneration.ModeLabelled, want: append([]string{"token-generation-controller"}, all...)},
		"one is turned off":                           {in: []string{"*", "-root-ca-certificate-publisher-controller"}, want: []string{all[0], all[2], all[3]}},
		"one is turned on":                            {in: []string{"*", "token-request-controller"}, want: append([]string{"token-request-controller"}, all...)},
		"one alone, by the name that it had formerly": {in: []string{"serviceaccount-token"}, want: []string{"serviceaccount-token-controller"}},
		"the first entry for a controller decides":    {in: []string{"-serviceaccount-controller", "serviceaccount", "*"}, want: []string{all[0], all[1], all[3]}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			enabled, err := Options{Controllers: tc.in, TokenGeneration: TokenGenerationOptions{Mode: tc.mode}}.Enabled()
			if err != nil {
				t.Fatal(err)
			}
			want := map[string]bool{}
			for _, name := range tc.want {
				want[name] = true
			}
			if diff := cmp.Diff(want, enabled); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}
