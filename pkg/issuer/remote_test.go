package issuer_test

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

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

func TestRemoteKeysNeedAnHTTPSIssuer(t *testing.T) {
	for _, url := range []string{"http://b", "https://", "https://b?c", "https://b#c", ":"} {
		if _, err := issuer.NewRemoteKeys(url, http.DefaultClient, clock.RealClock{}); err == nil || !strings.HasPrefix(err.Error(), `issuer "`+url+`": is not an https URL`) {
			t.Errorf("%s: %v", url, err)
		}
	}
}
