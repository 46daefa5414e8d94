package tokenrequest

import (
	"encoding/base64"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"

	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/token"
)

func encoded(payload string) string {
	return "e30." + base64.RawURLEncoding.EncodeToString([]byte(payload)) + ".c2ln"
}

func TestReadClaims(t *testing.T) {
	const (
		bound = `"kubernetes.io":{"secret":{"name":"s","uid":"` + string(testkit.SecretUID) + `"},"serviceaccount":{"name":"robot","uid":"` + string(testkit.AccountUID) + `"}}`
		other = `"kubernetes.io":{"secret":{"uid":"` + string(testkit.OtherUID) + `"},"serviceaccount":{"uid":"` + string(testkit.AccountUID) + `"}}`
		alien = `"kubernetes.io":{"secret":{"uid":"` + string(testkit.SecretUID) + `"},"serviceaccount":{"uid":"` + string(testkit.OtherUID) + `"}}`
	)
	cases := map[string]struct {
		in      string
		want    results
		wantErr error
	}{
		"a bound token":            {in: encoded(`{"iat":1767323045,"exp":1767326645,"jti":"id",` + bound + `}`), want: results{"2026-01-02T03:04:05Z", "2026-01-02T04:04:05Z", "JTI=id"}},
		"one without an id":        {in: encoded(`{"iat":1767323045,"exp":1767326645,` + bound + `}`), want: results{"2026-01-02T03:04:05Z", "2026-01-02T04:04:05Z", ""}},
		"nothing":                  {in: "", wantErr: token.ErrNoClaims},
		"not bound":                {in: encoded(`{"iat":1767323045,"exp":1767326645}`), wantErr: errUnbound},
		"bound to another secret":  {in: encoded(`{"iat":1767323045,"exp":1767326645,` + other + `}`), wantErr: errUnbound},
		"bound to another account": {in: encoded(`{"iat":1767323045,"exp":1767326645,` + alien + `}`), wantErr: errUnbound},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got, err := readClaims(&authenticationv1.TokenRequest{Status: authenticationv1.TokenRequestStatus{Token: tc.in}}, testkit.SecretUID, testkit.AccountUID)
			if !errors.Is(err, tc.wantErr) {
				t.Fatalf("got %v, want %v", err, tc.wantErr)
			}
			if err != nil {
				return
			}
			if diff := cmp.Diff(tc.want, resultsOf(got), cmp.AllowUnexported(results{})); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestTerm(t *testing.T) {
	start := testkit.Instant()
	cases := map[string]struct {
		in     results
		want   token.Validity
		wantOK bool
	}{
		"valid times":           {in: results{issuedAt: "2026-01-02T03:04:05Z", expiresAt: "2026-01-02T04:04:05Z"}, want: token.Validity{Issued: start, Expires: start.Add(time.Hour)}, wantOK: true},
		"no results":            {},
		"no time":               {in: results{issuedAt: "2026-01-02T03:04:05Z", expiresAt: "tomorrow"}},
		"an expiry in the past": {in: results{issuedAt: "2026-01-02T03:04:05Z", expiresAt: "2026-01-02T03:04:05Z"}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got, ok := tc.in.term()
			if ok != tc.wantOK || ok && (!got.Issued.Equal(tc.want.Issued) || !got.Expires.Equal(tc.want.Expires)) {
				t.Errorf("got %v %t, want %v %t", got, ok, tc.want, tc.wantOK)
			}
		})
	}
}
