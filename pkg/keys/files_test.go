package keys_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sakeeper/sakeeper/pkg/keys"
)

func TestFilesLoad(t *testing.T) {
	several := filepath.Join(t.TempDir(), "several.pem")
	content := mustRead(t, "p384-public") + mustRead(t, "rsa2048-public") + mustRead(t, "p521-pkcs8")
	if err := os.WriteFile(several, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	cases := map[string]struct {
		in          keys.Files
		wantSigning string
		want        []string
	}{
		"a private key alone":            {keys.Files{PrivateKeyFile: vectorPath("p256-sec1")}, p256ID, []string{p256ID}},
		"more files, each kept once":     {keys.Files{PrivateKeyFile: vectorPath("rsa2048-pkcs8"), KeyFiles: []string{several, vectorPath("p256-certificate")}}, rsaID, []string{rsaID, p384ID, p521ID, p256ID}},
		"the private key file as both":   {keys.Files{PrivateKeyFile: vectorPath("p521-sec1"), KeyFiles: []string{vectorPath("p521-sec1")}}, p521ID, []string{p521ID}},
		"several private keys to verify": {keys.Files{PrivateKeyFile: vectorPath("p521-sec1"), KeyFiles: []string{vectorPath("p256-pkcs8"), vectorPath("p384-pkcs8")}}, p521ID, []string{p521ID, p256ID, p384ID}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			set, err := tc.in.Load()
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.wantSigning, set.Signing().PublicKey().ID()); diff != "" {
				t.Errorf("signing key (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tc.want, idsOf(set.Verification())); diff != "" {
				t.Errorf("verification keys (-want +got):\n%s", diff)
			}
		})
	}
}

// Each wanted line is one problem; the error has these lines and no other.
func TestFilesLoadReportsEveryBadFile(t *testing.T) {
	dir := t.TempDir()
	missing, good := filepath.Join(dir, "missing.pem"), vectorPath("p256-sec1")
	cases := map[string]struct {
		in   keys.Files
		want []string
	}{
		"no private key file": {
			keys.Files{KeyFiles: []string{good}},
			[]string{"--service-account-private-key-file: open : no such file or directory"},
		},
		"a missing private key file": {
			keys.Files{PrivateKeyFile: missing},
			[]string{"--service-account-private-key-file: open " + missing + ": no such file or directory"},
		},
		"a directory as private key file": {
			keys.Files{PrivateKeyFile: dir},
			[]string{"--service-account-private-key-file: read " + dir + ": is a directory"},
		},
		"a public key as private key file": {
			keys.Files{PrivateKeyFile: vectorPath("p256-public"), KeyFiles: []string{good}},
			[]string{"--service-account-private-key-file: " + vectorPath("p256-public") + ": holds no private key"},
		},
		"a missing file among good ones": {
			keys.Files{PrivateKeyFile: good, KeyFiles: []string{good, missing, vectorPath("p384-public")}},
			[]string{"--service-account-key-file: open " + missing + ": no such file or directory"},
		},
		"all of them bad": {
			keys.Files{PrivateKeyFile: vectorPath("rsa1024-pkcs1"), KeyFiles: []string{missing, vectorPath("ed25519-public"), dir}},
			[]string{
				"--service-account-private-key-file: " + vectorPath("rsa1024-pkcs1") + ": PEM block 1 (RSA PRIVATE KEY): RSA key of 1024 bits",
				"--service-account-key-file: open " + missing + ": no such file or directory",
				"--service-account-key-file: " + vectorPath("ed25519-public") + ": PEM block 1 (PUBLIC KEY): key of type ed25519.PublicKey",
				"--service-account-key-file: read " + dir + ": is a directory",
			},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			set, err := tc.in.Load()
			if err == nil {
				t.Fatal("no error")
			}
			if set != nil {
				t.Error("a set came with the error")
			}
			got := strings.Split(err.Error(), "\n")
			if len(got) != len(tc.want) {
				t.Fatalf("%d problems, want %d:\n%v", len(got), len(tc.want), err)
			}
			for i, want := range tc.want {
				if !strings.HasPrefix(got[i], want) {
					t.Errorf("problem %d is %q, want %q", i+1, got[i], want)
				}
			}
		})
	}
}
