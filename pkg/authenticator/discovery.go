package authenticator

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

// Where discovery is, below the issuer's URL, as kube-apiserver has it.
const (
	ConfigPath = "/.well-known/openid-configuration"
	JWKSPath   = "/openid/v1/jwks"
)

// Discovery makes the two documents of OpenID Connect Discovery 1.0 for an issuer, to the
// byte as kube-apiserver makes them.
type Discovery struct {
	// Issuer and JWKSURI are https URLs. Required.
	Issuer, JWKSURI string
	// Keys are those of the moment. Required.
	Keys func() *keys.Set
	// MaxAge is how long others may keep a copy.
	MaxAge time.Duration
}

const https = "https"

// Check says what kube-apiserver would not serve.
func (d Discovery) Check() error {
	issuer, err := url.Parse(d.Issuer)
	switch {
	case err != nil || issuer.Scheme != https || issuer.RawQuery != "" || issuer.Fragment != "":
		return fmt.Errorf("issuer %q is no https URL without query and fragment, which discovery needs", d.Issuer)
	case d.JWKSURI == "":
		return fmt.Errorf("issuer %q: the URL of its JWKS is required", d.Issuer)
	}
	if jwks, err := url.Parse(d.JWKSURI); err != nil || jwks.Scheme != https {
		return fmt.Errorf("URL of the JWKS %q is no https URL", d.JWKSURI)
	}
	return nil
}

// configDocument has its members in the order of kube-apiserver.
type configDocument struct {
	Issuer        string   `json:"issuer"`
	JWKSURI       string   `json:"jwks_uri"`
	ResponseTypes []string `json:"response_types_supported"`
	SubjectTypes  []string `json:"subject_types_supported"`
	Algorithms    []string `json:"id_token_signing_alg_values_supported"`
}

// Config is the document at [ConfigPath].
func (d Discovery) Config() ([]byte, error) {
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

// JWKS is the document at [JWKSPath].
func (d Discovery) JWKS() ([]byte, error) { return json.Marshal(d.Keys().JWKS()) }

// Register adds both paths. Whoever can connect may read them.
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
	serve(ConfigPath, "application/json", d.Config)
	serve(JWKSPath, "application/jwk-set+json", d.JWKS)
}

// Export writes both documents below a directory, at their paths, for a web server or a
// bucket. Each file is whole at every moment. The JWKS comes first, so that nobody is sent
// to what is not there.
func (d Discovery) Export(dir string) error {
	for _, document := range []struct {
		path string
		make func() ([]byte, error)
	}{{JWKSPath, d.JWKS}, {ConfigPath, d.Config}} {
		content, err := document.make()
		if err != nil {
			return err
		}
		if err := writeWhole(filepath.Join(dir, filepath.FromSlash(document.path)), content); err != nil {
			return fmt.Errorf("export discovery: %w", err)
		}
	}
	return nil
}

func writeWhole(path string, content []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // what is in it is public
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
