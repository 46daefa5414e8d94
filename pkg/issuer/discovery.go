package issuer

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/sakeeper/sakeeper/pkg/keys"
)

// The paths of the two documents below the URL of the issuer, as in kube-apiserver.
const (
	ConfigPath = "/.well-known/openid-configuration"
	JWKSPath   = "/openid/v1/jwks"
)

// Discovery makes the discovery document and the JWKS of an issuer. Its methods may be called
// concurrently.
type Discovery struct {
	// Issuer and JWKSURI are https URLs. Required.
	Issuer, JWKSURI string
	// Keys returns the current keys. Required, and safe for concurrent use.
	Keys func() *keys.Set
	// MaxAge is how long clients may cache the documents, in whole seconds. Zero: they must ask
	// each time.
	MaxAge time.Duration
}

const https = "https"

// Check returns an error if kube-apiserver would not serve discovery for these URLs.
func (d Discovery) Check() error {
	issuer, err := url.Parse(d.Issuer)
	switch {
	case err != nil || issuer.Scheme != https || issuer.RawQuery != "" || issuer.Fragment != "":
		return fmt.Errorf("issuer %q is not an https URL without query and fragment, which discovery needs", d.Issuer)
	case d.JWKSURI == "":
		return fmt.Errorf("issuer %q: the URL of its JWKS is required", d.Issuer)
	}
	if jwks, err := url.Parse(d.JWKSURI); err != nil || jwks.Scheme != https {
		return fmt.Errorf("URL of the JWKS %q is not an https URL", d.JWKSURI)
	}
	return nil
}

// configDocument has its fields in the order of kube-apiserver.
type configDocument struct {
	Issuer        string   `json:"issuer"`
	JWKSURI       string   `json:"jwks_uri"`
	ResponseTypes []string `json:"response_types_supported"`
	SubjectTypes  []string `json:"subject_types_supported"`
	Algorithms    []string `json:"id_token_signing_alg_values_supported"`
}

// config is the document at [ConfigPath].
func (d Discovery) config() ([]byte, error) {
	var algorithms []string
	for _, key := range d.Keys().Published() {
		algorithms = append(algorithms, string(key.Algorithm()))
	}
	slices.Sort(algorithms)
	return json.Marshal(configDocument{
		Issuer: d.Issuer, JWKSURI: d.JWKSURI, ResponseTypes: []string{"id_token"}, SubjectTypes: []string{"public"},
		Algorithms: slices.Compact(algorithms),
	})
}

// jwks is the document at [JWKSPath].
func (d Discovery) jwks() ([]byte, error) { return json.Marshal(d.Keys().JWKS()) }

// Register serves both documents on mux, at their paths, to every client: they are public.
func (d Discovery) Register(mux *http.ServeMux) {
	serve := func(path, contentType string, document func() ([]byte, error)) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) {
			content, err := document()
			if err != nil {
				http.Error(w, "the document cannot be made", http.StatusInternalServerError)
				return
			}
			w.Header().Set("Content-Type", contentType)
			w.Header().Set("Cache-Control", "public, max-age="+strconv.Itoa(int(d.MaxAge/time.Second)))
			_, _ = w.Write(content)
		})
	}
	serve(ConfigPath, "application/json", d.config)
	serve(JWKSPath, "application/jwk-set+json", d.jwks)
}

// Export writes both documents to files below dir, at their paths, for a web server or a
// bucket. Each file is replaced by a rename, so readers never see half of it. The JWKS is
// written first, so that the discovery document never names a JWKS that does not exist.
func (d Discovery) Export(dir string) error {
	for _, document := range []struct {
		path string
		make func() ([]byte, error)
	}{{JWKSPath, d.jwks}, {ConfigPath, d.config}} {
		content, err := document.make()
		if err != nil {
			return err
		}
		if err := writeFile(filepath.Join(dir, filepath.FromSlash(document.path)), content); err != nil {
			return fmt.Errorf("export discovery: %w", err)
		}
	}
	return nil
}

func writeFile(path string, content []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // its files are public
		return err
	}
	part, err := os.CreateTemp(filepath.Dir(path), ".new-")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(part.Name()) }()
	_, err = part.Write(content)
	if closeErr := part.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Chmod(part.Name(), 0o644) //nolint:gosec // it is public
	}
	if err == nil {
		err = os.Rename(part.Name(), path)
	}
	return err
}
