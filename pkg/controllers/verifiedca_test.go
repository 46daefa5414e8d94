package controllers

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	"k8s.io/client-go/rest"

	"github.com/sakeeper/sakeeper/pkg/cabundle"
	"github.com/sakeeper/sakeeper/pkg/testkit"
)

func TestJudgeCA(t *testing.T) {
	cases := map[string]struct {
		changed, inUse verification
		want           caVerdict
	}{
		"it verifies the server": {changed: verified, inUse: failed, want: useCA},
		"both do":                {changed: verified, inUse: verified, want: useCA},
		"it does, and the last one was not answered":    {changed: verified, inUse: noAnswer, want: useCA},
		"only the last one does":                        {changed: failed, inUse: verified, want: refuseCA},
		"neither does":                                  {changed: failed, inUse: failed, want: useUnverifiedCA},
		"the server does not answer":                    {changed: noAnswer, inUse: noAnswer, want: waitForAnswer},
		"it does not answer the changed one":            {changed: noAnswer, inUse: failed, want: waitForAnswer},
		"it fails, and the last one could not be tried": {changed: failed, inUse: noAnswer, want: waitForAnswer},
		"the last one does, and it could not be tried":  {changed: noAnswer, inUse: verified, want: waitForAnswer},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if got := judgeCA(tc.changed, tc.inUse); got != tc.want {
				t.Errorf("verdict %d, want %d", got, tc.want)
			}
		})
	}
}

func mustBundle(t *testing.T, data []byte) cabundle.Bundle {
	t.Helper()
	bundle, err := cabundle.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	return bundle
}

// changeable is a source whose value the test sets.
type changeable struct {
	constant[cabundle.Bundle]
	f func()
}

func (c *changeable) OnChange(f func()) { c.f = f }

func TestAChangedRootCAIsChecked(t *testing.T) {
	server := httptest.NewTLSServer(http.NotFoundHandler())
	defer server.Close()
	right := mustBundle(t, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
	wrong, other := testkit.Bundle(), testkit.OtherBundle()
	verify := verifyServer(&rest.Config{Host: server.URL})

	cases := map[string]struct {
		inUse, changed cabundle.Bundle
		down           bool
		want           cabundle.Bundle
		wantSettled    bool
		wantWarnings   []caVerdict
	}{
		"a wrong one is refused":                {inUse: right, changed: wrong, want: right, wantWarnings: []caVerdict{refuseCA}},
		"a right one is used":                   {inUse: wrong, changed: right, want: right, wantSettled: true},
		"of two that verify nothing, the new":   {inUse: wrong, changed: other, want: other, wantSettled: true, wantWarnings: []caVerdict{useUnverifiedCA}},
		"without an answer, the last one stays": {inUse: right, changed: wrong, down: true, want: right},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			verify := verify
			if tc.down {
				verify = func(context.Context, cabundle.Bundle) verification { return noAnswer }
			}
			source := &changeable{constant: constant[cabundle.Bundle]{tc.inUse}}
			v := newVerifiedCA(source, verify)
			calls, warnings := 0, []caVerdict(nil)
			v.warn = func(verdict caVerdict, _ string) { warnings = append(warnings, verdict) }
			v.OnChange(func() { calls++ })
			source.constant = constant[cabundle.Bundle]{tc.changed}
			for range 2 { // the second check reports nothing again
				v.check(t.Context())
			}
			if v.Get().Sum() != tc.want.Sum() || (v.Ready() == nil) != tc.wantSettled || (calls > 0) != tc.wantSettled || !slices.Equal(warnings, tc.wantWarnings) {
				t.Errorf("in use %s, ready: %v, %d calls, warnings %v", v.Get().Fingerprint(), v.Ready(), calls, warnings)
			}
			source.constant = constant[cabundle.Bundle]{tc.inUse}
			if tc.want.Sum() != tc.inUse.Sum() {
				return
			}
			if v.check(t.Context()); v.Ready() != nil {
				t.Errorf("the file was changed back: %v", v.Ready())
			}
		})
	}
}

func TestTheRootCAOfTheStart(t *testing.T) {
	right, wrong, garbage := testkit.Bundle().PEM(), testkit.OtherBundle().PEM(), []byte("garbage")
	verifies := func(pem []byte) func(context.Context, cabundle.Bundle) verification {
		return func(_ context.Context, bundle cabundle.Bundle) verification {
			if bytes.Equal(bundle.PEM(), pem) {
				return verified
			}
			return failed
		}
	}
	down := func(context.Context, cabundle.Bundle) verification { return noAnswer }
	unknown := errors.New("the API server is overloaded")
	cases := map[string]struct {
		configured   []byte
		published    publishedCA
		verify       func(context.Context, cabundle.Bundle) verification
		want         []byte
		wantReady    bool
		wantErr      error
		wantWarnings []caVerdict
	}{
		"the published one":                               {configured: wrong, published: publishedCA{pem: wrong}, verify: down, want: wrong, wantReady: true},
		"a wrong one, where the published one is right":   {configured: wrong, published: publishedCA{pem: right}, verify: verifies(right), want: right, wantWarnings: []caVerdict{refuseCA}},
		"a right one, where the published one is wrong":   {configured: right, published: publishedCA{pem: wrong}, verify: verifies(right), want: right, wantReady: true},
		"a wrong one, where the published one is so too":  {configured: wrong, published: publishedCA{pem: right}, verify: verifies(nil), want: wrong, wantReady: true, wantWarnings: []caVerdict{useUnverifiedCA}},
		"another one, and nothing can be checked":         {configured: wrong, published: publishedCA{pem: right}, verify: down, want: right},
		"a right one, where none is published":            {configured: right, verify: verifies(right), want: right, wantReady: true},
		"a wrong one, where none is published":            {configured: wrong, verify: verifies(right), want: wrong, wantReady: true, wantWarnings: []caVerdict{useUnverifiedCA}},
		"one, where garbage is published":                 {configured: wrong, published: publishedCA{pem: garbage}, verify: down, want: wrong, wantReady: true},
		"a right one, where the published one is unknown": {configured: right, published: publishedCA{err: unknown}, verify: verifies(right), want: right, wantReady: true},
		"a wrong one, where the published one is unknown": {configured: wrong, published: publishedCA{err: unknown}, verify: verifies(right), want: wrong, wantErr: unknown},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			v := newVerifiedCA(constant[cabundle.Bundle]{mustBundle(t, tc.configured)}, tc.verify)
			var warnings []caVerdict
			v.warn = func(verdict caVerdict, _ string) { warnings = append(warnings, verdict) }
			if err := v.begin(t.Context(), tc.published); !errors.Is(err, tc.wantErr) {
				t.Errorf("error %v, want %v", err, tc.wantErr)
			}
			if !bytes.Equal(v.Get().PEM(), tc.want) || (v.Ready() == nil) != tc.wantReady || !slices.Equal(warnings, tc.wantWarnings) {
				t.Errorf("in use %s, ready: %v, warnings %v", v.Get().Fingerprint(), v.Ready(), warnings)
			}
		})
	}
}
