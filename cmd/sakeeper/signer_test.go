package main

import (
	"context"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sakeeper/sakeeper/pkg/keys"
	"github.com/sakeeper/sakeeper/pkg/signer"
	"github.com/sakeeper/sakeeper/pkg/token"
)

// signerCommand is the config of sakeeper signer.
func (f files) signerCommand(t *testing.T, args ...string) (*signerConfig, error) {
	t.Helper()
	return configOf(t, f, newSignerCommand, args...)
}

func TestSignerOptions(t *testing.T) {
	f := newFiles(t)
	const key = "--service-account-private-key-file=%/good.key"
	mustNil(t, os.Mkdir(f.path("kubeadm"), 0o700))
	mustNil(t, os.WriteFile(f.path("kubeadm/sa.key"), []byte("a key"), 0o600))
	cases := map[string]struct {
		in   []string
		want []string // the beginnings of the error's lines
	}{
		"a key":                 {in: []string{key}},
		"no key":                {want: []string{"--key-dir or --service-account-private-key-file is required"}},
		"both sources":          {in: []string{key, "--key-dir=%/kubeadm"}, want: []string{"--key-dir excludes --service-account-private-key-file and --service-account-key-file: ", "--key-dir: %/kubeadm: sa.key: is not named "}},
		"an illegal directory":  {in: []string{"--key-dir=%/kubeadm"}, want: []string{"--key-dir: %/kubeadm: sa.key: is not named "}},
		"the socket of another": {in: []string{key, "--socket=/s", "--legacy-socket=/s"}, want: []string{"--legacy-socket: is the same as --socket"}},
		"everything that can be wrong, at once": {
			in: []string{"--socket=", "--legacy-socket=/s", "--socket-mode=1777", "--socket-group=no such group", "--refresh-hint=1500ms", "--max-token-expiration=59m", "--metrics-bind-address=x", "--service-account-private-key-file=%/garbage"},
			want: []string{
				`--metrics-bind-address: "x"`, "--socket is required", "--socket-mode: 01777 is not between 0 and 0777", "--refresh-hint: 1.5s is not a whole number of seconds, at least 1s",
				"--max-token-expiration: 59m0s is not a whole number of seconds, at least 1h0m0s", `--socket-group: there is no group "no such group"`, "--service-account-private-key-file: %/garbage: ",
			},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := f.signerCommand(t, tc.in...)
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
	if _, err := f.signerCommand(t, key, "--socket-mode=rw"); err == nil || !strings.Contains(err.Error(), `"rw" is not an octal number`) {
		t.Errorf("a mode in letters: %v", err)
	}
}

// TestSignerProcess is a signer with controllers' options on its legacy socket.
func TestSignerProcess(t *testing.T) {
	f := newFiles(t)
	cfg, err := f.signerCommand(t, "--service-account-private-key-file=%/good.key", "--socket=%/s", "--legacy-socket=%/l", "--metrics-bind-address=0", "--health-probe-bind-address=0")
	mustNil(t, err)
	p, err := newSignerProcess(t.Context(), cfg)
	mustNil(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 2)
	go func() { done <- p.server.Serve(ctx, p.main) }()
	go func() { done <- p.server.ServeLegacy(ctx, p.legacy) }()

	probe := func() (int, string) {
		recorder := httptest.NewRecorder()
		p.probesHandler().ServeHTTP(recorder, httptest.NewRequestWithContext(t.Context(), "GET", "/livez", nil))
		return recorder.Code, recorder.Body.String()
	}
	if code, text := probe(); code != 200 || text != "[+] socket: ok\n[+] legacy socket: ok\n" {
		t.Errorf("%d %s", code, text)
	}
	controllers, err := f.command(t, "--service-account-signing-endpoint=%/l", "--root-ca-file=%/good.crt")
	mustNil(t, err)
	compact, err := controllers.signs.SignLegacy(t.Context(), token.LegacyClaims{Namespace: "a", SecretName: "b", ServiceAccountName: "c", ServiceAccountUID: "d"})
	mustNil(t, err)
	if _, err := token.NewVerifier(cfg.keys.Get).VerifyLegacy(compact); err != nil {
		t.Error(err)
	}
	if client, ok := controllers.keys.(*signer.Client); !ok || !client.Get().Equal(keys.NewSet(cfg.keys.Get().Signing())) {
		t.Errorf("the controllers have the keys of %T", controllers.keys)
	} else {
		mustNil(t, client.Close())
	}
	mustNil(t, os.Remove(f.path("l")))
	if code, text := probe(); code != 503 || !strings.Contains(text, "[-] legacy socket: fetch keys: signer at "+f.path("l")+": ") {
		t.Errorf("without its file: %d %s", code, text)
	}
	cancel()
	mustNil(t, <-done)
	mustNil(t, <-done)
}

func TestControllersAndASigningEndpoint(t *testing.T) {
	f := newFiles(t)
	cases := map[string]struct {
		in   []string
		want string
	}{
		"nobody serves it":       {[]string{"--service-account-signing-endpoint=%/missing", "--root-ca-file=%/good.crt"}, "--service-account-signing-endpoint: fetch keys: signer at %/missing: Unavailable: "},
		"a key beside it":        {[]string{"--service-account-signing-endpoint=%/missing", "--root-ca-file=%/good.crt", "--service-account-private-key-file=%/good.key"}, "--service-account-signing-endpoint excludes --service-account-private-key-file, --service-account-key-file and --key-dir: the signer has the keys"},
		"a key file beside dirs": {[]string{"--key-dir=%/missing", "--root-ca-file=%/good.crt", "--service-account-key-file=%/public.key"}, "--key-dir excludes --service-account-private-key-file and --service-account-key-file: "},
		"a missing directory":    {[]string{"--key-dir=%/missing", "--root-ca-file=%/good.crt"}, "--key-dir: %/missing: no such file or directory"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			_, err := f.command(t, tc.in...)
			if err == nil || !strings.HasPrefix(strings.ReplaceAll(err.Error(), string(f), "%"), tc.want) {
				t.Errorf("got %v, want %s", err, tc.want)
			}
			t.Logf("after %v", time.Since(start))
		})
	}
}
