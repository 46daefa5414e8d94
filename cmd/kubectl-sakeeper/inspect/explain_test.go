package inspect

import (
	"encoding/base64"
	"encoding/json"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/google/go-cmp/cmp"

	"github.com/sakeeper/sakeeper/pkg/inventory"
	"github.com/sakeeper/sakeeper/pkg/keys"
	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/token"
)

// unsigned returns a token with these claims and a signature that no key made.
func unsigned(claims string) string {
	encode := base64.RawURLEncoding.EncodeToString
	return encode([]byte(`{"alg":"ES256","kid":"k"}`)) + "." + encode([]byte(claims)) + "." + encode([]byte("signature"))
}

func TestExplainClaims(t *testing.T) {
	now := testkit.Instant()
	seconds := func(d time.Duration) string { return strconv.FormatInt(now.Add(d).Unix(), 10) }
	base := explanation{Kind: notOurs, Algorithm: "ES256", KeyID: "k", Verified: inventory.Unknown}
	with := func(change func(*explanation)) explanation {
		e := base
		change(&e)
		return e
	}
	unreadable := explanation{Kind: notOurs, Verified: inventory.Unknown, Problems: []string{"its header or its claims cannot be read"}}
	cases := map[string]struct {
		in   string
		want explanation
	}{
		"no claims":                  {in: `{}`, want: base},
		"claims that are a list":     {in: `[]`, want: unreadable},
		"claims that are no JSON":    {in: `{"iss"`, want: unreadable},
		"no claims at all":           {in: ``, want: unreadable},
		"an issuer that is a number": {in: `{"iss":1}`, want: unreadable},
		"a time that is a text":      {in: `{"exp":"tomorrow"}`, want: unreadable},
		"private claims of a text":   {in: `{"kubernetes.io":"x"}`, want: unreadable},
		"times that are impossible":  {in: `{"exp":1e300,"iat":-5,"nbf":0}`, want: base},
		"an audience":                {in: `{"aud":"a"}`, want: with(func(e *explanation) { e.Audiences = []string{"a"} })},
		"audiences":                  {in: `{"aud":["a","b"]}`, want: with(func(e *explanation) { e.Audiences = []string{"a", "b"} })},
		"an audience of a number":    {in: `{"aud":1}`, want: unreadable},
		"a legacy token without names": {in: `{"iss":"kubernetes/serviceaccount"}`, want: with(func(e *explanation) {
			e.Kind, e.Issuer = "legacy", token.LegacyIssuer
			e.BoundTo = []object{{"ServiceAccount", "/", ""}, {"Secret", "/", ""}}
		})},
		"a bound token": {
			in: `{"kubernetes.io":{"namespace":"n","serviceaccount":{"name":"a","uid":"1"},"pod":{"name":"p","uid":"2"},"secret":{"name":"s"},"node":{"name":"w","uid":"3"},
				"validatingwebhookconfiguration":{"name":"v"},"mutatingwebhookconfiguration":{"name":"m"}}}`,
			want: with(func(e *explanation) {
				e.Kind = "bound"
				e.BoundTo = []object{
					{"ServiceAccount", "n/a", "1"}, {"Pod", "n/p", "2"}, {"Secret", "n/s", ""}, {"Node", "w", "3"}, {"ValidatingWebhookConfiguration", "v", ""}, {"MutatingWebhookConfiguration", "m", ""},
				}
			}),
		},
		"private claims without an account": {in: `{"kubernetes.io":{"namespace":"n","pod":{"name":"p"}}}`, want: base},
		"it has expired": {in: `{"exp":` + seconds(-time.Hour) + `}`, want: with(func(e *explanation) {
			e.Expires, e.Problems = instant(float64(now.Add(-time.Hour).Unix())), []string{"it has expired"}
		})},
		"it is not valid yet": {in: `{"nbf":` + seconds(time.Hour) + `}`, want: with(func(e *explanation) {
			e.NotBefore, e.Problems = instant(float64(now.Add(time.Hour).Unix())), []string{"it is not valid yet"}
		})},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, explain(unsigned(tc.in), nil, now)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
	if diff := cmp.Diff(unreadable, explain("eyJ.AAAA.", nil, now)); diff != "" {
		t.Errorf("a header that is no JSON (-want +got):\n%s", diff)
	}
}

func TestVerify(t *testing.T) {
	own, other := testkit.Keys("p256"), testkit.Keys("rsa2048")
	good := legacy(t, "s")
	signed := func(claims string) string {
		segments, err := token.NewSigner(func() *keys.Set { return own }).Sign(base64.RawURLEncoding.EncodeToString([]byte(claims)))
		if err != nil {
			t.Fatal(err)
		}
		return segments.Header + "." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + "." + segments.Signature
	}
	cases := map[string]struct {
		in          string
		keys        *keys.Set
		want        inventory.Answer
		wantProblem string // its beginning
	}{
		"a published key":     {in: good, keys: own, want: inventory.Yes},
		"another key":         {in: good, keys: other, want: inventory.No, wantProblem: "the API server does not publish its key"},
		"no keys are known":   {in: good, want: inventory.Unknown},
		"another signature":   {in: good[:len(good)-8] + "AAAAAAAA", keys: own, want: inventory.No, wantProblem: "its signature is wrong"},
		"no signature":        {in: good[:strings.LastIndex(good, ".")+1], keys: own, want: inventory.No, wantProblem: "its signature is wrong"},
		"the token of a user": {in: signed(`{"iss":"https://example.com","sub":"jane","aud":["x"],"exp":4000000000,"iat":1}`), keys: own, want: inventory.Yes},
		"bound to what is unknown": {
			in:   signed(`{"iss":"i","aud":["x"],"exp":4000000000,"iat":1,"kubernetes.io":{"namespace":"n","serviceaccount":{"name":"a","uid":"1"},"gizmo":{"name":"x","uid":"2"}}}`),
			keys: own, want: inventory.Yes, wantProblem: "its claims are not those",
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			e := explain(tc.in, tc.keys, testkit.Instant())
			if e.Verified != tc.want || (len(e.Problems) > 0) != (tc.wantProblem != "") || !strings.HasPrefix(strings.Join(e.Problems, "\n"), tc.wantProblem) {
				t.Errorf("got %s %q, want %s %q", e.Verified, e.Problems, tc.want, tc.wantProblem)
			}
		})
	}
}

// FuzzExplain prints what a terminal can show, whatever is in the claims.
func FuzzExplain(f *testing.F) {
	for _, claims := range []string{`{}`, `{"sub":"\u001b[2J\n","aud":["\t"]}`, `{"kubernetes.io":{"serviceaccount":{"name":"\u0000"}}}`, `{"exp":1e20,"iat":-1}`, `[`} {
		f.Add(claims)
	}
	set := testkit.Keys("p256")
	f.Fuzz(func(t *testing.T, claims string) {
		var text strings.Builder
		e := explain(unsigned(claims), set, testkit.Instant())
		e.write(&text, testkit.Instant())
		for _, r := range text.String() {
			if r != '\n' && !unicode.IsPrint(r) {
				t.Errorf("it printed %q", r)
			}
		}
		if _, err := json.Marshal(document{[]explanation{e}}); err != nil {
			t.Error(err)
		}
	})
}
