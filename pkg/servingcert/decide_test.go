package servingcert

import (
	"crypto/sha256"
	"crypto/x509"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/sakeeper/sakeeper/pkg/servingcert/pki"
	"github.com/sakeeper/sakeeper/pkg/testkit"
)

// lives are certificates of one CA, made at the fixtures' instant, and of the next.
type lives struct {
	now        time.Time
	first      contents
	next       pki.Pair
	second     contents // after the next has taken over
	staged     contents // before that
	unrelated  contents
	servedLate pki.Pair // by the first CA, so late that the CA's end cuts it short
}

func newLives(t *testing.T) lives {
	t.Helper()
	l := lives{now: testkit.Instant()}
	l.first = made(t, l.now)
	l.next = mustCA(t, l.now.Add(250*day))
	l.staged = l.first
	l.staged.next = l.next
	l.second = contents{ca: l.next, old: []*x509.Certificate{l.first.ca.Cert()}, serving: mustIssue(t, l.next, l.now.Add(250*day), host)}
	l.unrelated = made(t, l.now)
	l.servedLate = mustIssue(t, l.first.ca, l.now.Add(300*day), host)
	return l
}

func TestDecideOnTheSecret(t *testing.T) {
	l := newLives(t)
	change := func(c contents, f func(*contents)) *contents {
		f(&c)
		return &c
	}
	fresh := func(c contents, at time.Duration) *contents { // with a serving certificate of that time
		return change(c, func(c *contents) { c.serving = mustIssue(t, c.ca, l.now.Add(at), host) })
	}
	cases := map[string]struct {
		in          *contents // nil: there is no Secret
		inType      corev1.SecretType
		inAfter     time.Duration // now, seen from the making of the first CA
		inWritten   time.Duration // as above, by the API server's clock
		inHosts     []string
		inPublished time.Duration // for how long the bundle has been in every configuration; 0: it is not
		want        action
		wantReason  string
		wantHosts   []string // those of the new certificate, where they are not inHosts
	}{
		"no secret":                              {want: keep, wantReason: "there is no secret"},
		"another replica was faster":             {in: &l.first, want: keep, wantReason: "the certificates are right"},
		"the first start, with the empty secret": {in: &contents{}, want: begin, wantReason: "the CA is missing"},
		"a secret of another type":               {in: &contents{}, inType: corev1.SecretTypeTLS, want: refuse, wantReason: `its type is "kubernetes.io/tls", not "sakeeper.io/webhook-certificates": it is somebody else's`},
		"also if it looks right":                 {in: &l.first, inType: corev1.SecretTypeOpaque, want: refuse, wantReason: `its type is "Opaque", not "sakeeper.io/webhook-certificates": it is somebody else's`},

		"a CA that cannot be read":                    {in: change(l.first, func(c *contents) { c.ca, c.damaged = pki.Pair{}, []string{keyCA} }), want: begin, wantReason: "the CA is damaged"},
		"one that cannot be read, and a next one":     {in: change(l.staged, func(c *contents) { c.ca, c.damaged = pki.Pair{}, []string{keyCA} }), inAfter: 251 * day, want: promote, wantReason: "the CA is damaged"},
		"a CA that has expired":                       {in: &l.first, inAfter: 365 * day, want: begin, wantReason: "the CA is expired"},
		"a CA in its last moment":                     {in: change(l.first, func(c *contents) { c.serving, c.next = l.servedLate, l.next }), inAfter: 365*day - 1, want: keep, wantReason: "the certificates are right"},
		"one that has expired, and a next one":        {in: &l.staged, inAfter: 365 * day, want: promote, wantReason: "the CA is expired"},
		"everything has expired":                      {in: &l.staged, inAfter: 1000 * day, want: begin, wantReason: "the CA is expired"},
		"a CA from the future, of a clock ahead":      {in: &l.first, inAfter: -2 * time.Hour, inWritten: -2 * time.Hour, want: begin, wantReason: "the CA is not valid yet"},
		"a CA from the future, of our clock behind":   {in: &l.first, inAfter: -2 * time.Hour, want: keep, wantReason: "the clock of this process is behind the API server's"},
		"our clock is behind, and nothing is there":   {in: &contents{}, inAfter: -2 * time.Hour, want: keep, wantReason: "the clock of this process is behind the API server's"},
		"our clock is behind by less than an hour":    {in: &l.first, inAfter: -time.Hour, want: keep, wantReason: "the certificates are right"},
		"the secret of others, and a clock behind":    {in: &l.first, inType: corev1.SecretTypeOpaque, inAfter: -2 * time.Hour, want: refuse, wantReason: `its type is "Opaque", not "sakeeper.io/webhook-certificates": it is somebody else's`},
		"our clock is ahead of what was written once": {in: &l.first, inAfter: 50 * day, want: keep, wantReason: "the certificates are right"},

		"no serving certificate":                     {in: change(l.first, func(c *contents) { c.serving = pki.Pair{} }), want: issue, wantReason: "the serving certificate is missing"},
		"one that cannot be read":                    {in: change(l.first, func(c *contents) { c.serving, c.damaged = pki.Pair{}, []string{keyServing} }), want: issue, wantReason: "the serving certificate is damaged"},
		"one that has expired":                       {in: &l.first, inAfter: 90 * day, want: issue, wantReason: "the serving certificate is expired"},
		"one from the future, of a clock ahead":      {in: fresh(l.first, 2*time.Hour), want: issue, wantReason: "the serving certificate is not valid yet"},
		"one of another CA":                          {in: change(l.first, func(c *contents) { c.serving = l.unrelated.serving }), want: issue, wantReason: "the serving certificate is of another CA"},
		"one before the last third of its life":      {in: &l.first, inAfter: 59 * day, want: keep, wantReason: "the certificates are right"},
		"one in it":                                  {in: &l.first, inAfter: 60 * day, want: issue, wantReason: "the serving certificate is in the last third of its life"},
		"one that a new one would not outlast":       {in: change(l.staged, func(c *contents) { c.serving = l.servedLate }), inAfter: 360 * day, want: keep, wantReason: "the certificates are right"},
		"another host":                               {in: &l.first, inHosts: []string{"10.0.0.1"}, want: issue, wantReason: "the serving certificate lacks a host", wantHosts: []string{"10.0.0.1", host}},
		"another host, and it is time anyway":        {in: &l.first, inHosts: []string{"10.0.0.1"}, inAfter: 80 * day, want: issue, wantReason: "the serving certificate lacks a host", wantHosts: []string{"10.0.0.1", host}},
		"fewer hosts than it has":                    {in: change(l.first, func(c *contents) { c.serving = mustIssue(t, c.ca, l.now, host, "more") }), want: keep, wantReason: "the certificates are right"},
		"in time, the hosts of others are forgotten": {in: change(l.first, func(c *contents) { c.serving = mustIssue(t, c.ca, l.now, host, "more") }), inAfter: 61 * day, want: issue, wantReason: "the serving certificate is in the last third of its life"},

		"a CA before the last third of its life":            {in: fresh(l.first, 240*day), inAfter: 243 * day, want: keep, wantReason: "the certificates are right"},
		"a CA in it":                                        {in: fresh(l.first, 240*day), inAfter: 244 * day, want: stage, wantReason: "the CA is in the last third of its life"},
		"the next CA is not published":                      {in: fresh(l.staged, 240*day), inAfter: 251 * day, want: keep, wantReason: "the certificates are right"},
		"it was published a moment ago":                     {in: fresh(l.staged, 240*day), inAfter: 251 * day, inPublished: 10*time.Minute - 1, want: keep, wantReason: "the certificates are right"},
		"it has been published":                             {in: fresh(l.staged, 240*day), inAfter: 251 * day, inPublished: 10 * time.Minute, want: promote, wantReason: "the next CA has been published"},
		"it has been, and the serving certificate is due":   {in: &l.staged, inAfter: 251 * day, inPublished: time.Hour, want: promote, wantReason: "the next CA has been published"},
		"it has not been, and the serving certificate is":   {in: &l.staged, inAfter: 251 * day, want: issue, wantReason: "the serving certificate is expired"},
		"the next CA cannot be read":                        {in: change(*fresh(l.first, 240*day), func(c *contents) { c.damaged = []string{keyNextCA} }), inAfter: 241 * day, want: stage, wantReason: "the next CA is damaged"},
		"the next CA has expired":                           {in: change(l.second, func(c *contents) { c.next = l.first.ca }), inAfter: 400 * day, want: issue, wantReason: "the serving certificate is expired"},
		"the next CA has expired, and all else is right":    {in: change(*fresh(l.second, 395*day), func(c *contents) { c.next = l.first.ca }), inAfter: 400 * day, want: stage, wantReason: "the next CA is expired"},
		"the next CA is from the future":                    {in: fresh(l.staged, 200*day), inAfter: 210 * day, inPublished: time.Hour, want: stage, wantReason: "the next CA is not valid yet"},
		"an old CA that has not expired":                    {in: &l.second, inAfter: 251 * day, want: keep, wantReason: "the certificates are right"},
		"one that has, but not for readers a bit behind":    {in: fresh(l.second, 360*day), inAfter: 365*day + time.Hour - 1, want: keep, wantReason: "the certificates are right"},
		"one that has":                                      {in: fresh(l.second, 360*day), inAfter: 365*day + time.Hour, want: prune, wantReason: "an old CA has expired or is damaged"},
		"an old CA that cannot be read":                     {in: change(l.second, func(c *contents) { c.damaged = []string{keyOldCAs} }), inAfter: 251 * day, want: prune, wantReason: "an old CA has expired or is damaged"},
		"a bundle that is published has nothing to wait on": {in: &l.first, inPublished: time.Hour, want: keep, wantReason: "the certificates are right"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			s := state{now: l.now.Add(tc.inAfter), hosts: tc.inHosts, named: []string{"the configuration"}}
			if s.hosts == nil {
				s.hosts = []string{host}
			}
			if tc.in != nil {
				s.contents = *tc.in
				s.found = newSecret(secretOf(t, contents{}))
				s.found.WrittenAt = l.now.Add(tc.inWritten)
				if tc.inType != "" {
					s.found.Type = tc.inType
				}
				if tc.inPublished > 0 {
					bundle := s.contents.bundle()
					s.configurations = []*Configuration{reduceMutating(mutating(bundle)), reduceValidating(validating(bundle))}
					s.published = publication{sum: sha256.Sum256(bundle), since: s.now.Add(-tc.inPublished)}
				}
			}
			if tc.wantHosts == nil {
				tc.wantHosts = s.hosts
			}
			p := decide(s)
			if p.act != tc.want || p.reason != tc.wantReason {
				t.Errorf("got %s, %q; want %s, %q", p.act, p.reason, tc.want, tc.wantReason)
			}
			if diff := cmp.Diff(tc.wantHosts, p.hosts); diff != "" {
				t.Errorf("hosts (-want +got):\n%s", diff)
			}
		})
	}
}

// TestEveryChangeIsTheLast: what comes of a decision must not call for the next at
// once, whatever the time, or replicas would write for ever.
func TestEveryChangeIsTheLast(t *testing.T) {
	began := testkit.Instant()
	at := contents{}
	var acts []action
	for now := began; now.Before(began.Add(800 * day)); now = now.Add(day) {
		for again := 0; ; again++ {
			s := state{now: now, hosts: []string{host}, found: newSecret(secretOf(t, contents{})), contents: at}
			s.found.WrittenAt = began
			bundle := at.bundle()
			if bundle != nil {
				s.configurations = []*Configuration{reduceMutating(mutating(bundle))}
				s.published = publication{sum: sha256.Sum256(bundle), since: now.Add(-day)}
			}
			p := decide(s)
			if p.act == keep {
				break
			}
			if again > 2 {
				t.Fatalf("after %v: still %s", now.Sub(began), p.act)
			}
			acts = append(acts, p.act)
			var err error
			if at, err = at.change(p.act, p.hosts, now); err != nil {
				t.Fatal(err)
			}
			if p.act != begin && string(bundle) != string(at.bundle()) && p.act != stage && p.act != prune {
				t.Errorf("after %v: %s changed the bundle", now.Sub(began), p.act)
			}
		}
		if !at.serving.TrustedBy(at.bundle(), host, now) || !at.serving.TrustedBy(at.bundle(), host, now.Add(29*day)) {
			t.Fatalf("after %v: the certificate is not good for the next 29 days", now.Sub(began))
		}
	}
	want := []action{
		begin, issue, issue, issue, issue, stage, promote,
		issue, issue, prune, issue, issue, stage, promote,
		issue, issue, prune, issue, issue, stage, promote, issue,
	}
	if diff := cmp.Diff(want, acts); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestDecideOnTheConfigurations(t *testing.T) {
	l := newLives(t)
	good, other := l.first.bundle(), l.unrelated.bundle()
	both := append(append([]byte(nil), other...), good...)
	m := func(bundles ...[]byte) *Configuration { return reduceMutating(mutating(bundles...)) }
	v := func(bundles ...[]byte) *Configuration { return reduceValidating(validating(bundles...)) }
	foreign := m(good)
	foreign.Webhooks[0].Host = "somebody.else.svc"
	mixed := m(good, nil, other)
	mixed.Webhooks[1].Host = "somebody.else.svc"
	untrusting := func(kind, webhook string) string {
		return kind + " sakeeper-webhook, webhook " + webhook + ".sakeeper.io: its caBundle does not trust the certificate that is served"
	}

	cases := map[string]struct {
		in          []*Configuration
		inContents  contents
		inServing   pki.Pair // what was served before
		inType      corev1.SecretType
		inAfter     time.Duration
		wantRepairs map[string][]string
		wantServe   pki.Pair
		wantUnready string
	}{
		"both are right": {
			in: []*Configuration{m(good), v(good)}, inContents: l.first, wantServe: l.first.serving,
		},
		"none is there": {
			inContents: l.first, wantServe: l.first.serving, wantUnready: "waiting for one and two",
		},
		"one is there, and there is nothing wrong in the other": {
			in: []*Configuration{v(good)}, inContents: l.first, wantServe: l.first.serving,
		},
		"a bundle was wiped": {
			in: []*Configuration{m(nil), v(good)}, inContents: l.first, wantServe: l.first.serving,
			wantRepairs: map[string][]string{kindMutating: {"a.sakeeper.io"}}, wantUnready: untrusting(kindMutating, "a"),
		},
		"both are foreign": {
			in: []*Configuration{m(other), v(other)}, inContents: l.first, wantServe: l.first.serving,
			wantRepairs: map[string][]string{kindMutating: {"a.sakeeper.io"}, kindValidating: {"a.sakeeper.io"}}, wantUnready: untrusting(kindMutating, "a"),
		},
		"one has more than ours, and is trusted until it is repaired": {
			in: []*Configuration{m(both), v(good)}, inContents: l.first, wantServe: l.first.serving,
			wantRepairs: map[string][]string{kindMutating: {"a.sakeeper.io"}},
		},
		"a bundle is garbage": {
			in: []*Configuration{m(good), v([]byte("garbage"))}, inContents: l.first, wantServe: l.first.serving,
			wantRepairs: map[string][]string{kindValidating: {"a.sakeeper.io"}}, wantUnready: untrusting(kindValidating, "a"),
		},
		"only webhooks that call us are touched": {
			in: []*Configuration{mixed}, inContents: l.first, wantServe: l.first.serving,
			wantRepairs: map[string][]string{kindMutating: {"c.sakeeper.io"}}, wantUnready: untrusting(kindMutating, "c"),
		},
		"none calls us": {
			in: []*Configuration{foreign, v(good)}, inContents: l.first, wantServe: l.first.serving,
			wantUnready: kindMutating + " sakeeper-webhook has no webhook that calls " + host,
		},
		"a configuration without webhooks": {
			in: []*Configuration{m(), v(good)}, inContents: l.first, wantServe: l.first.serving,
		},
		"a new CA, and they still trust the one that is served": {
			in: []*Configuration{m(other), v(other)}, inContents: l.first, inServing: l.unrelated.serving, wantServe: l.unrelated.serving,
			wantRepairs: map[string][]string{kindMutating: {"a.sakeeper.io"}, kindValidating: {"a.sakeeper.io"}},
		},
		"one of them trusts the new one": {
			in: []*Configuration{m(good), v(other)}, inContents: l.first, inServing: l.unrelated.serving, wantServe: l.first.serving,
			wantRepairs: map[string][]string{kindValidating: {"a.sakeeper.io"}}, wantUnready: untrusting(kindValidating, "a"),
		},
		"both trust the new one": {
			in: []*Configuration{m(good), v(good)}, inContents: l.first, inServing: l.unrelated.serving, wantServe: l.first.serving,
		},
		"the next CA is published": {
			in: []*Configuration{m(good), v(l.staged.bundle())}, inContents: l.staged, wantServe: l.first.serving,
			wantRepairs: map[string][]string{kindMutating: {"a.sakeeper.io"}},
		},
		"nothing is made yet": {
			in: []*Configuration{m(good), v(good)}, wantUnready: "there is no certificate yet",
		},
		"nothing is stored any more, and what is served is trusted": {
			in: []*Configuration{m(good), v(good)}, inServing: l.first.serving, wantServe: l.first.serving,
		},
		"a CA that has expired is published no more": {
			in: []*Configuration{m(nil), v(other)}, inContents: l.first, inAfter: 366 * day, wantServe: l.first.serving,
			wantUnready: untrusting(kindMutating, "a"),
		},
		"the secret is somebody else's": {
			in: []*Configuration{m(good), v(nil)}, inContents: l.first, inServing: l.unrelated.serving, inType: corev1.SecretTypeOpaque, wantServe: l.unrelated.serving,
			wantUnready: `the secret cannot be used: its type is "Opaque", not "sakeeper.io/webhook-certificates": it is somebody else's`,
			wantRepairs: nil,
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			s := state{now: l.now.Add(tc.inAfter), hosts: []string{host}, named: []string{"one", "two"}, contents: tc.inContents, configurations: tc.in, serving: tc.inServing}
			s.found = newSecret(secretOf(t, tc.inContents))
			if tc.inType != "" {
				s.found.Type = tc.inType
			}
			p := decide(s)
			got := map[string][]string{}
			for _, r := range p.repairs {
				got[r.configuration.Kind] = r.webhooks
			}
			if tc.wantRepairs == nil {
				tc.wantRepairs = map[string][]string{}
			}
			if diff := cmp.Diff(tc.wantRepairs, got); diff != "" {
				t.Errorf("repairs (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tc.wantServe, p.serve, pairs); diff != "" {
				t.Errorf("serve (-want +got):\n%s", diff)
			}
			if p.unready != tc.wantUnready {
				t.Errorf("unready %q, want %q", p.unready, tc.wantUnready)
			}
		})
	}
}

// TestPublication follows how long configurations have been seen with a bundle.
func TestPublication(t *testing.T) {
	l := newLives(t)
	now := l.now.Add(251 * day)
	bundle := l.staged.bundle()
	m := func(b []byte) *Configuration { return reduceMutating(mutating(b)) }
	v := func(b []byte) *Configuration { return reduceValidating(validating(b)) }
	before := publication{sum: sha256.Sum256(bundle), since: now.Add(-time.Minute)}
	cases := map[string]struct {
		in       []*Configuration
		inBefore publication
		want     publication
	}{
		"for the first time":             {in: []*Configuration{m(bundle), v(bundle)}, want: publication{sum: before.sum, since: now}},
		"since then":                     {in: []*Configuration{m(bundle), v(bundle)}, inBefore: before, want: before},
		"with another bundle before":     {in: []*Configuration{m(bundle)}, inBefore: publication{since: now.Add(-time.Hour)}, want: publication{sum: before.sum, since: now}},
		"one has lost it":                {in: []*Configuration{m(bundle), v(nil)}, inBefore: before},
		"one is gone, the other has it":  {in: []*Configuration{m(bundle)}, inBefore: before, want: before},
		"none is there":                  {inBefore: before},
		"one calls somebody else":        {in: []*Configuration{m(bundle), {}}, inBefore: before},
		"the clock was set back":         {in: []*Configuration{m(bundle)}, inBefore: publication{sum: before.sum, since: now.Add(time.Minute)}, want: publication{sum: before.sum, since: now}},
		"one has the CA that signs only": {in: []*Configuration{m(bundle), v(l.first.bundle())}, inBefore: before},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			s := state{now: now, hosts: []string{host}, contents: l.staged, configurations: tc.in, published: tc.inBefore}
			if got := decide(s).published; got != tc.want {
				t.Errorf("got %v since %v, want %v since %v", got.sum[:4], got.since, tc.want.sum[:4], tc.want.since)
			}
		})
	}
}
