// Package cabundle reads the root CA file: the certificates with which clients
// verify the API server.
//
// A [Bundle] always holds at least one certificate, and every PEM block of it
// parses. Its bytes are published as they stand in the file, because consumers
// compare and mount them as such.
package cabundle

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"k8s.io/client-go/util/cert"

	"github.com/sakeeper/sakeeper/pkg/api"
)

// Bundle is an immutable CA bundle. The zero Bundle holds no certificate.
type Bundle struct {
	pem []byte
	sum [sha256.Size]byte
}

// Parse checks that data is PEM with at least one certificate and nothing but
// certificates.
func Parse(data []byte) (Bundle, error) {
	if !utf8.Valid(data) {
		return Bundle{}, errors.New("holds bytes that are not UTF-8, which a ConfigMap cannot keep")
	}
	certs, err := cert.ParseCertsPEM(data)
	if err != nil {
		return Bundle{}, fmt.Errorf("holds no usable certificate: %w", err)
	}
	// ParseCertsPEM passes over blocks that it does not know and damaged ones.
	blocks := max(bytes.Count(data, []byte("-----BEGIN ")), bytes.Count(data, []byte("-----END ")))
	if blocks != len(certs) {
		return Bundle{}, fmt.Errorf("holds %d PEM blocks, of which only %d are certificates", blocks, len(certs))
	}
	return Bundle{pem: bytes.Clone(data), sum: sha256.Sum256(data)}, nil
}

// Load reads the file of --root-ca-file; errors name the flag and the file. The
// CA that is mounted into pods is refused: it is what the publisher writes, so a
// wrong one would keep itself alive.
func Load(path string) (Bundle, error) {
	const flag = "--root-ca-file"
	if isMountedServiceAccountFile(path) {
		return Bundle{}, fmt.Errorf("%s: %s is the CA that is published, not its source: name the cluster's own CA file", flag, path)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return Bundle{}, fmt.Errorf("%s: %w", flag, err)
	}
	bundle, err := Parse(data)
	if err != nil {
		return Bundle{}, fmt.Errorf("%s: %s: %w", flag, path, err)
	}
	return bundle, nil
}

func isMountedServiceAccountFile(path string) bool {
	dirs := []string{api.ServiceAccountDir}
	if resolved, err := filepath.EvalSymlinks(api.ServiceAccountDir); err == nil {
		dirs = append(dirs, resolved)
	}
	absolute, err := filepath.Abs(path)
	if err != nil {
		return false
	}
	paths := []string{absolute}
	if resolved, err := filepath.EvalSymlinks(absolute); err == nil {
		paths = append(paths, resolved)
	}
	for _, p := range paths {
		for _, dir := range dirs {
			if strings.HasPrefix(p, dir+string(filepath.Separator)) {
				return true
			}
		}
	}
	return false
}

// PEM is the bundle as it stands in the file. Callers must not change it.
func (b Bundle) PEM() []byte { return b.pem }

// Sum is the SHA-256 of PEM.
func (b Bundle) Sum() [sha256.Size]byte { return b.sum }

// Fingerprint is Sum in hexadecimal, as sha256sum prints it for the file.
func (b Bundle) Fingerprint() string { return hex.EncodeToString(b.sum[:]) }

// Equal tells whether both bundles are the same bytes.
func Equal(a, b Bundle) bool { return a.sum == b.sum }
