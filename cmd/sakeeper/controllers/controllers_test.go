package controllers

import (
	"encoding/base64"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sakeeper/sakeeper/cmd/sakeeper/internal/cmdtest"
	"github.com/sakeeper/sakeeper/pkg/controllers/pullsecretcopy"
	"github.com/sakeeper/sakeeper/pkg/controllers/rootca"
	"github.com/sakeeper/sakeeper/pkg/controllers/serviceaccount"
	"github.com/sakeeper/sakeeper/pkg/controllers/tokencleaner"
	"github.com/sakeeper/sakeeper/pkg/controllers/tokengeneration"
	"github.com/sakeeper/sakeeper/pkg/controllers/tokenrequest"
	"github.com/sakeeper/sakeeper/pkg/controllers/tokensecret"
	"github.com/sakeeper/sakeeper/pkg/testkit"
)

// configOf is the config of sakeeper controllers.
func configOf(t *testing.T, f cmdtest.Files, args ...string) (*Config, error) {
	t.Helper()
	for name, ca := range map[string]string{
		"kubeconfig":              "",
		"kubeconfig-with-ca":      "certificate-authority-data: " + base64.StdEncoding.EncodeToString(testkit.Bundle().PEM()),
		"kubeconfig-with-ca-file": "certificate-authority: good.crt",
		"kubeconfig-with-bad-ca":  "certificate-authority: garbage",
	} {
		cmdtest.MustNil(t, os.WriteFile(f.Path(name), []byte(strings.Replace(cmdtest.Kubeconfig, "server:", strings.TrimPrefix(ca+", server:", ", "), 1)), 0o600))
	}
	return cmdtest.ConfigOf(t, f, NewCommand, append([]string{"--kubeconfig=%/kubeconfig"}, args...)...)
}

func TestTheCommandStartsWithTheConfigOfItsFlags(t *testing.T) {
	f := cmdtest.NewFiles(t)
	good := []string{"--service-account-private-key-file=%/good.key", "--service-account-key-file=%/public.key", "--root-ca-file=%/good.crt"}
	cases := map[string]struct {
		in          []string
		wantEnabled map[string]bool
		wantKeys    bool
		wantCA      bool
	}{
		"all controllers": {
			in:          good,
			wantEnabled: map[string]bool{serviceaccount.Name: true, tokensecret.Name: true, rootca.Name: true, tokencleaner.Name: true}, wantKeys: true,
		},
		"generation has a flag of its own": {
			in:          append(good, "--auto-generate-token-secrets=labelled"),
			wantEnabled: map[string]bool{serviceaccount.Name: true, tokensecret.Name: true, rootca.Name: true, tokencleaner.Name: true, tokengeneration.Name: true}, wantKeys: true,
		},
		"generation needs key and CA by itself": {
			in:          append(good, "--controllers=token-generation", "--auto-generate-token-secrets=all"),
			wantEnabled: map[string]bool{tokengeneration.Name: true}, wantKeys: true,
		},
		"token requests have to be named": {
			in:          append(good, "--controllers=*,token-request-controller", "--token-request-namespaces=*", "--public-server=https://api.example.com"),
			wantEnabled: map[string]bool{serviceaccount.Name: true, tokensecret.Name: true, rootca.Name: true, tokencleaner.Name: true, tokenrequest.Name: true}, wantKeys: true,
		},
		"token requests alone need no key": {
			in:          []string{"--controllers=token-request", "--root-ca-file=%/good.crt"},
			wantEnabled: map[string]bool{tokenrequest.Name: true},
		},
		"and no file where the connection has a CA": {
			in:          []string{"--controllers=token-request", "--kubeconfig=%/kubeconfig-with-ca"},
			wantEnabled: map[string]bool{tokenrequest.Name: true},
		},
		"or names a file of it": {
			in:          []string{"--controllers=token-request", "--kubeconfig=%/kubeconfig-with-ca-file"},
			wantEnabled: map[string]bool{tokenrequest.Name: true},
		},
		"copies of pull secrets alone need neither": {
			in:          []string{"--controllers=pull-secret-copy", "--pull-secret-source-namespaces=registry"},
			wantEnabled: map[string]bool{pullsecretcopy.Name: true},
		},
		"files that no controller needs are not read": {
			in:          []string{"--controllers=serviceaccount-controller", "--service-account-private-key-file=%/missing", "--root-ca-file=%/missing"},
			wantEnabled: map[string]bool{serviceaccount.Name: true},
		},
		"the publisher needs no key": {
			in:          append(good, "--controllers=*,-serviceaccount-token"),
			wantEnabled: map[string]bool{serviceaccount.Name: true, rootca.Name: true, tokencleaner.Name: true},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			cfg, err := configOf(t, f, slices.Clone(tc.in)...)
			cmdtest.MustNil(t, err)
			enabled, err := cfg.options.enabled()
			cmdtest.MustNil(t, err)
			if diff := cmp.Diff(tc.wantEnabled, enabled); diff != "" {
				t.Errorf("enabled (-want +got):\n%s", diff)
			}
			if needsKeys := cfg.options.suite.NeedsKeys(); needsKeys != tc.wantKeys {
				t.Errorf("keys %t", needsKeys)
			}
		})
	}
}

func TestAllBadFilesAreReportedTogether(t *testing.T) {
	f := cmdtest.NewFiles(t)
	const key, ca = "--service-account-private-key-file=%/good.key", "--root-ca-file=%/good.crt"
	cases := map[string]struct {
		in   []string
		want []string // what the lines of the error begin with
	}{
		"a missing key":     {in: []string{"--service-account-private-key-file=%/missing", ca}, want: []string{"--service-account-private-key-file: open %/missing: "}},
		"a directory":       {in: []string{"--service-account-private-key-file=%", ca}, want: []string{"--service-account-private-key-file: read %: is a directory"}},
		"garbage":           {in: []string{"--service-account-private-key-file=%/garbage", ca}, want: []string{"--service-account-private-key-file: %/garbage: holds no PEM block"}},
		"a public key":      {in: []string{"--service-account-private-key-file=%/public.key", ca}, want: []string{"--service-account-private-key-file: %/public.key: holds no private key"}},
		"two keys":          {in: []string{"--service-account-private-key-file=%/two.key", ca}, want: []string{"--service-account-private-key-file: %/two.key: holds 2 private keys"}},
		"a key of no use":   {in: []string{"--service-account-private-key-file=%/edwards.key", ca}, want: []string{"--service-account-private-key-file: %/edwards.key: PEM block 1 (PRIVATE KEY): key of type ed25519"}},
		"a missing CA":      {in: []string{key, "--root-ca-file=%/missing"}, want: []string{"--root-ca-file: open %/missing: "}},
		"a directory as CA": {in: []string{key, "--root-ca-file=%"}, want: []string{"--root-ca-file: read %: is a directory"}},
		"a key as CA":       {in: []string{key, "--root-ca-file=%/good.key"}, want: []string{"--root-ca-file: %/good.key: holds no usable certificate"}},
		"several at once": {
			in: []string{"--kubeconfig=%/missing", "--service-account-private-key-file=%/garbage", "--service-account-key-file=%/missing", "--service-account-key-file=%/edwards.key", "--root-ca-file=%/garbage", "--kube-api-qps=0", "--metrics-bind-address=x"},
			want: []string{
				"--kube-api-qps: 0 ", `--metrics-bind-address: "x" `,
				"--kubeconfig: %/missing: ", "--service-account-private-key-file: %/garbage: ", "--service-account-key-file: open %/missing: ", "--service-account-key-file: %/edwards.key: ", "--root-ca-file: %/garbage: ",
			},
		},
		"what becomes of tokens": {
			in: []string{key, ca, "--resign-tokens=some", "--resign-qps=0", "--legacy-service-account-token-clean-up-period=0s", "--legacy-service-account-token-clean-up-interval=-1h", "--auto-generate-token-secrets=yes"},
			want: []string{
				`--resign-tokens: "some" is not one of never, dead, all`, "--resign-qps: 0 is not positive",
				"--legacy-service-account-token-clean-up-period: 0s is not positive", "--legacy-service-account-token-clean-up-interval: -1h0m0s is not positive",
				`--auto-generate-token-secrets: "yes" is not one of none, labelled, all`,
			},
		},
		"generation without key and CA": {
			in: []string{"--controllers=token-generation-controller", "--auto-generate-token-secrets=all"},
			want: []string{
				"--service-account-private-key-file, --key-dir or --service-account-signing-endpoint is required by the serviceaccount-token-controller; to go without tokens, use --controllers=*,-serviceaccount-token-controller and --auto-generate-token-secrets=none",
				"--root-ca-file is required by ",
			},
		},
		"token requests": {
			in: []string{key, ca, "--controllers=*,token-request-controller", "--token-request-namespaces=some", "--public-server=http://api.example.com"},
			want: []string{
				`--token-request-namespaces: "some" is not one of labelled, *`, `--public-server: "http://api.example.com" is not the URL of an API server, such as https://`,
			},
		},
		"token requests that are off": {
			in:   []string{key, ca, "--token-request-namespaces=*"},
			want: []string{"--token-request-namespaces=* and --public-server are for the token-request-controller, which is off; to turn it on, use --controllers=*,token-request-controller"},
		},
		"copies of pull secrets": {
			in: []string{key, ca, "--controllers=*,pull-secret-copy-controller", "--pull-secret-source-namespaces=a,B", "--pull-secret-target-namespaces=a.b"},
			want: []string{
				`--pull-secret-source-namespaces: "B": `, `--pull-secret-target-namespaces: "a.b": `,
			},
		},
		"copies of pull secrets that are off": {
			in:   []string{key, ca, "--pull-secret-source-namespaces=a"},
			want: []string{"--pull-secret-source-namespaces and --pull-secret-target-namespaces are for the pull-secret-copy-controller, which is off; to turn it on, use --controllers=*,pull-secret-copy-controller"},
		},
		"token requests where nothing tells the CA": {
			in:   []string{"--controllers=token-request"},
			want: []string{"--root-ca-file is required by the token-request-controller, because the connection to the API server names no CA"},
		},
		"token requests with a bad CA of the connection": {
			in:   []string{"--controllers=token-request", "--kubeconfig=%/kubeconfig-with-bad-ca"},
			want: []string{"CA of the connection to the API server: %/garbage: holds no usable certificate"},
		},
		"generation that is off is no controller": {
			in: []string{"--controllers=token-generation-controller"}, want: []string{`--controllers: "token-generation-controller" turns no controller on`},
		},
		"also an unknown controller": {
			in:   []string{"--controllers=*,nonsense", "--service-account-private-key-file=%/garbage", "--root-ca-file=%/garbage", "--concurrent-serviceaccount-token-syncs=0"},
			want: []string{`--controllers: "nonsense" `, "--concurrent-serviceaccount-token-syncs: 0 ", "--service-account-private-key-file: %/garbage: ", "--root-ca-file: %/garbage: "},
		},
		"no file at all names the way out": {
			in: nil,
			want: []string{
				"--service-account-private-key-file, --key-dir or --service-account-signing-endpoint is required by the serviceaccount-token-controller; to go without tokens, use --controllers=*,-serviceaccount-token-controller",
				"--root-ca-file is required by the root-ca-certificate-publisher-controller and the serviceaccount-token-controller; to go without both, use --controllers=*,-root-ca-certificate-publisher-controller,-serviceaccount-token-controller",
			},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			cfg, err := configOf(t, f, append([]string{}, tc.in...)...)
			if err == nil || cfg != nil {
				t.Fatalf("started with %v", cfg)
			}
			lines := strings.Split(err.Error(), "\n")
			for i, line := range lines {
				lines[i] = strings.ReplaceAll(line, string(f), "%")
			}
			begins := func(want, got string) bool { return strings.HasPrefix(got, want) }
			if !slices.EqualFunc(tc.want, lines, begins) {
				t.Errorf("got\n\t%s\nwant\n\t%s", strings.Join(lines, "\n\t"), strings.Join(tc.want, "\n\t"))
			}
		})
	}
}
