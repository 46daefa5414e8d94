package authenticator_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"
	testingclock "k8s.io/utils/clock/testing"

	"github.com/sakeeper/sakeeper/pkg/authenticator"
	"github.com/sakeeper/sakeeper/pkg/keys"
	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/token"
)

const issuer = "https://issuer"

func keySet(vector string, more ...string) func() *keys.Set {
	set := testkit.Keys(vector, more...)
	return func() *keys.Set { return set }
}

// boundToken is what an API server would grant, with more claims in kubernetes.io.
func boundToken(t testing.TB, set func() *keys.Set, iss, more string) string {
	t.Helper()
	now := testkit.Instant().Unix()
	payload := base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil,
		`{"aud":["api"],"exp":%d,"iat":%d,"iss":%q,"jti":"id-1","kubernetes.io":{"namespace":"team","serviceaccount":{"name":"robot","uid":"u-robot"}%s},"nbf":%d,"sub":"system:serviceaccount:team:robot"}`,
		now+3600, now, iss, more, now))
	segments, err := token.NewSigner(set).Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	return segments.Header + "." + payload + "." + segments.Signature
}

func legacyToken(t testing.TB, set func() *keys.Set) string {
	t.Helper()
	compact, err := token.NewSigner(set).SignLegacy(t.Context(), token.LegacyClaims{Namespace: "team", SecretName: "robot-token", ServiceAccountName: "robot", ServiceAccountUID: "u-robot"})
	if err != nil {
		t.Fatal(err)
	}
	return compact
}

func whole() state {
	return state{
		Accounts: map[string]object{"team/robot": {UID: "u-robot"}}, Pods: map[string]object{"team/app": {UID: "u-app"}},
		Secrets: map[string]object{"team/robot-token": {UID: "u-secret"}}, Nodes: map[string]object{"node-1": {UID: "u-node"}},
	}
}

func config(objects authenticator.Objects) authenticator.Config {
	return authenticator.Config{
		Keys: keySet("p256", "rsa2048"), Issuers: []string{issuer}, Audiences: []string{"api"}, Objects: objects, Clock: testingclock.NewFakePassiveClock(testkit.Instant()),
	}
}

func newAuthenticator(t testing.TB, cfg authenticator.Config) *authenticator.Authenticator {
	t.Helper()
	a, err := authenticator.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func user(extra ...string) authenticationv1.UserInfo {
	info := authenticationv1.UserInfo{
		Username: "system:serviceaccount:team:robot", UID: "u-robot", Groups: []string{"system:serviceaccounts", "system:serviceaccounts:team", "system:authenticated"},
		Extra: map[string]authenticationv1.ExtraValue{},
	}
	for _, pair := range extra {
		name, value, _ := strings.Cut(pair, ":")
		info.Extra["authentication.kubernetes.io/"+name] = authenticationv1.ExtraValue{value}
	}
	return info
}

const pod, secret, node = `,"pod":{"name":"app","uid":"u-app"}`, `,"secret":{"name":"robot-token","uid":"u-secret"}`, `,"node":{"name":"node-1","uid":"u-node"}`

// TestAuthenticate shows the way of each kind of token; hack/differential compares the
// verdicts on thousands of others with those of kube-apiserver.
func TestAuthenticate(t *testing.T) {
	legacy := legacyToken(t, keySet("p256"))
	stored := func(change func(*state)) state {
		s := whole()
		s.Secrets["team/robot-token"] = object{UID: "u-secret", Token: legacy}
		if change != nil {
			change(&s)
		}
		return s
	}
	cases := map[string]struct {
		in        string
		state     state
		audiences []string
		want      authenticationv1.UserInfo
		err       error
	}{
		"a token for an account":        {in: boundToken(t, keySet("p256"), issuer, ""), state: whole(), want: user("credential-id:JTI=id-1")},
		"a token for a pod":             {in: boundToken(t, keySet("rsa2048"), issuer, pod+node), state: whole(), want: user("credential-id:JTI=id-1", "pod-name:app", "pod-uid:u-app", "node-name:node-1", "node-uid:u-node")},
		"a token for a Secret":          {in: boundToken(t, keySet("p256"), issuer, secret), state: whole(), want: user("credential-id:JTI=id-1")},
		"a token for a node":            {in: boundToken(t, keySet("p256"), issuer, node), state: whole(), want: user("credential-id:JTI=id-1", "node-name:node-1", "node-uid:u-node")},
		"a legacy token":                {in: legacy, state: stored(nil), want: user()},
		"no token":                      {in: "", err: token.ErrMalformed},
		"a token of a megabyte":         {in: strings.Repeat("A", 1<<20), err: token.ErrMalformed},
		"JSON serialization":            {in: `{"payload":"e30","signatures":[]}`, err: token.ErrMalformed},
		"another issuer":                {in: boundToken(t, keySet("p256"), "https://other", ""), err: token.ErrIssuer},
		"an unknown key":                {in: boundToken(t, keySet("p521"), issuer, ""), err: token.ErrUnknownKey},
		"another audience":              {in: boundToken(t, keySet("p256"), issuer, ""), state: whole(), audiences: []string{"vault"}, err: authenticator.ErrAudience},
		"a pod that is gone":            {in: boundToken(t, keySet("p256"), issuer, `,"pod":{"name":"other","uid":"u-app"}`), state: whole(), err: authenticator.ErrGone},
		"an account that was remade":    {in: boundToken(t, keySet("p256"), issuer, ""), state: state{Accounts: map[string]object{"team/robot": {UID: "u-new"}}}, err: authenticator.ErrGone},
		"a legacy token that was moved": {in: legacy, state: stored(func(s *state) { s.Secrets["team/robot-token"] = object{Token: "other"} }), err: authenticator.ErrStored},
		"a legacy token that was marked": {
			in: legacy, state: stored(func(s *state) {
				s.Secrets["team/robot-token"] = object{Token: legacy, InvalidSince: "2026-01-01"}
			}), err: authenticator.ErrInvalidated,
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			verdict, err := newAuthenticator(t, config(tc.state)).Authenticate(t.Context(), tc.in, tc.audiences)
			if !errors.Is(err, tc.err) || (err == nil) != (tc.err == nil) {
				t.Errorf("got error %v, want %v", err, tc.err)
			}
			if diff := cmp.Diff(tc.want, verdict.User); diff != "" {
				t.Errorf("user (-want +got):\n%s", diff)
			}
			if err != nil && tc.in != "" && strings.Contains(err.Error(), tc.in[:min(10, len(tc.in))]) {
				t.Errorf("the error quotes the token: %v", err)
			}
		})
	}
}

// TestTimeHasAMinuteOfLeeway on both sides.
func TestTimeHasAMinuteOfLeeway(t *testing.T) {
	compact := boundToken(t, keySet("p256"), issuer, "")
	for after, want := range map[time.Duration]error{
		-61 * time.Second: token.ErrNotYet, -59 * time.Second: nil, 0: nil, time.Hour + 59*time.Second: nil, time.Hour + 61*time.Second: token.ErrExpired,
	} {
		cfg := config(whole())
		cfg.Clock = testingclock.NewFakePassiveClock(testkit.Instant().Truncate(time.Second).Add(after))
		if _, err := newAuthenticator(t, cfg).Authenticate(t.Context(), compact, nil); !errors.Is(err, want) || (err == nil) != (want == nil) {
			t.Errorf("%v after it was issued: %v, want %v", after, err, want)
		}
	}
}

func TestLegacyTokensThatAreUsed(t *testing.T) {
	legacy := legacyToken(t, keySet("p256"))
	for name, tc := range map[string]struct {
		secret object
		want   int
	}{
		"one that is accepted":    {object{Token: legacy}, 1},
		"one that was marked":     {object{Token: legacy, InvalidSince: "x"}, 1},
		"one that is not its own": {object{Token: "other"}, 0},
	} {
		cfg, used := config(state{Accounts: whole().Accounts, Secrets: map[string]object{"team/robot-token": tc.secret}}), 0
		cfg.Used = func(authenticator.Secret) { used++ }
		_, _ = newAuthenticator(t, cfg).Authenticate(t.Context(), legacy, nil)
		if used != tc.want {
			t.Errorf("%s: noted %d times, want %d", name, used, tc.want)
		}
	}
}

// silent is a cluster that does not answer.
type silent struct{ state }

var errSilent = errors.New("connection refused")

func (silent) ServiceAccount(context.Context, string, string) (authenticator.Object, error) {
	return nil, errSilent
}

func review(t testing.TB, body string, change ...func(*http.Request)) *http.Request {
	t.Helper()
	request := httptest.NewRequestWithContext(t.Context(), http.MethodPost, authenticator.ReviewPath, strings.NewReader(body))
	request.Header.Set("Content-Type", "application/json")
	for _, c := range change {
		c(request)
	}
	return request
}

func reviewOf(t testing.TB, compact string) string {
	t.Helper()
	body, err := json.Marshal(authenticationv1.TokenReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "authentication.k8s.io/v1", Kind: "TokenReview"}, Spec: authenticationv1.TokenReviewSpec{Token: compact, Audiences: []string{"api"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func TestReviews(t *testing.T) {
	good := reviewOf(t, boundToken(t, keySet("p256"), issuer, ""))
	cases := map[string]struct {
		in       *http.Request
		objects  authenticator.Objects
		wantCode int
		want     string // the body, or what it begins with
	}{
		"accepted":             {review(t, good), whole(), 200, `{"kind":"TokenReview","apiVersion":"authentication.k8s.io/v1","metadata":{},"spec":{},"status":{"authenticated":true,"user":{"username":"system:serviceaccount:team:robot","uid":"u-robot","groups":["system:serviceaccounts","system:serviceaccounts:team","system:authenticated"],"extra":{"authentication.kubernetes.io/credential-id":["JTI=id-1"]}},"audiences":["api"]}}`},
		"refused":              {review(t, reviewOf(t, "a.b.c")), whole(), 200, `{"kind":"TokenReview","apiVersion":"authentication.k8s.io/v1","metadata":{},"spec":{},"status":{"user":{},"error":"malformed token"}}`},
		"nobody can be asked":  {review(t, good), silent{}, 503, "no verdict\n"},
		"a GET":                {review(t, good, func(r *http.Request) { r.Method = http.MethodGet }), whole(), 405, "a TokenReview comes by POST\n"},
		"another content type": {review(t, good, func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") }), whole(), 415, "a TokenReview comes as application/json\n"},
		"not JSON":             {review(t, "{"), whole(), 400, "the body is not a TokenReview in JSON\n"},
		"another kind":         {review(t, `{"apiVersion":"v1","kind":"Pod"}`), whole(), 400, "the body is not a TokenReview of authentication.k8s.io/v1\n"},
		"another version":      {review(t, strings.Replace(good, "/v1", "/v1beta1", 1)), whole(), 400, "the body is not a TokenReview of authentication.k8s.io/v1\n"},
		"no token":             {review(t, reviewOf(t, "")), whole(), 400, "spec.token is required\n"},
		"a token of 1 MB":      {review(t, reviewOf(t, strings.Repeat("A", 1<<20))), whole(), 413, "the body is longer than 262144 bytes\n"},
		"a panic":              {review(t, good), nil, 500, "internal error\n"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			recorder := httptest.NewRecorder()
			handler := authenticator.Reviews{}
			if tc.objects != nil {
				handler.Authenticator = newAuthenticator(t, config(tc.objects))
			}
			handler.ServeHTTP(recorder, tc.in)
			if recorder.Code != tc.wantCode {
				t.Errorf("status %d, want %d", recorder.Code, tc.wantCode)
			}
			if diff := cmp.Diff(tc.want, recorder.Body.String()); diff != "" {
				t.Errorf("body (-want +got):\n%s", diff)
			}
		})
	}
}

func TestDiscovery(t *testing.T) {
	set := testkit.Keys("rsa2048", "p256", "p384", "p521").WithLegacy(testkit.Keys("p256").Signing().PublicKey())
	d := authenticator.Discovery{Issuer: issuer, JWKSURI: issuer + "/openid/v1/jwks", Keys: func() *keys.Set { return set }, MaxAge: time.Hour}
	mux := http.NewServeMux()
	d.Register(mux)
	get := func(path string) *httptest.ResponseRecorder {
		recorder := httptest.NewRecorder()
		mux.ServeHTTP(recorder, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
		return recorder
	}
	config, jwks := get(authenticator.ConfigPath), get(authenticator.JWKSPath)
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
	for range 2 { // also over what is there
		if err := d.Export(dir); err != nil {
			t.Fatal(err)
		}
	}
	for path, recorder := range map[string]*httptest.ResponseRecorder{authenticator.ConfigPath: config, authenticator.JWKSPath: jwks} {
		content, err := os.ReadFile(filepath.Join(dir, path))
		if err != nil || string(content) != recorder.Body.String() {
			t.Errorf("%s holds %s, error %v", path, content, err)
		}
	}
	if strings.Count(jwks.Body.String(), `"kid"`) != 4 {
		t.Errorf("JWKS %s", jwks.Body)
	}
	for url, problem := range map[string]string{"http://issuer": "is no https URL", "https://issuer?a=b": "is no https URL", "https://issuer#a": "is no https URL", ":": "is no https URL"} {
		if err := (authenticator.Discovery{Issuer: url, JWKSURI: "https://x"}).Check(); err == nil || !strings.Contains(err.Error(), problem) {
			t.Errorf("%s: %v", url, err)
		}
	}
}

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

func FuzzAuthenticate(f *testing.F) {
	f.Add(boundToken(f, keySet("p256"), issuer, pod+node))
	f.Add(legacyToken(f, keySet("p256")))
	f.Add("a.b.c")
	a, signed := newAuthenticator(f, config(whole())), boundToken(f, keySet("p256"), issuer, "")
	f.Add(signed)
	f.Fuzz(func(t *testing.T, compact string) {
		verdict, err := a.Authenticate(t.Context(), compact, nil)
		if (err == nil) != (verdict.User.Username != "") {
			t.Errorf("user %q, error %v", verdict.User.Username, err)
		}
	})
}

func FuzzReviews(f *testing.F) {
	f.Add(reviewOf(f, boundToken(f, keySet("p256"), issuer, "")))
	f.Add("{}")
	handler := authenticator.Reviews{Authenticator: newAuthenticator(f, config(whole()))}
	f.Fuzz(func(t *testing.T, body string) {
		recorder := httptest.NewRecorder()
		handler.ServeHTTP(recorder, review(t, body))
		if recorder.Code == http.StatusInternalServerError {
			t.Errorf("panicked: %s", recorder.Body)
		}
	})
}
