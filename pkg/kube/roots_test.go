package kube

import (
	"crypto/x509"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// TestPublicRoots runs a process that finds no CA certificates on its machine.
func TestPublicRoots(t *testing.T) {
	if os.Getenv("WITHOUT_ROOTS") != "" {
		for root := range bundle.Roots() {
			certificate, err := x509.ParseCertificate(root.Certificate)
			if err != nil {
				t.Fatal(err)
			}
			_, before := certificate.Verify(x509.VerifyOptions{})
			UsePublicRoots()
			UsePublicRoots() // again does nothing
			_, after := certificate.Verify(x509.VerifyOptions{})
			t.Logf("before: %t, after: %t", before == nil, after == nil)
			return
		}
	}
	cmd := exec.Command(os.Args[0], "-test.run", "^TestPublicRoots$", "-test.v")
	cmd.Env = append(os.Environ(), "WITHOUT_ROOTS=1", "SSL_CERT_FILE=/nonexistent", "SSL_CERT_DIR=/nonexistent")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "before: false, after: true") {
		t.Errorf("%v: %s", err, out)
	}
}
