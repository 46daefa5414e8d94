package servingcert

import (
	"bytes"
	"crypto/x509"
	"maps"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sakeeper/sakeeper/pkg/servingcert/pki"
	"github.com/sakeeper/sakeeper/pkg/testkit"
)

func TestParse(t *testing.T) {
	l := newLives(t)
	full := l.staged
	full.old = []*x509.Certificate{l.unrelated.ca.Cert()}
	data := mustData(t, full)
	unrelated := mustData(t, l.unrelated)
	cases := map[string]struct {
		in   func(map[string][]byte)
		want func(*contents)
	}{
		"all of it":                    {},
		"other keys do not matter":     {in: func(d map[string][]byte) { d["note"] = []byte("mine") }},
		"nothing":                      {in: func(d map[string][]byte) { clear(d) }, want: func(c *contents) { *c = contents{} }},
		"a CA without its key":         {in: func(d map[string][]byte) { delete(d, keyCAKey) }, want: func(c *contents) { c.ca, c.damaged = pki.Pair{}, []string{keyCA} }},
		"a CA with the key of another": {in: func(d map[string][]byte) { d[keyCAKey] = unrelated[keyCAKey] }, want: func(c *contents) { c.ca, c.damaged = pki.Pair{}, []string{keyCA} }},
		"a CA that is not a CA":        {in: func(d map[string][]byte) { d[keyCA], d[keyCAKey] = d[keyServing], d[keyServingKey] }, want: func(c *contents) { c.ca, c.damaged = pki.Pair{}, []string{keyCA} }},
		"a serving certificate that is a CA": {in: func(d map[string][]byte) { d[keyServing], d[keyServingKey] = d[keyCA], d[keyCAKey] }, want: func(c *contents) {
			c.serving, c.damaged = pki.Pair{}, []string{keyServing}
		}},
		"a truncated next CA": {in: func(d map[string][]byte) { d[keyNextCA] = d[keyNextCA][:100] }, want: func(c *contents) { c.next, c.damaged = pki.Pair{}, []string{keyNextCA} }},
		"no next CA":          {in: func(d map[string][]byte) { delete(d, keyNextCA); delete(d, keyNextCAKey) }, want: func(c *contents) { c.next = pki.Pair{} }},
		"old CAs in part": {in: func(d map[string][]byte) {
			d[keyOldCAs] = append(d[keyOldCAs], "-----BEGIN"...)
			d[keyOldCAs] = append(d[keyOldCAs], " X"...)
		}, want: func(c *contents) { c.damaged = []string{keyOldCAs} }},
		"garbage everywhere": {
			in: func(d map[string][]byte) {
				for key := range d {
					d[key] = []byte("garbage")
				}
			},
			want: func(c *contents) { *c = contents{damaged: []string{keyCA, keyNextCA, keyServing, keyOldCAs}} },
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			in := map[string][]byte{}
			for key, value := range data {
				in[key] = bytes.Clone(value)
			}
			want := full
			if tc.in != nil {
				tc.in(in)
			}
			if tc.want != nil {
				tc.want(&want)
			}
			if diff := cmp.Diff(want, parse(in), pairs); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// TestChange follows a CA through its life.
func TestChange(t *testing.T) {
	now := testkit.Instant()
	step := func(c contents, act action, hosts ...string) contents {
		t.Helper()
		next, err := c.change(act, hosts, now)
		if err != nil {
			t.Fatal(err)
		}
		if !next.serving.Covers(hosts) || next.serving.Cert().CheckSignatureFrom(next.ca.Cert()) != nil {
			t.Errorf("%s: %v is not signed by %v for %v", act, next.serving, next.ca, hosts)
		}
		return next
	}
	expect := func(what string, want, got contents) {
		t.Helper()
		if diff := cmp.Diff(want, got, pairs); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	first := step(contents{damaged: []string{keyCA}}, begin, "a")
	expect("begin", contents{ca: first.ca, serving: first.serving}, first)

	issued := step(first, issue, "a", "b")
	expect("issue", contents{ca: first.ca, serving: issued.serving}, issued)
	if issued.serving.String() == first.serving.String() {
		t.Error("nothing was issued")
	}

	now = now.Add(250 * day)
	staged := step(issued, stage)
	expect("stage", contents{ca: first.ca, next: staged.next, serving: issued.serving}, staged)
	if !staged.next.IsCA() || staged.next.String() == first.ca.String() {
		t.Errorf("staged %v", staged.next)
	}

	promoted := step(staged, promote, "a", "b")
	expect("promote", contents{ca: staged.next, old: []*x509.Certificate{first.ca.Cert()}, serving: promoted.serving}, promoted)
	if !bytes.Equal(staged.bundle(), promoted.bundle()) {
		t.Error("the bundle changed when the next CA took over")
	}
	if !issued.serving.TrustedBy(promoted.bundle(), "a", testkit.Instant()) {
		t.Error("the last certificate of the old CA is not trusted any more")
	}
	if data := mustData(t, promoted); bytes.Contains(bytes.Join(values(data), nil), mustData(t, first)[keyCAKey]) {
		t.Error("the private key of the old CA is kept")
	}

	expect("prune too early", promoted, step(promoted, prune))
	now = now.Add(116 * day)
	pruned := step(promoted, prune)
	expect("prune", contents{ca: promoted.ca, old: []*x509.Certificate{}, serving: promoted.serving}, pruned)
	if _, err := (contents{}).change(issue, []string{"a"}, now); err == nil {
		t.Error("a certificate was issued without a CA")
	}
}

func values(data map[string][]byte) [][]byte {
	var all [][]byte
	for value := range maps.Values(data) {
		all = append(all, value)
	}
	return all
}
