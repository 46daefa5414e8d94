package controllers

import (
	"strings"
	"testing"
	"time"

	"github.com/sakeeper/sakeeper/cmd/sakeeper/internal/cmdtest"
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
