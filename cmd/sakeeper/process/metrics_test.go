package process

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"net/http"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/sakeeper/sakeeper/cmd/sakeeper/internal/cmdtest"
	"github.com/sakeeper/sakeeper/pkg/keys"
)

func TestKeyCollector(t *testing.T) {
	signing := newKey(t)
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	cmdtest.MustNil(t, err)
	verification, err := keys.NewPublicKey(other.Public())
	cmdtest.MustNil(t, err)

	set := keys.NewSet(signing, verification)
	collector := NewKeyCollector(func() *keys.Set { return set })
	cmdtest.MustNil(t, testutil.CollectAndCompare(collector, strings.NewReader(`
# HELP sakeeper_key_info Always 1; one series per key. use is signing or verification.
# TYPE sakeeper_key_info gauge
sakeeper_key_info{algorithm="ES256",key_id="`+signing.PublicKey().ID()+`",use="signing"} 1
sakeeper_key_info{algorithm="RS256",key_id="`+verification.ID()+`",use="verification"} 1
`)))

	set = keys.NewSet(newKey(t), signing.PublicKey()) // a rotation
	cmdtest.MustNil(t, testutil.CollectAndCompare(collector, strings.NewReader(`
# HELP sakeeper_key_info Always 1; one series per key. use is signing or verification.
# TYPE sakeeper_key_info gauge
sakeeper_key_info{algorithm="ES256",key_id="`+signing.PublicKey().ID()+`",use="verification"} 1
sakeeper_key_info{algorithm="ES256",key_id="`+set.Signing().PublicKey().ID()+`",use="signing"} 1
`)))
}

func newKey(t *testing.T) keys.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	cmdtest.MustNil(t, err)
	private, err := keys.NewPrivateKey(key)
	cmdtest.MustNil(t, err)
	return private
}

func TestMetricsHandler(t *testing.T) {
	code, body := cmdtest.Get(MetricsHandler(NewRegistry("v1.2.3")), "/metrics")
	if code != http.StatusOK {
		t.Errorf("code %d", code)
	}
	for _, want := range []string{"\nsakeeper_build_info{", `version="v1.2.3"`, "\ngo_goroutines ", "\nprocess_cpu_seconds_total "} {
		if n := strings.Count(body, want); n != 1 {
			t.Errorf("%d times in the metrics, want once: %s", n, want)
		}
	}
}
