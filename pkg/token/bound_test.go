package token

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

func TestUnverifiedBoundClaims(t *testing.T) {
	const (
		times = `"iat":1767323045,"exp":1767326645`
		bound = `"kubernetes.io":{"namespace":"team","secret":{"name":"s","uid":"a"},"serviceaccount":{"name":"robot","uid":"b"},"pod":{"name":"p","uid":"c"}}`
	)
	hour := Validity{testkit.Instant(), testkit.Instant().Add(time.Hour)}
	cases := map[string]struct {
		in      string
		want    BoundClaims
		wantErr error
	}{
		"a bound token": {
			in:   encoded(`{` + times + `,"jti":"id",` + bound + `}`),
			want: BoundClaims{Validity: hour, ID: "id", Namespace: "team", Secret: Ref{"s", "a"}, ServiceAccount: Ref{"robot", "b"}, Pod: Ref{"p", "c"}},
		},
		"one that is bound to nothing": {in: encoded(`{` + times + `}`), want: BoundClaims{Validity: hour}},
		"good later than it was issued": {
			in:   encoded(`{"iat":1767319445,"nbf":1767323045,"exp":1767326645}`),
			want: BoundClaims{Validity: hour},
		},
		"good before it was issued": {in: encoded(`{"nbf":1767319445,` + times + `}`), want: BoundClaims{Validity: hour}},
		"over before it is good":    {in: encoded(`{"nbf":1767326645,` + times + `}`), wantErr: ErrNoValidity},
		"nothing":                   {in: "", wantErr: ErrNoClaims},
		"no JWT":                    {in: "opaque", wantErr: ErrNoClaims},
		"no base64":                 {in: "a.!.c", wantErr: ErrNoClaims},
		"no JSON":                   {in: encoded("x"), wantErr: ErrNoClaims},
		"no times":                  {in: encoded(`{` + bound + `}`), wantErr: ErrNoValidity},
		"no expiry":                 {in: encoded(`{"iat":1767323045,` + bound + `}`), wantErr: ErrNoValidity},
		"no lifetime":               {in: encoded(`{"iat":1767323045,"exp":1767323045,` + bound + `}`), wantErr: ErrNoValidity},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got, err := UnverifiedBoundClaims(tc.in)
			if !errors.Is(err, tc.wantErr) {
				t.Errorf("error %v, want %v", err, tc.wantErr)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestUnverifiedGranted(t *testing.T) {
	issued := testkit.Instant()
	cases := map[string]struct {
		in   time.Time
		want time.Duration
	}{
		"the same":                   {in: issued.Add(time.Hour), want: time.Hour},
		"the same, but for a second": {in: issued.Add(time.Hour - time.Second), want: time.Hour},
		"extended for old clients":   {in: issued.Add(30 * time.Minute), want: 30 * time.Minute},
		"said to be good longer":     {in: issued.Add(2 * time.Hour), want: time.Hour},
		"said to be over":            {in: issued, want: time.Hour},
		"not said":                   {want: time.Hour},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got, err := UnverifiedGranted(encoded(`{"iat":1767323045,"exp":1767326645}`), tc.in)
			if err != nil || got.Validity.Lifetime() != tc.want {
				t.Errorf("good for %v, %v, want %v", got.Validity.Lifetime(), err, tc.want)
			}
		})
	}
	if _, err := UnverifiedGranted("", time.Time{}); !errors.Is(err, ErrNoClaims) {
		t.Errorf("no token: %v", err)
	}
}
