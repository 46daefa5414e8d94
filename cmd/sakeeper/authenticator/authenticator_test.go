package authenticator

import (
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sakeeper/sakeeper/cmd/sakeeper/internal/cmdtest"
)

// configOf is the config of sakeeper authenticator.
func configOf(t *testing.T, f cmdtest.Files, args ...string) (*Config, error) {
	t.Helper()
	return cmdtest.ConfigOf(t, f, NewCommand, f.WithKubeconfig(t, args)...)
}

const foreignIssuers = `issuers:
- url: https://b
  usernamePrefix: "b:"
  keyFiles: [%/public.key]
  kubeconfig: %/kubeconfig
- url: https://c
  usernamePrefix: "c:"
  caFile: %/good.crt
  allowUnchecked: true
`

func TestAuthenticatorOptions(t *testing.T) {
	f := cmdtest.NewFiles(t)
	for name, content := range map[string]string{
		"issuers":   foreignIssuers,
		"bad":       "issuers:\n- url: https://issuer\n  usernamePrefix: a\n- {url: http://b, usernamePrefix: b}\n- {url: https://c, keyFiles: [%/public.key]}\n- {url: https://d, usernamePrefix: 'system:d', keyFiles: [%/garbage]}\n- {url: https://e, usernamePrefix: e, caFile: %/garbage}\n",
		"twice":     "issuers:\n- {url: https://b, usernamePrefix: a}\n- {url: https://b, usernamePrefix: b}\n",
		"unknown":   "issuers:\n- {url: https://b, userPrefix: a}\n",
		"noissuers": "issuers: []\n",
	} {
		cmdtest.MustNil(t, os.WriteFile(f.Path(name), []byte(strings.ReplaceAll(content, "%", string(f))), 0o600))
	}
	good := []string{"--service-account-key-file=%/public.key", "--service-account-issuer=https://issuer", "--tls-cert-file=c", "--tls-private-key-file=k"}
	asked := slices.Concat(good, []string{"--client-ca-file=%/good.crt"})
	cases := map[string]struct {
		in   []string
		want []string // the beginnings of the error's lines
	}{
		"discovery alone":  {in: good},
		"a client CA":      {in: asked},
		"foreign issuers":  {in: slices.Concat(asked, []string{"--foreign-issuers-file=%/issuers"})},
		"several issuers":  {in: slices.Concat(good, []string{"--service-account-issuer=https://former"})},
		"nothing":          {want: []string{"--key-dir or --service-account-key-file is required", "--service-account-issuer is required", "--tls-cert-file and --tls-private-key-file are required"}},
		"tracking for all": {in: slices.Concat(good, []string{"--track-legacy-tokens"}), want: []string{"--track-legacy-tokens and --foreign-issuers-file need --client-ca-file: without it /authenticate is off"}},
		"everything that can be wrong, at once": {
			in: []string{
				"--key-dir=%/missing", "--service-account-key-file=%/garbage", "--service-account-issuer=http://issuer", "--discovery-max-age=1500ms", "--bind-address=x", "--secure-port=0",
				"--client-ca-file=%/garbage", "--foreign-issuers-file=%/missing", "--metrics-bind-address=x",
			},
			want: []string{
				`--metrics-bind-address: "x"`, "--key-dir excludes --service-account-key-file", "--discovery-max-age: 1.5s is not a whole number of seconds", "--tls-cert-file and --tls-private-key-file are required",
				`--bind-address: "x" is not an IP address`, "--secure-port: 0 is not between 1 and 65535", "--key-dir: %/missing: ", `--service-account-issuer, --service-account-jwks-uri: issuer "http://issuer" is not an https URL`,
				"--client-ca-file: %/garbage: holds no usable certificate", "--foreign-issuers-file: open %/missing: ",
			},
		},
		"issuers that cannot be": {
			in: slices.Concat(asked, []string{"--foreign-issuers-file=%/bad"}),
			want: []string{
				`--foreign-issuers-file: %/bad: issuer "https://issuer": is there twice, or is that of this cluster`, `--foreign-issuers-file: %/bad: issuer "http://b": issuer "http://b": is not an https URL`,
				`--foreign-issuers-file: %/bad: issuer "https://c": usernamePrefix is required`, `--foreign-issuers-file: %/bad: issuer "https://d": --service-account-key-file: %/garbage: holds no PEM block`,
				`--foreign-issuers-file: %/bad: issuer "https://e": caFile: %/garbage: holds no usable certificate`,
			},
		},
		"an issuer twice":     {in: slices.Concat(asked, []string{"--foreign-issuers-file=%/twice"}), want: []string{`--foreign-issuers-file: %/twice: issuer "https://b": is there twice, or is that of this cluster`}},
		"an unknown field":    {in: slices.Concat(asked, []string{"--foreign-issuers-file=%/unknown"}), want: []string{`--foreign-issuers-file: %/unknown: error unmarshaling JSON: while decoding JSON: json: unknown field "userPrefix"`}},
		"a file with nothing": {in: slices.Concat(asked, []string{"--foreign-issuers-file=%/noissuers"}), want: []string{"--foreign-issuers-file: %/noissuers: holds no issuers"}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := configOf(t, f, tc.in...)
			var got []string
			if err != nil {
				got = strings.Split(err.Error(), "\n")
			}
			for i := range got {
				got[i] = strings.ReplaceAll(got[i], string(f), "%")
				if i < len(tc.want) && strings.HasPrefix(got[i], tc.want[i]) {
					got[i] = tc.want[i]
				}
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestExportDiscovery(t *testing.T) {
	f := cmdtest.NewFiles(t)
	cfg, err := configOf(t, f, "--service-account-key-file=%/public.key", "--service-account-issuer=https://issuer", "--export-discovery=%/bucket")
	cmdtest.MustNil(t, err)
	if cfg != nil {
		t.Error("it was started too")
	}
	content, err := os.ReadFile(f.Path("bucket/.well-known/openid-configuration"))
	cmdtest.MustNil(t, err)
	want := `{"issuer":"https://issuer","jwks_uri":"https://issuer/openid/v1/jwks","response_types_supported":["id_token"],"subject_types_supported":["public"],"id_token_signing_alg_values_supported":["ES256"]}`
	if diff := cmp.Diff(want, string(content)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if content, err := os.ReadFile(f.Path("bucket/openid/v1/jwks")); err != nil || !strings.HasPrefix(string(content), `{"keys":[{"use":"sig","kty":"EC",`) {
		t.Errorf("%s, %v", content, err)
	}
}

func TestReviewsAreOffWithoutAClientCA(t *testing.T) {
	f := cmdtest.NewFiles(t)
	f.WriteServingCertificate(t, "localhost")
	for with, want := range map[bool]int{false: http.StatusNotFound, true: http.StatusUnauthorized} {
		args := []string{"--service-account-key-file=%/public.key", "--service-account-issuer=https://issuer", "--tls-cert-file=%/tls.crt", "--tls-private-key-file=%/tls.key"}
		if with {
			args = append(args, "--client-ca-file=%/good.crt", "--foreign-issuers-file=%/issuers", "--track-legacy-tokens")
			cmdtest.MustNil(t, os.WriteFile(f.Path("issuers"), []byte(strings.ReplaceAll(foreignIssuers, "%", string(f))), 0o600))
		}
		cfg, err := configOf(t, f, args...)
		cmdtest.MustNil(t, err)
		p, err := New(cfg)
		cmdtest.MustNil(t, err)
		recorder := httptest.NewRecorder()
		p.handler.ServeHTTP(recorder, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/authenticate", nil))
		if recorder.Code != want {
			t.Errorf("with a client CA %t: %d, want %d", with, recorder.Code, want)
		}
	}
}
