package issuer_test

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sakeeper/sakeeper/pkg/issuer"
	"github.com/sakeeper/sakeeper/pkg/keys"
	"github.com/sakeeper/sakeeper/pkg/testkit"
)

func TestDiscovery(t *testing.T) {
	set := testkit.Keys("rsa2048", "p256", "p384", "p521").WithLegacy(testkit.Keys("p256").Signing().PublicKey())
	d := issuer.Discovery{Issuer: "https://issuer", JWKSURI: "https://issuer/openid/v1/jwks", Keys: func() *keys.Set { return set }, MaxAge: time.Hour}
	mux := http.NewServeMux()
	d.Register(mux)
	get := func(path string) *httptest.ResponseRecorder {
		recorder := httptest.NewRecorder()
		mux.ServeHTTP(recorder, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
		return recorder
	}
	config, jwks := get(issuer.ConfigPath), get(issuer.JWKSPath)
	want := `{"issuer":"https://issuer","jwks_uri":"https://issuer/openid/v1/jwks","response_types_supported":["id_token"],"subject_types_supported":["public"],"id_token_signing_alg_values_supported":["ES256","ES384","ES512","RS256"]}`
	if diff := cmp.Diff(want, config.Body.String()); diff != "" {
		t.Errorf("config (-want +got):\n%s", diff)
	}
	for recorder, contentType := range map[*httptest.ResponseRecorder]string{config: "application/json", jwks: "application/jwk-set+json"} {
		if got := recorder.Header(); got.Get("Content-Type") != contentType || got.Get("Cache-Control") != "public, max-age=3600" {
			t.Errorf("headers %v", got)
		}
	}
	dir := t.TempDir()
	for range 2 { // also over existing files
		if err := d.Export(dir); err != nil {
			t.Fatal(err)
		}
	}
	for path, recorder := range map[string]*httptest.ResponseRecorder{issuer.ConfigPath: config, issuer.JWKSPath: jwks} {
		content, err := os.ReadFile(filepath.Join(dir, path))
		if err != nil || string(content) != recorder.Body.String() {
			t.Errorf("%s holds %s, error %v", path, content, err)
		}
	}
	if strings.Count(jwks.Body.String(), `"kid"`) != 4 {
		t.Errorf("JWKS %s", jwks.Body)
	}
	for url, problem := range map[string]string{"http://issuer": "is not an https URL", "https://issuer?a=b": "is not an https URL", "https://issuer#a": "is not an https URL", ":": "is not an https URL"} {
		if err := (issuer.Discovery{Issuer: url, JWKSURI: "https://x"}).Check(); err == nil || !strings.Contains(err.Error(), problem) {
			t.Errorf("%s: %v", url, err)
		}
	}
}
