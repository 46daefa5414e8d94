package controllers

import (
	"context"
	"encoding/pem"
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
			for range 2 { // the second look reports nothing again
				if got := v.look(t.Context()); got != tc.wantSettled {
					t.Errorf("settled %t", got)
				}
			}
			if v.Get().Sum() != tc.want.Sum() || (v.Ready() == nil) != tc.wantSettled || (calls > 0) != tc.wantSettled || !slices.Equal(warnings, tc.wantWarnings) {
				t.Errorf("in use %s, ready: %v, %d calls, warnings %v", v.Get().Fingerprint(), v.Ready(), calls, warnings)
			}
			source.constant = constant[cabundle.Bundle]{tc.inUse}
			if tc.want.Sum() == tc.inUse.Sum() && (!v.look(t.Context()) || v.Ready() != nil) {
				t.Errorf("the file was changed back: %v", v.Ready())
			}
		})
	}
}
