package cabundle_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sakeeper/sakeeper/pkg/cabundle"
)

const mountedCA = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"

func mustRead(t *testing.T, vector string) string {
	t.Helper()
	data, err := os.ReadFile("../keys/testdata/insecure-" + vector + ".pem")
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func mustWrite(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// damage cuts the certificate's DER short; the PEM around it stays good.
func damage(certificate string) string {
	block, _ := pem.Decode([]byte(certificate))
	block.Bytes = block.Bytes[:len(block.Bytes)-1]
	return string(pem.EncodeToMemory(block))
}

func TestBundleIsWhatStandsInTheFile(t *testing.T) {
	one, two := mustRead(t, "p256-certificate"), mustRead(t, "rsa2048-certificate")
	cases := map[string]struct{ in string }{
		"one certificate":                 {one},
		"two certificates":                {one + two},
		"the same certificate twice":      {one + one},
		"text around the certificates":    {"# one\n" + one + "\n\n# two\n" + two + "end"},
		"lines that end in CR LF":         {strings.ReplaceAll(one+two, "\n", "\r\n")},
		"no line break at the end":        {strings.TrimSuffix(one, "\n")},
		"certificates in another order":   {two + one},
		"blank lines before and after it": {"\n\n" + one + "\n\n"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			parsed, err := cabundle.Parse([]byte(tc.in))
			if err != nil {
				t.Fatal(err)
			}
			loaded, err := cabundle.Load(mustWrite(t, tc.in))
			if err != nil {
				t.Fatal(err)
			}
			sum := sha256.Sum256([]byte(tc.in))
			for what, bundle := range map[string]cabundle.Bundle{"Parse": parsed, "Load": loaded} {
				if diff := cmp.Diff(tc.in, string(bundle.PEM())); diff != "" {
					t.Errorf("%s: PEM (-want +got):\n%s", what, diff)
				}
				if diff := cmp.Diff(sum, bundle.Sum()); diff != "" {
					t.Errorf("%s: sum (-want +got):\n%s", what, diff)
				}
				if diff := cmp.Diff(hex.EncodeToString(sum[:]), bundle.Fingerprint()); diff != "" {
					t.Errorf("%s: fingerprint (-want +got):\n%s", what, diff)
				}
			}
			if !parsed.Equal(loaded) {
				t.Error("the bundles of Parse and Load are not equal")
			}
		})
	}
}

// What Parse refuses, Load refuses with the flag and the file before it.
func TestBadBundlesAreRefused(t *testing.T) {
	certificate, key := mustRead(t, "p256-certificate"), mustRead(t, "p256-sec1")
	cases := map[string]struct {
		in   string
		want string
	}{
		"an empty file":                       {"", "holds no usable certificate: "},
		"text that is not PEM":                {"this text is no certificate", "holds no usable certificate: "},
		"a private key instead":               {key, "holds no usable certificate: "},
		"a public key instead":                {mustRead(t, "p256-public"), "holds no usable certificate: "},
		"a certificate and a private key":     {certificate + key, "holds 2 PEM blocks, of which only 1 are certificates"},
		"a private key and a certificate":     {key + certificate, "holds 2 PEM blocks, of which only 1 are certificates"},
		"a damaged certificate":               {damage(certificate), "holds no usable certificate: "},
		"a damaged one before a good one":     {damage(certificate) + certificate, "holds no usable certificate: "},
		"a damaged one after a good one":      {certificate + damage(certificate), "holds no usable certificate: "},
		"broken base64 before a good one":     {strings.Replace(certificate, "MII", "!!!", 1) + certificate, "holds 2 PEM blocks, of which only 1 are certificates"},
		"broken base64 after a good one":      {certificate + strings.Replace(certificate, "MII", "!!!", 1), "holds 2 PEM blocks, of which only 1 are certificates"},
		"no END line after a good one":        {certificate + strings.TrimSuffix(certificate, "-----END CERTIFICATE-----\n"), "holds 2 PEM blocks, of which only 1 are certificates"},
		"a certificate with PEM headers":      {strings.Replace(certificate, "-----\n", "-----\nName: value\n\n", 1), "holds no usable certificate: "},
		"a certificate of a type that is not": {strings.ReplaceAll(certificate, "CERTIFICATE", "TRUSTED CERTIFICATE"), "holds no usable certificate: "},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := cabundle.Parse([]byte(tc.in))
			if err == nil {
				t.Fatal("Parse: no error")
			}
			if !strings.HasPrefix(err.Error(), tc.want) {
				t.Errorf("Parse: error %q, want %q", err, tc.want)
			}
			for line := range strings.Lines(tc.in) {
				if line = strings.TrimSpace(line); len(line) > 10 && strings.Contains(err.Error(), line) {
					t.Errorf("Parse: error %q holds a line of the input", err)
				}
			}
			path := mustWrite(t, tc.in)
			_, loadErr := cabundle.Load(path)
			if want := "--root-ca-file: " + path + ": " + err.Error(); loadErr == nil || loadErr.Error() != want {
				t.Errorf("Load: error %v, want %q", loadErr, want)
			}
		})
	}
}

// A file that lost the first line of a certificate must not pass for a file with
// fewer certificates.
func TestACertificateWithoutItsBeginLineIsRefused(t *testing.T) {
	certificate := mustRead(t, "p256-certificate")
	for _, in := range []string{strings.TrimPrefix(certificate, "-") + certificate, certificate + strings.TrimPrefix(certificate, "-")} {
		if _, err := cabundle.Parse([]byte(in)); err == nil {
			t.Error("took 1 of 2 certificates and reported nothing")
		}
	}
}

func TestLoadRefusesPathsByName(t *testing.T) {
	dir := t.TempDir()
	missing := filepath.Join(dir, "missing.crt")
	const published = " is the CA that is published, not its source: name the cluster's own CA file"
	cases := map[string]struct{ in, want string }{
		"no path":                       {"", "--root-ca-file: open : no such file or directory"},
		"a missing file":                {missing, "--root-ca-file: open " + missing + ": no such file or directory"},
		"a directory":                   {dir, "--root-ca-file: read " + dir + ": is a directory"},
		"the mounted CA":                {mountedCA, "--root-ca-file: " + mountedCA + published},
		"any file that is mounted":      {filepath.Dir(mountedCA) + "/..data/other", "--root-ca-file: " + filepath.Dir(mountedCA) + "/..data/other" + published},
		"the mounted CA in other words": {"/var//run/../run/secrets/./kubernetes.io/serviceaccount/ca.crt", "--root-ca-file: /var//run/../run/secrets/./kubernetes.io/serviceaccount/ca.crt" + published},
		"a neighbour of the mount":      {"/var/run/secrets/kubernetes.io/serviceaccount-2/ca.crt", "--root-ca-file: open /var/run/secrets/kubernetes.io/serviceaccount-2/ca.crt: no such file or directory"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			bundle, err := cabundle.Load(tc.in)
			if err == nil || err.Error() != tc.want {
				t.Errorf("error %v, want %q", err, tc.want)
			}
			if bundle.PEM() != nil {
				t.Error("a bundle came with the error")
			}
		})
	}
}

func TestLoadRefusesARelativePathToTheMountedCA(t *testing.T) {
	t.Chdir(t.TempDir())
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	relative, err := filepath.Rel(wd, mountedCA)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cabundle.Load(relative); err == nil || !strings.Contains(err.Error(), "is the CA that is published") {
		t.Errorf("%s was not refused as the published CA: %v", relative, err)
	}
}

func TestBundleIsNotChangedThroughTheInput(t *testing.T) {
	data := []byte(mustRead(t, "p256-certificate"))
	want := bytes.Clone(data)
	bundle, err := cabundle.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	clear(data)
	if !bytes.Equal(want, bundle.PEM()) {
		t.Error("PEM changed with the slice that was parsed, Sum did not")
	}
}

func TestEqualComparesBytes(t *testing.T) {
	certificate := mustRead(t, "p256-certificate")
	a, err := cabundle.Parse([]byte(certificate))
	if err != nil {
		t.Fatal(err)
	}
	same, err := cabundle.Parse([]byte(certificate))
	if err != nil {
		t.Fatal(err)
	}
	longer, err := cabundle.Parse([]byte(certificate + "\n"))
	if err != nil {
		t.Fatal(err)
	}
	if !a.Equal(same) {
		t.Error("equal bytes are not equal")
	}
	if a.Equal(longer) {
		t.Error("a line break more is equal")
	}
	if a.Equal(cabundle.Bundle{}) {
		t.Error("no bundle is equal to one")
	}
}
