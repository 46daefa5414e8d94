package issuer_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr/funcr"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
	testingclock "k8s.io/utils/clock/testing"

	"github.com/sakeeper/sakeeper/pkg/issuer"
	"github.com/sakeeper/sakeeper/pkg/keys"
	"github.com/sakeeper/sakeeper/pkg/testkit"
)

// TestRemoteKeys reads the discovery that this package serves.
func TestRemoteKeys(t *testing.T) {
	var published atomic.Pointer[keys.Set]
	published.Store(testkit.Keys("p384"))
	mux := http.NewServeMux()
	server := httptest.NewTLSServer(mux)
	defer server.Close()
	issuer.Discovery{Issuer: server.URL, JWKSURI: server.URL + issuer.JWKSPath, Keys: published.Load}.Register(mux)
	pool := x509.NewCertPool()
	pool.AddCert(server.Certificate())
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}}
	defer client.CloseIdleConnections()
	steps := testingclock.NewFakePassiveClock(testkit.Instant())
	remote, err := issuer.NewRemoteKeys(server.URL, client, steps)
	if err != nil {
		t.Fatal(err)
	}
	refresh := func(what string, wantChanged bool, wantErr string, want *keys.Set) {
		t.Helper()
		changed, err := remote.Refresh(t.Context())
		if changed != wantChanged || (err == nil) != (wantErr == "") || err != nil && !strings.Contains(err.Error(), wantErr) {
			t.Errorf("%s: changed %t, error %v", what, changed, err)
		}
		got := remote.Get().Verification()
		if len(got) != len(want.Verification()) || got[0].ID() != want.Verification()[0].ID() {
			t.Errorf("%s: keys %v, want %v", what, got, want.Verification())
		}
	}
	if got := remote.Get().Verification(); len(got) != 0 {
		t.Errorf("keys before the first fetch: %v", got)
	}
	first, second := published.Load(), testkit.Keys("rsa2048")
	refresh("the first fetch", true, "", first)
	published.Store(second)
	refresh("within 10 s", false, "", first)
	steps.SetTime(steps.Now().Add(11 * time.Second))
	refresh("after 10 s", true, "", second)
	server.CloseClientConnections()
	_ = server.Listener.Close()
	steps.SetTime(steps.Now().Add(11 * time.Second))
	refresh("without an answer", false, "keys of issuer "+server.URL+" cannot be fetched: ", second)
}

// TestAnUnusableKeyIsLostAlone, is logged once by its kid, and is in the error if it is the only one.
func TestAnUnusableKeyIsLostAlone(t *testing.T) {
	good, err := json.Marshal(testkit.Keys("p384").JWKS().Keys[0])
	if err != nil {
		t.Fatal(err)
	}
	const odd = `{"kty":"OKP","crv":"X25519","kid":"odd","x":"hSDwCYkwp1R0i33ctD73Wg2_Og0mOBr066SpjqqbTmo"}`
	var jwks atomic.Pointer[string]
	var server *httptest.Server
	server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/jwks" {
			_, _ = w.Write([]byte(*jwks.Load()))
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]string{"issuer": server.URL, "jwks_uri": server.URL + "/jwks"})
	}))
	defer server.Close()
	steps := testingclock.NewFakePassiveClock(testkit.Instant())
	remote, err := issuer.NewRemoteKeys(server.URL, server.Client(), steps)
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	ctx := klog.NewContext(t.Context(), funcr.New(func(_, args string) { log.WriteString(args + "\n") }, funcr.Options{}))
	for _, document := range []string{odd + "," + string(good), odd + "," + string(good), string(good) + "," + odd, odd} {
		text := `{"keys":[` + document + `]}`
		jwks.Store(&text)
		steps.SetTime(steps.Now().Add(11 * time.Second))
		_, err := remote.Refresh(ctx)
		if _, found := remote.Get().Lookup(testkit.Keys("p384").Signing().String()); !found || (err != nil) != (document == odd) {
			t.Errorf("%s: good key found %t, error %v", document, found, err)
		}
		if document == odd && !strings.Contains(err.Error(), `it publishes no usable key: key 1 with kid "odd": `) {
			t.Errorf("the only key: %v", err)
		}
	}
	if got := strings.Count(log.String(), `"Left out keys of an issuer that cannot be used"`); got != 2 || strings.Contains(log.String(), "hSDwCYkwp1R0i33c") {
		t.Errorf("it was logged %d times:\n%s", got, &log)
	}
}

func TestRemoteKeysNeedAnHTTPSIssuer(t *testing.T) {
	for _, url := range []string{"http://b", "https://", "https://b?c", "https://b#c", ":"} {
		if _, err := issuer.NewRemoteKeys(url, http.DefaultClient, clock.RealClock{}); err == nil || !strings.HasPrefix(err.Error(), `issuer "`+url+`": is not an https URL`) {
			t.Errorf("%s: %v", url, err)
		}
	}
}
