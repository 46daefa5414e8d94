package controllers

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sakeeper/sakeeper/cmd/sakeeper/internal/cmdtest"
	"github.com/sakeeper/sakeeper/pkg/keys"
	"github.com/sakeeper/sakeeper/pkg/signer"
	"github.com/sakeeper/sakeeper/pkg/token"
)

func TestControllersAndASigningEndpoint(t *testing.T) {
	f := cmdtest.NewFiles(t)
	cases := map[string]struct {
		in   []string
		want string
	}{
		"no server":              {[]string{"--service-account-signing-endpoint=%/missing", "--root-ca-file=%/good.crt"}, "--service-account-signing-endpoint: fetch keys: signer at %/missing: Unavailable: "},
		"a key beside it":        {[]string{"--service-account-signing-endpoint=%/missing", "--root-ca-file=%/good.crt", "--service-account-private-key-file=%/good.key"}, "--service-account-signing-endpoint excludes --service-account-private-key-file, --service-account-key-file and --key-dir: the signer has the keys"},
		"a key file beside dirs": {[]string{"--key-dir=%/missing", "--root-ca-file=%/good.crt", "--service-account-key-file=%/public.key"}, "--key-dir excludes --service-account-private-key-file and --service-account-key-file: "},
		"a missing directory":    {[]string{"--key-dir=%/missing", "--root-ca-file=%/good.crt"}, "--key-dir: %/missing: no such file or directory"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			_, err := configOf(t, f, tc.in...)
			if err == nil || !strings.HasPrefix(strings.ReplaceAll(err.Error(), string(f), "%"), tc.want) {
				t.Errorf("got %v, want %s", err, tc.want)
			}
			t.Logf("after %v", time.Since(start))
		})
	}
}

// TestASigningEndpointGivesKeysAndSignatures: the controllers keep no key of their own then.
func TestASigningEndpointGivesKeysAndSignatures(t *testing.T) {
	f := cmdtest.NewFiles(t)
	loader, err := keys.Files{PrivateKeyFile: f.Path("good.key")}.Open()
	cmdtest.MustNil(t, err)
	server, err := signer.New(signer.Config{
		Keys: loader.Get, ReadAt: loader.ReadAt, RefreshHint: time.Minute, MaxExpiration: signer.MinExpiration, Metrics: signer.NewMetrics(prometheus.NewRegistry()),
	})
	cmdtest.MustNil(t, err)
	listener, err := signer.Socket{Flag: "--legacy-socket", Path: f.Path("l"), Mode: 0o600, Group: -1}.Listen(t.Context())
	cmdtest.MustNil(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- server.ServeLegacy(ctx, listener) }()

	cfg, err := configOf(t, f, "--service-account-signing-endpoint=%/l", "--root-ca-file=%/good.crt")
	cmdtest.MustNil(t, err)
	compact, err := cfg.signs.SignLegacy(t.Context(), token.LegacyClaims{Namespace: "a", SecretName: "b", ServiceAccountName: "c", ServiceAccountUID: "d"})
	cmdtest.MustNil(t, err)
	if _, err := token.NewVerifier(loader.Get).VerifyLegacy(compact); err != nil {
		t.Error(err)
	}
	if client, ok := cfg.keys.(*signer.Client); !ok || !client.Get().Equal(keys.NewSet(loader.Get().Signing())) {
		t.Errorf("the controllers have the keys of %T", cfg.keys)
	} else {
		cmdtest.MustNil(t, client.Close())
	}
	cancel()
	cmdtest.MustNil(t, <-done)
}
