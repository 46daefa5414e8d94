package boundtoken

import (
	"encoding/base64"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sakeeper/sakeeper/pkg/testkit"
)

func encoded(payload string) string {
	return "e30." + base64.RawURLEncoding.EncodeToString([]byte(payload)) + ".c2ln"
}

func TestReadClaims(t *testing.T) {
	const (
		times = `"iat":1767323045,"exp":1767326645`
		bound = `"kubernetes.io":{"namespace":"team","secret":{"name":"s","uid":"a"},"serviceaccount":{"name":"robot","uid":"b"},"pod":{"name":"p","uid":"c"}}`
	)
	hour := Term{testkit.Instant(), testkit.Instant().Add(time.Hour)}
	cases := map[string]struct {
		in      string
		want    Claims
		wantErr error
	}{
		"a bound token": {
			in:   encoded(`{` + times + `,"jti":"id",` + bound + `}`),
			want: Claims{Term: hour, ID: "id", Namespace: "team", Secret: Object{"s", "a"}, ServiceAccount: Object{"robot", "b"}, Pod: Object{"p", "c"}},
		},
		"one that is bound to nothing": {in: encoded(`{` + times + `}`), want: Claims{Term: hour}},
		"nothing":                      {in: "", wantErr: ErrNoClaims},
		"no JWT":                       {in: "opaque", wantErr: ErrNoClaims},
		"no base64":                    {in: "a.!.c", wantErr: ErrNoClaims},
		"no JSON":                      {in: encoded("x"), wantErr: ErrNoClaims},
		"no times":                     {in: encoded(`{` + bound + `}`), wantErr: ErrNoTerm},
		"no expiry":                    {in: encoded(`{"iat":1767323045,` + bound + `}`), wantErr: ErrNoTerm},
		"no lifetime":                  {in: encoded(`{"iat":1767323045,"exp":1767323045,` + bound + `}`), wantErr: ErrNoTerm},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got, err := ReadClaims(tc.in)
			if !errors.Is(err, tc.wantErr) {
				t.Errorf("error %v, want %v", err, tc.wantErr)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}
