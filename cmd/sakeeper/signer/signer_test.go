package signer

import (
	"context"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sakeeper/sakeeper/cmd/sakeeper/internal/cmdtest"
	"github.com/sakeeper/sakeeper/pkg/keys"
	"github.com/sakeeper/sakeeper/pkg/signer"
	"github.com/sakeeper/sakeeper/pkg/token"
)

// configOf is the config of sakeeper signer.
func configOf(t *testing.T, f cmdtest.Files, args ...string) (*Config, error) {
	t.Helper()
	return cmdtest.ConfigOf(t, f, NewCommand, args...)
}

func TestSignerOptions(t *testing.T) {
	f := cmdtest.NewFiles(t)
	const key = "--service-account-private-key-file=%/good.key"
	cmdtest.MustNil(t, os.Mkdir(f.Path("kubeadm"), 0o700))
	cmdtest.MustNil(t, os.WriteFile(f.Path("kubeadm/sa.key"), []byte("a key"), 0o600))
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
	if _, err := configOf(t, f, key, "--socket-mode=rw"); err == nil || !strings.Contains(err.Error(), `"rw" is not an octal number`) {
		t.Errorf("a mode in letters: %v", err)
	}
}

// TestSignerProcess is a signer with a client on its legacy socket, as sakeeper controllers is one.
func TestSignerProcess(t *testing.T) {
	f := cmdtest.NewFiles(t)
	cfg, err := configOf(t, f, "--service-account-private-key-file=%/good.key", "--socket=%/s", "--legacy-socket=%/l", "--metrics-bind-address=0", "--health-probe-bind-address=0")
	cmdtest.MustNil(t, err)
	p, err := New(cfg)
	cmdtest.MustNil(t, err)
	cmdtest.MustNil(t, p.listen(t.Context()))
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
	client, err := signer.Dial(t.Context(), f.Path("l"))
	cmdtest.MustNil(t, err)
	compact, err := client.SignLegacy(t.Context(), token.LegacyClaims{Namespace: "a", SecretName: "b", ServiceAccountName: "c", ServiceAccountUID: "d"})
	cmdtest.MustNil(t, err)
	if _, err := token.NewVerifier(cfg.keys.Get).VerifyLegacy(compact); err != nil {
		t.Error(err)
	}
	if !client.Get().Equal(keys.NewSet(cfg.keys.Get().Signing())) {
		t.Error("the client has other keys than the signer")
	}
	cmdtest.MustNil(t, client.Close())
	cmdtest.MustNil(t, os.Remove(f.Path("l")))
	if code, text := probe(); code != 503 || !strings.Contains(text, "[-] legacy socket: fetch keys: signer at "+f.Path("l")+": ") {
		t.Errorf("without its file: %d %s", code, text)
	}
	cancel()
	cmdtest.MustNil(t, <-done)
	cmdtest.MustNil(t, <-done)
}
