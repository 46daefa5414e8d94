package pki_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/sakeeper/sakeeper/pkg/servingcert/pki"
	"github.com/sakeeper/sakeeper/pkg/testkit"
)

func mustCA(t testing.TB, now time.Time) pki.Pair {
	t.Helper()
	ca, err := pki.NewCA(now)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func mustIssue(t testing.TB, ca pki.Pair, now time.Time, hosts ...string) pki.Pair {
	t.Helper()
	pair, err := ca.Issue(hosts, now)
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

func mustEncode(t testing.TB, p pki.Pair) (cert, key []byte) {
	t.Helper()
	cert, key, err := p.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

func TestLifetimes(t *testing.T) {
	now := testkit.Instant()
	ca := mustCA(t, now)
	cases := map[string]struct {
		in               pki.Pair
		wantFrom, wantTo time.Time
	}{
		"a CA":                                   {in: ca, wantFrom: now.Add(-time.Hour), wantTo: now.Add(365 * 24 * time.Hour)},
		"a certificate":                          {in: mustIssue(t, ca, now, "a"), wantFrom: now.Add(-time.Hour), wantTo: now.Add(90 * 24 * time.Hour)},
		"one that would outlast its CA":          {in: mustIssue(t, ca, now.Add(300*24*time.Hour), "a"), wantFrom: now.Add(300*24*time.Hour - time.Hour), wantTo: now.Add(365 * 24 * time.Hour)},
		"one that begins where its CA ends soon": {in: mustIssue(t, ca, now.Add(365*24*time.Hour-time.Minute), "a"), wantFrom: now.Add(365*24*time.Hour - time.Minute - time.Hour), wantTo: now.Add(365 * 24 * time.Hour)},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			cert := tc.in.Cert()
			if !cert.NotBefore.Equal(tc.wantFrom) || !cert.NotAfter.Equal(tc.wantTo) {
				t.Errorf("from %v to %v, want from %v to %v", cert.NotBefore, cert.NotAfter, tc.wantFrom, tc.wantTo)
			}
			for at, want := range map[time.Time]bool{
				tc.wantFrom: true, tc.wantFrom.Add(-1): false, tc.wantTo: false, tc.wantTo.Add(-1): true,
			} {
				if got := tc.in.ValidAt(at); got != want {
					t.Errorf("valid at %v: %t", at, got)
				}
				if got := pki.CheckLifetime(cert, at) == nil; got != want {
					t.Errorf("ready at %v: %t", at, got)
				}
			}
		})
	}
	if (pki.Pair{}).ValidAt(now) || pki.CheckLifetime(nil, now) == nil {
		t.Error("none is valid")
	}
}

func TestTrust(t *testing.T) {
	now := testkit.Instant()
	ca, other := mustCA(t, now), mustCA(t, now) // made in the same second, so with the same name
	serving := mustIssue(t, ca, now, "a.b.svc", "10.0.0.1", "::1")
	mine, both := pki.Bundle(ca.Cert()), pki.Bundle(other.Cert(), ca.Cert())
	cases := map[string]struct {
		inPair   pki.Pair
		inBundle []byte
		inHost   string
		inAfter  time.Duration
		want     bool
	}{
		"by name":                     {inPair: serving, inBundle: mine, inHost: "a.b.svc", want: true},
		"by address":                  {inPair: serving, inBundle: mine, inHost: "10.0.0.1", want: true},
		"by another kind of address":  {inPair: serving, inBundle: mine, inHost: "::1", want: true},
		"with another CA before it":   {inPair: serving, inBundle: both, inHost: "a.b.svc", want: true},
		"another name":                {inPair: serving, inBundle: mine, inHost: "b.b.svc"},
		"another address":             {inPair: serving, inBundle: mine, inHost: "10.0.0.2"},
		"another CA":                  {inPair: serving, inBundle: pki.Bundle(other.Cert()), inHost: "a.b.svc"},
		"no CA":                       {inPair: serving, inHost: "a.b.svc"},
		"garbage":                     {inPair: serving, inBundle: []byte("garbage"), inHost: "a.b.svc"},
		"expired":                     {inPair: serving, inBundle: mine, inHost: "a.b.svc", inAfter: pki.ServingLifetime + time.Second},
		"not valid yet":               {inPair: serving, inBundle: mine, inHost: "a.b.svc", inAfter: -2 * pki.Backdate},
		"no certificate":              {inBundle: mine, inHost: "a.b.svc"},
		"a CA as serving certificate": {inPair: ca, inBundle: mine, inHost: "a.b.svc"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if got := tc.inPair.TrustedBy(tc.inBundle, tc.inHost, now.Add(tc.inAfter)); got != tc.want {
				t.Errorf("got %t", got)
			}
		})
	}
	if !serving.Covers([]string{"a.b.svc", "10.0.0.1"}) || serving.Covers([]string{"a.b.svc", "c"}) || (pki.Pair{}).Covers([]string{"a"}) {
		t.Error("Covers is wrong")
	}
	if diff := cmp.Diff([]string{"a.b.svc", "10.0.0.1", "::1"}, serving.Hosts()); diff != "" {
		t.Errorf("hosts (-want +got):\n%s", diff)
	}
	if _, err := serving.Issue([]string{"a"}, now); err == nil {
		t.Error("a serving certificate signs")
	}
	if _, err := (pki.Pair{}).Issue([]string{"a"}, now); err == nil {
		t.Error("nothing signs")
	}
}

// TestACASignsNoCA: with the key of a serving certificate, no other certificate can be made.
func TestACASignsNoCA(t *testing.T) {
	now := testkit.Instant()
	ca := mustCA(t, now)
	if c := ca.Cert(); !c.IsCA || !c.MaxPathLenZero || c.MaxPathLen != 0 || c.KeyUsage != x509.KeyUsageCertSign {
		t.Errorf("CA %t, path length %d, usage %b", c.IsCA, c.MaxPathLen, c.KeyUsage)
	}
	if c := mustIssue(t, ca, now, "a").Cert(); c.IsCA || c.KeyUsage != x509.KeyUsageDigitalSignature || !cmp.Equal(c.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}) {
		t.Errorf("CA %t, usages %b %v", c.IsCA, c.KeyUsage, c.ExtKeyUsage)
	}
}

func TestPairsAreReadBack(t *testing.T) {
	ca := mustCA(t, testkit.Instant())
	for _, pair := range []pki.Pair{ca, mustIssue(t, ca, testkit.Instant(), "a")} {
		cert, key := mustEncode(t, pair)
		again, err := pki.ParsePair(cert, key)
		if err != nil {
			t.Fatal(err)
		}
		if !again.Cert().Equal(pair.Cert()) || again.String() != pair.String() || !bytes.Equal(again.TLS().Certificate[0], pair.Cert().Raw) {
			t.Errorf("got %v, want %v", again, pair)
		}
	}
	if _, err := ca.Issue([]string{"a"}, testkit.Instant()); err != nil {
		t.Error(err)
	}
	if _, _, err := (pki.Pair{}).Encode(); err == nil || (pki.Pair{}).TLS() != nil {
		t.Error("none is encoded")
	}
}

func TestParsePairRefuses(t *testing.T) {
	ca := mustCA(t, testkit.Instant())
	cert, key := mustEncode(t, ca)
	otherCert, otherKey := mustEncode(t, mustCA(t, testkit.Instant()))
	cases := map[string]struct{ inCert, inKey []byte }{
		"nothing":                 {},
		"no key":                  {inCert: cert},
		"no certificate":          {inKey: key},
		"swapped":                 {inCert: key, inKey: cert},
		"the key of another":      {inCert: cert, inKey: otherKey},
		"garbage":                 {inCert: []byte("garbage"), inKey: key},
		"a truncated key":         {inCert: cert, inKey: key[:len(key)/2]},
		"a certificate and more":  {inCert: append(bytes.Clone(cert), otherCert...), inKey: key},
		"a block without a key":   {inCert: cert, inKey: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("secret")})},
		"a block of another type": {inCert: pem.EncodeToMemory(&pem.Block{Type: "SECRET", Bytes: []byte("x")}), inKey: key},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			pair, err := pki.ParsePair(tc.inCert, tc.inKey)
			if err == nil || pair.Cert() != nil {
				t.Errorf("got %v, error %v", pair, err)
			}
			if err != nil && strings.Contains(err.Error(), "secret") {
				t.Errorf("the key is quoted: %v", err)
			}
		})
	}
}

func TestBundles(t *testing.T) {
	now := testkit.Instant()
	one, two := mustCA(t, now), mustCA(t, now.Add(time.Hour))
	serving := mustIssue(t, one, now, "a")
	_, key := mustEncode(t, one)
	cases := map[string]struct {
		in      []byte
		want    []*x509.Certificate
		wantErr bool
	}{
		"one":                      {in: pki.Bundle(one.Cert()), want: []*x509.Certificate{one.Cert()}},
		"two":                      {in: pki.Bundle(two.Cert(), one.Cert()), want: []*x509.Certificate{two.Cert(), one.Cert()}},
		"one twice is one":         {in: pki.Bundle(one.Cert(), two.Cert(), one.Cert()), want: []*x509.Certificate{one.Cert(), two.Cert()}},
		"none":                     {in: pki.Bundle(), wantErr: true},
		"garbage":                  {in: []byte("garbage"), wantErr: true},
		"garbage after one":        {in: append(pki.Bundle(one.Cert()), "-----BEGIN CERTIFICATE-----\ngarbage"...), want: []*x509.Certificate{one.Cert()}, wantErr: true},
		"one that is not a CA":     {in: pki.Bundle(serving.Cert(), two.Cert()), want: []*x509.Certificate{two.Cert()}, wantErr: true},
		"a private key beside one": {in: append(pki.Bundle(one.Cert()), key...), want: []*x509.Certificate{one.Cert()}, wantErr: true},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got, err := pki.ParseCAs(tc.in)
			if (err != nil) != tc.wantErr {
				t.Errorf("error %v", err)
			}
			if !cmp.Equal(tc.want, got, cmp.Comparer((*x509.Certificate).Equal)) {
				t.Errorf("got %d, want %d", len(got), len(tc.want))
			}
		})
	}
}

func TestPrintingNeverShowsTheKey(t *testing.T) {
	pair := mustCA(t, testkit.Instant())
	d, err := pair.TLS().PrivateKey.(*ecdsa.PrivateKey).Bytes()
	if err != nil {
		t.Fatal(err)
	}
	secrets := []string{
		new(big.Int).SetBytes(d).String(), fmt.Sprintf("%x", d), fmt.Sprintf("%X", d),
		strings.Trim(fmt.Sprint(d[:8]), "[]"), base64.StdEncoding.EncodeToString(d)[:20],
		strings.TrimSuffix(fmt.Sprintf("%#v", d[:8])[len("[]byte{"):], "}"),
	}
	shows := func(text string) bool {
		for _, secret := range secrets {
			if strings.Contains(text, secret) {
				return true
			}
		}
		return false
	}
	if !shows(fmt.Sprint(d)) || !shows(fmt.Sprintf("%v", pair.TLS().PrivateKey)) {
		t.Fatal("the key would not be found")
	}
	for what, value := range map[string]any{
		"a pair": pair, "a pointer": &pair, "a slice": []pki.Pair{pair},
		"a field": struct{ Pair pki.Pair }{pair}, "an unexported field": struct{ pair pki.Pair }{pair},
	} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d", "%q"} {
			if text := fmt.Sprintf(verb, value); shows(text) {
				t.Errorf("%s of %s shows the key", verb, what)
			}
		}
		if text, err := json.Marshal(value); err != nil || shows(string(text)) {
			t.Errorf("JSON of %s: %s, error %v", what, text, err)
		}
	}
	if got := fmt.Sprintf("%#v", pki.Pair{}); got != "none" {
		t.Errorf("no pair is %q", got)
	}
}

func TestExpiryGauge(t *testing.T) {
	var cert *x509.Certificate
	registry := prometheus.NewRegistry()
	registry.MustRegister(pki.ExpiryGauge("serving", func() *x509.Certificate { return cert }))
	expect := func(value string) {
		t.Helper()
		want := `# HELP sakeeper_webhook_certificate_expiry_timestamp_seconds When a certificate of the webhook expires, in seconds since 1970, by certificate (serving, ca). 0: there is none.
# TYPE sakeeper_webhook_certificate_expiry_timestamp_seconds gauge
sakeeper_webhook_certificate_expiry_timestamp_seconds{certificate="serving"} ` + value + "\n"
		if err := testutil.GatherAndCompare(registry, strings.NewReader(want)); err != nil {
			t.Error(err)
		}
	}
	expect("0")
	cert = mustCA(t, time.Unix(0, 0)).Cert()
	expect("3.1536e+07")
}

func FuzzParse(f *testing.F) {
	ca := mustCA(f, testkit.Instant())
	cert, key := mustEncode(f, ca)
	f.Add(cert, key)
	f.Add(key, cert)
	f.Add(append(bytes.Clone(cert), cert...), []byte(nil))
	f.Fuzz(func(t *testing.T, cert, key []byte) {
		if pair, err := pki.ParsePair(cert, key); (err == nil) != (pair.Cert() != nil) {
			t.Errorf("got %v, error %v", pair, err)
		}
		cas, err := pki.ParseCAs(cert)
		if err == nil && len(cas) == 0 {
			t.Error("none, and no error")
		}
		for _, c := range cas {
			if !c.IsCA || c.CheckSignatureFrom(c) != nil {
				t.Errorf("%s is not a CA", c.Subject)
			}
		}
	})
}
