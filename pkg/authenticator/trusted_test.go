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
	testingclock "k8s.io/utils/clock/testing"

	"github.com/sakeeper/sakeeper/pkg/authenticator"
	"github.com/sakeeper/sakeeper/pkg/issuer"
	"github.com/sakeeper/sakeeper/pkg/keys"
	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/token"
)

// otherCluster serves the discovery of another issuer over TLS.
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
	issuer.Discovery{Issuer: o.URL, JWKSURI: o.URL + issuer.JWKSPath, Keys: o.keys.Load}.Register(mux)
	return o
}

// TestTrustedIssuers has an issuer with discovery, two with keys, and one that cannot be reached.
func TestTrustedIssuers(t *testing.T) {
	other := newOtherCluster(t, testkit.Keys("p384"))
	steps := testingclock.NewFakePassiveClock(testkit.Instant())
	pool := x509.NewCertPool()
	pool.AddCert(other.Certificate())
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}}
	defer client.CloseIdleConnections()
	remote, err := issuer.NewRemoteKeys(other.URL, client, steps)
	if err != nil {
		t.Fatal(err)
	}
	unreachable, err := issuer.NewRemoteKeys("https://127.0.0.1:1", client, steps)
	if err != nil {
		t.Fatal(err)
	}
	cfg := config(whole())
	add := func(c authenticator.TrustedIssuerConfig) {
		made, err := authenticator.NewTrustedIssuer(c)
		if err != nil {
			t.Fatal(err)
		}
		cfg.TrustedIssuers = append(cfg.TrustedIssuers, made)
	}
	add(authenticator.TrustedIssuerConfig{Issuer: other.URL, UsernamePrefix: "b:", Keys: remote.Get, Refresh: remote.Refresh})
	add(authenticator.TrustedIssuerConfig{Issuer: "https://checked", UsernamePrefix: "c:", Keys: keySet("p521"), Objects: whole()})
	add(authenticator.TrustedIssuerConfig{Issuer: "https://trusted", UsernamePrefix: "d:", Keys: keySet("p521"), AllowUnchecked: true})
	add(authenticator.TrustedIssuerConfig{Issuer: "https://127.0.0.1:1", UsernamePrefix: "e:", Keys: unreachable.Get, Refresh: unreachable.Refresh})
	a := newAuthenticator(t, cfg)
	withPrefix := func(prefix string, extra ...string) authenticationv1.UserInfo {
		info := user(append(extra, "credential-id:JTI=id-1")...)
		info.Username, info.Groups = prefix+info.Username, []string{prefix + "system:serviceaccounts", prefix + "system:serviceaccounts:team"}
		return info
	}
	expect := func(what, compact string, want authenticationv1.UserInfo, wantErr error, text string) {
		t.Helper()
		response, err := a.Authenticate(t.Context(), compact, nil)
		if !errors.Is(err, wantErr) || (err == nil) != (wantErr == nil) || (err != nil && !strings.Contains(err.Error(), text)) {
			t.Errorf("%s: error %v, want %v with %q", what, err, wantErr, text)
		}
		if diff := cmp.Diff(want, response.User, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s: user (-want +got):\n%s", what, diff)
		}
	}
	var noUser authenticationv1.UserInfo
	expect("by discovery", boundToken(t, keySet("p384"), other.URL, ""), withPrefix("b:"), nil, "")
	expect("bound, and no kubeconfig", boundToken(t, keySet("p384"), other.URL, pod), noUser, authenticator.ErrUnchecked, "give issuer "+other.URL+" a kubeconfig")
	for what, claim := range map[string]string{"secret": secret, "node": node, "validating webhook configuration": validating + attested, "mutating webhook configuration": mutating + attested} {
		expect("bound to a "+what+", and no kubeconfig", boundToken(t, keySet("p384"), other.URL, claim), noUser, authenticator.ErrUnchecked, "give issuer "+other.URL+" a kubeconfig")
	}
	for _, iss := range []string{"https://checked", "https://trusted"} {
		expect("bound to an unknown kind at "+iss, boundToken(t, keySet("p521"), iss, `,"deployment":{"name":"d","uid":"u"}`), noUser, token.ErrUnknownKind, `kubernetes.io has the member "deployment"`)
	}
	expect("bound to a webhook configuration that exists", boundToken(t, keySet("p521"), "https://checked", validating+attested),
		withAPIGroups(withPrefix("c:", "validatingwebhookconfiguration-name:check", "validatingwebhookconfiguration-uid:u-check")), nil, "")
	expect("bound to a webhook configuration that is gone", boundToken(t, keySet("p521"), "https://checked", strings.Replace(validating, "u-check", "u-old", 1)+attested), noUser, authenticator.ErrGone, "")
	expect("bound to a webhook configuration, and not checked", boundToken(t, keySet("p521"), "https://trusted", mutating+attested),
		withAPIGroups(withPrefix("d:", "mutatingwebhookconfiguration-name:change", "mutatingwebhookconfiguration-uid:u-change")), nil, "")
	expect("bound to a pod that exists", boundToken(t, keySet("p521"), "https://checked", pod), withPrefix("c:", "pod-name:app", "pod-uid:u-app"), nil, "")
	expect("bound to a pod that is gone", boundToken(t, keySet("p521"), "https://checked", `,"pod":{"name":"app","uid":"u-old"}`), noUser, authenticator.ErrGone, "")
	expect("bound, and not checked", boundToken(t, keySet("p521"), "https://trusted", pod), withPrefix("d:", "pod-name:app", "pod-uid:u-app"), nil, "")
	expect("signed by a key of this cluster", boundToken(t, keySet("p256"), "https://trusted", ""), noUser, token.ErrUnknownKey, "")
	expect("a legacy token", legacyToken(t, keySet("p521")), noUser, token.ErrUnknownKey, "")
	expect("an issuer that cannot be reached", boundToken(t, keySet("p384"), "https://127.0.0.1:1", ""), noUser, token.ErrUnknownKey, "keys of issuer https://127.0.0.1:1 cannot be fetched: ")
	expect("other issuers still work", boundToken(t, keySet("p256"), clusterIssuer, ""), user("credential-id:JTI=id-1"), nil, "")

	before := other.fetched.Load()
	for range 50 {
		expect("an unknown key id", boundToken(t, keySet("rsa2048"), other.URL, ""), noUser, token.ErrUnknownKey, "")
	}
	if got := other.fetched.Load() - before; got != 0 {
		t.Errorf("unknown key ids within 10 s: %d requests", got)
	}
	other.keys.Store(testkit.Keys("rsa2048"))
	steps.SetTime(steps.Now().Add(11 * time.Second))
	expect("the new key", boundToken(t, keySet("rsa2048"), other.URL, ""), withPrefix("b:"), nil, "")
	expect("the old key", boundToken(t, keySet("p384"), other.URL, ""), noUser, token.ErrUnknownKey, "")
	other.broken.Store(true)
	steps.SetTime(steps.Now().Add(11 * time.Second))
	expect("an unknown key id while discovery fails", boundToken(t, keySet("p384"), other.URL, ""), noUser, token.ErrUnknownKey, "answers 500")
	expect("a known key id while discovery fails", boundToken(t, keySet("rsa2048"), other.URL, ""), withPrefix("b:"), nil, "")
}

func TestInvalidConfigs(t *testing.T) {
	trusted := func(c authenticator.TrustedIssuerConfig) error {
		_, err := authenticator.NewTrustedIssuer(c)
		return err
	}
	good := authenticator.TrustedIssuerConfig{Issuer: "https://b", UsernamePrefix: "b:", Keys: keySet("p256")}
	twice, err := authenticator.NewTrustedIssuer(good)
	if err != nil {
		t.Fatal(err)
	}
	ours := good
	ours.Issuer = clusterIssuer
	own, err := authenticator.NewTrustedIssuer(ours)
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
		"no prefix":         {trusted(authenticator.TrustedIssuerConfig{Issuer: "https://b", Keys: good.Keys}), `issuer "https://b": usernamePrefix is required`},
		"a reserved prefix": {trusted(authenticator.TrustedIssuerConfig{Issuer: "https://b", UsernamePrefix: "system:b:", Keys: good.Keys}), `issuer "https://b": usernamePrefix "system:b:" begins with system:`},
		"legacy tokens":     {trusted(authenticator.TrustedIssuerConfig{Issuer: token.LegacyIssuer, UsernamePrefix: "b:", Keys: good.Keys}), `issuer "kubernetes/serviceaccount": an issuer of bound tokens is required`},
		"one issuer twice":  {newWith(func(c *authenticator.Config) { c.TrustedIssuers = []*authenticator.TrustedIssuer{twice, twice} }), `authenticator: issuer "https://b" is configured twice`},
		"our own issuer":    {newWith(func(c *authenticator.Config) { c.TrustedIssuers = []*authenticator.TrustedIssuer{own} }), `authenticator: issuer "https://issuer" is configured twice`},
		"no issuer":         {newWith(func(c *authenticator.Config) { c.Issuers = nil }), "authenticator: Issuers are required"},
		"the legacy issuer": {newWith(func(c *authenticator.Config) { c.Issuers = []string{token.LegacyIssuer} }), `authenticator: "kubernetes/serviceaccount" and the empty string`},
		"no clock":          {newWith(func(c *authenticator.Config) { c.Clock = nil }), "authenticator: Keys, Objects and Clock are required"},
	} {
		if tc.in == nil || !strings.HasPrefix(tc.in.Error(), tc.want) {
			t.Errorf("%s: %v, want %s", name, tc.in, tc.want)
		}
	}
}
