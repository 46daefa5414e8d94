// Package cabundle reads files with CA certificates, such as the root CA file, with whose
// certificates clients verify the API server.
//
// A parsed [Bundle] holds at least one certificate, and nothing but certificates. Its bytes
// are published exactly as they are in the file.
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

// Bundle is an immutable CA bundle. The zero value holds no certificate. It is safe for
// concurrent use.
type Bundle struct {
	pem []byte
	sum [sha256.Size]byte
}

// Parse returns data as a bundle. It returns an error if data is not UTF-8, or not PEM with at
// least one certificate and nothing but certificates.
func Parse(data []byte) (Bundle, error) {
	if !utf8.Valid(data) {
		return Bundle{}, errors.New("holds bytes that are not UTF-8, which a ConfigMap cannot keep")
	}
	certs, err := cert.ParseCertsPEM(data)
	if err != nil {
		return Bundle{}, fmt.Errorf("holds no usable certificate: %w", err)
	}
	// ParseCertsPEM skips blocks of unknown types and damaged ones.
	blocks := max(bytes.Count(data, []byte("-----BEGIN ")), bytes.Count(data, []byte("-----END ")))
	if blocks != len(certs) {
		return Bundle{}, fmt.Errorf("holds %d PEM blocks, of which only %d are certificates", blocks, len(certs))
	}
	return Bundle{pem: bytes.Clone(data), sum: sha256.Sum256(data)}, nil
}

// Load reads the file of --root-ca-file. Errors name the flag and the file. A file under the
// mounted service account directory is an error: it is a copy of what is published, so a
// wrong CA would be published again.
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

// isMountedServiceAccountFile returns true if path, or what it links to, is in the service
// account directory of a pod.
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

// PEM returns the content of the file. The caller must not change it.
func (b Bundle) PEM() []byte { return b.pem }

// Sum returns the SHA-256 of [Bundle.PEM].
func (b Bundle) Sum() [sha256.Size]byte { return b.sum }

// Fingerprint returns [Bundle.Sum] in hexadecimal, as sha256sum prints it for the file.
func (b Bundle) Fingerprint() string { return hex.EncodeToString(b.sum[:]) }

// Equal returns true if both bundles have the same bytes.
func (b Bundle) Equal(other Bundle) bool { return b.sum == other.sum }
