package authenticator_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	authenticationv1 "k8s.io/api/authentication/v1"
	"k8s.io/utils/clock"
	testingclock "k8s.io/utils/clock/testing"

	"github.com/sakeeper/sakeeper/pkg/authenticator"
	"github.com/sakeeper/sakeeper/pkg/keys"
	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/token"
)

// otherCluster is the discovery of another issuer, over TLS.
type otherCluster struct {
	*httptest.Server

	keys    atomic.Pointer[keys.Set]
	fetched atomic.Int64
	broken  atomic.Bool
}

func newOtherCluster(t *testing.T, set *keys.Set) *otherCluster {
	t.Helper()
	o := &otherCluster{}
	o.keys.Store(set)
	mux := http.NewServeMux()
	o.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		o.fetched.Add(1)
		if o.broken.Load() {
			http.Error(w, "no", http.StatusInternalServerError)
			return
		}
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(o.Close)
	authenticator.Discovery{Issuer: o.URL, JWKSURI: o.URL + authenticator.JWKSPath, Keys: o.keys.Load}.Register(mux)
	return o
}

// TestForeignIssuers has one with discovery, one with keys, and one that cannot be reached.
func TestForeignIssuers(t *testing.T) {
	other := newOtherCluster(t, testkit.Keys("p384"))
	steps := testingclock.NewFakePassiveClock(testkit.Instant())
	pool := x509.NewCertPool()
	pool.AddCert(other.Certificate())
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}}
	defer client.CloseIdleConnections()
	remote, err := authenticator.NewRemoteKeys(other.URL, client, steps)
	if err != nil {
		t.Fatal(err)
	}
	unreachable, err := authenticator.NewRemoteKeys("https://127.0.0.1:1", client, steps)
	if err != nil {
		t.Fatal(err)
	}
	cfg := config(whole())
	add := func(f authenticator.ForeignConfig) {
		made, err := authenticator.NewForeign(f)
		if err != nil {
			t.Fatal(err)
		}
		cfg.Foreign = append(cfg.Foreign, made)
	}
	add(authenticator.ForeignConfig{Issuer: other.URL, UsernamePrefix: "b:", Keys: remote.Get, Unknown: remote.Unknown})
	add(authenticator.ForeignConfig{Issuer: "https://checked", UsernamePrefix: "c:", Keys: keySet("p521"), Objects: whole()})
	add(authenticator.ForeignConfig{Issuer: "https://trusted", UsernamePrefix: "d:", Keys: keySet("p521"), AllowUnchecked: true})
	add(authenticator.ForeignConfig{Issuer: "https://127.0.0.1:1", UsernamePrefix: "e:", Keys: unreachable.Get, Unknown: unreachable.Unknown})
	a := newAuthenticator(t, cfg)
	under := func(prefix string, extra ...string) authenticationv1.UserInfo {
		info := user(append(extra, "credential-id:JTI=id-1")...)
		info.Username, info.Groups = prefix+info.Username, []string{prefix + "system:serviceaccounts", prefix + "system:serviceaccounts:team"}
		return info
	}
	expect := func(what, compact string, want authenticationv1.UserInfo, wantErr error, text string) {
		t.Helper()
		verdict, err := a.Authenticate(t.Context(), compact, nil)
		if !errors.Is(err, wantErr) || (err == nil) != (wantErr == nil) || (err != nil && !strings.Contains(err.Error(), text)) {
			t.Errorf("%s: error %v, want %v with %q", what, err, wantErr, text)
		}
		if diff := cmp.Diff(want, verdict.User, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s: user (-want +got):\n%s", what, diff)
		}
	}
	var nobody authenticationv1.UserInfo
	expect("by discovery", boundToken(t, keySet("p384"), other.URL, ""), under("b:"), nil, "")
	expect("bound, and nobody to ask", boundToken(t, keySet("p384"), other.URL, pod), nobody, authenticator.ErrUnchecked, "give issuer "+other.URL+" a kubeconfig")
	expect("bound, and alive there", boundToken(t, keySet("p521"), "https://checked", pod), under("c:", "pod-name:app", "pod-uid:u-app"), nil, "")
	expect("bound, and gone there", boundToken(t, keySet("p521"), "https://checked", `,"pod":{"name":"app","uid":"u-old"}`), nobody, authenticator.ErrGone, "")
	expect("bound, and trusted", boundToken(t, keySet("p521"), "https://trusted", pod), under("d:", "pod-name:app", "pod-uid:u-app"), nil, "")
	expect("by a key of ours", boundToken(t, keySet("p256"), "https://trusted", ""), nobody, token.ErrUnknownKey, "")
	expect("a legacy token of theirs", legacyToken(t, keySet("p521")), nobody, token.ErrUnknownKey, "")
	expect("who cannot be reached", boundToken(t, keySet("p384"), "https://127.0.0.1:1", ""), nobody, token.ErrUnknownKey, "keys of issuer https://127.0.0.1:1 cannot be fetched: ")
	expect("beside that, others work", boundToken(t, keySet("p256"), issuer, ""), user("credential-id:JTI=id-1"), nil, "")

	before := other.fetched.Load()
	for range 50 {
		expect("an unknown kid", boundToken(t, keySet("rsa2048"), other.URL, ""), nobody, token.ErrUnknownKey, "")
	}
	if got := other.fetched.Load() - before; got != 0 {
		t.Errorf("unknown kids of a moment: %d requests", got)
	}
	other.keys.Store(testkit.Keys("rsa2048"))
	steps.SetTime(steps.Now().Add(11 * time.Second))
	expect("their new key", boundToken(t, keySet("rsa2048"), other.URL, ""), under("b:"), nil, "")
	expect("their old key", boundToken(t, keySet("p384"), other.URL, ""), nobody, token.ErrUnknownKey, "")
	other.broken.Store(true)
	steps.SetTime(steps.Now().Add(11 * time.Second))
	expect("an unknown kid while they do not answer", boundToken(t, keySet("p384"), other.URL, ""), nobody, token.ErrUnknownKey, "answers 500")
	expect("a known one meanwhile", boundToken(t, keySet("rsa2048"), other.URL, ""), under("b:"), nil, "")
}

func TestWhatIsNoConfig(t *testing.T) {
	foreign := func(f authenticator.ForeignConfig) error {
		_, err := authenticator.NewForeign(f)
		return err
	}
	good := authenticator.ForeignConfig{Issuer: "https://b", UsernamePrefix: "b:", Keys: keySet("p256")}
	twice, err := authenticator.NewForeign(good)
	if err != nil {
		t.Fatal(err)
	}
	ours := good
	ours.Issuer = issuer
	own, err := authenticator.NewForeign(ours)
	if err != nil {
		t.Fatal(err)
	}
	newWith := func(change func(*authenticator.Config)) error {
		cfg := config(whole())
		change(&cfg)
		_, err := authenticator.New(cfg)
		return err
	}
	for name, tc := range map[string]struct {
		in   error
		want string
	}{
		"no prefix":            {foreign(authenticator.ForeignConfig{Issuer: "https://b", Keys: good.Keys}), `issuer "https://b": usernamePrefix is required`},
		"a prefix of ours":     {foreign(authenticator.ForeignConfig{Issuer: "https://b", UsernamePrefix: "system:b:", Keys: good.Keys}), `issuer "https://b": usernamePrefix "system:b:" begins with system:`},
		"legacy tokens":        {foreign(authenticator.ForeignConfig{Issuer: token.LegacyIssuer, UsernamePrefix: "b:", Keys: good.Keys}), `issuer "kubernetes/serviceaccount": an issuer of bound tokens is required`},
		"one issuer twice":     {newWith(func(c *authenticator.Config) { c.Foreign = []*authenticator.Foreign{twice, twice} }), `authenticator: issuer "https://b" is there twice`},
		"our own as another's": {newWith(func(c *authenticator.Config) { c.Foreign = []*authenticator.Foreign{own} }), `authenticator: issuer "https://issuer" is there twice`},
		"no issuer":            {newWith(func(c *authenticator.Config) { c.Issuers = nil }), "authenticator: Issuers are required"},
		"the legacy issuer":    {newWith(func(c *authenticator.Config) { c.Issuers = []string{token.LegacyIssuer} }), "authenticator: neither "},
		"no clock":             {newWith(func(c *authenticator.Config) { c.Clock = nil }), "authenticator: Keys, Objects and Clock are required"},
	} {
		if tc.in == nil || !strings.HasPrefix(tc.in.Error(), tc.want) {
			t.Errorf("%s: %v, want %s", name, tc.in, tc.want)
		}
	}
	if _, err := authenticator.NewRemoteKeys("http://b", http.DefaultClient, clock.RealClock{}); err == nil || !strings.HasPrefix(err.Error(), `issuer "http://b": is no https URL`) {
		t.Errorf("discovery without TLS: %v", err)
	}
}
