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

// lives are contents with a first CA, made at the fixtures' instant, and with the next CA.
type lives struct {
	now        time.Time
	first      contents
	next       pki.Pair
	second     contents // after the next CA has taken over
	staged     contents // before that
	unrelated  contents
	servedLate pki.Pair // signed by the first CA, and cut short by the end of that
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
		inAfter     time.Duration // now, after the first CA was made
		inWritten   time.Duration // when the Secret was written, also after the first CA was made
		inHosts     []string
		inPublished time.Duration // how long the bundle has been in every configuration; 0: it is not
		want        action
		wantReason  string
		wantHosts   []string // the hosts of the new certificate, if not inHosts
	}{
		"no secret":                              {want: keep, wantReason: "there is no secret"},
		"another replica was faster":             {in: &l.first, want: keep, wantReason: "the certificates are right"},
		"the first start, with the empty secret": {in: &contents{}, want: begin, wantReason: "the CA is missing"},
		"a secret of another type":               {in: &contents{}, inType: corev1.SecretTypeTLS, want: refuse, wantReason: `its type is "kubernetes.io/tls", not "sakeeper.io/webhook-certificates"`},
		"another type, right data":               {in: &l.first, inType: corev1.SecretTypeOpaque, want: refuse, wantReason: `its type is "Opaque", not "sakeeper.io/webhook-certificates"`},

		"a CA that cannot be read":                     {in: change(l.first, func(c *contents) { c.ca, c.damaged = pki.Pair{}, []string{keyCA} }), want: begin, wantReason: "the CA is damaged"},
		"a CA that cannot be read, and a next CA":      {in: change(l.staged, func(c *contents) { c.ca, c.damaged = pki.Pair{}, []string{keyCA} }), inAfter: 251 * day, want: promote, wantReason: "the CA is damaged"},
		"a CA that has expired":                        {in: &l.first, inAfter: 365 * day, want: begin, wantReason: "the CA is expired"},
		"a CA in its last moment":                      {in: change(l.first, func(c *contents) { c.serving, c.next = l.servedLate, l.next }), inAfter: 365*day - 1, want: keep, wantReason: "the certificates are right"},
		"a CA that has expired, and a next CA":         {in: &l.staged, inAfter: 365 * day, want: promote, wantReason: "the CA is expired"},
		"everything has expired":                       {in: &l.staged, inAfter: 1000 * day, want: begin, wantReason: "the CA is expired"},
		"a CA from the future, made by a clock ahead":  {in: &l.first, inAfter: -2 * time.Hour, inWritten: -2 * time.Hour, want: begin, wantReason: "the CA is not valid yet"},
		"a CA from the future, and our clock behind":   {in: &l.first, inAfter: -2 * time.Hour, want: keep, wantReason: "the clock of this process is behind the API server's"},
		"our clock is behind, and the secret is empty": {in: &contents{}, inAfter: -2 * time.Hour, want: keep, wantReason: "the clock of this process is behind the API server's"},
		"our clock is behind by less than an hour":     {in: &l.first, inAfter: -time.Hour, want: keep, wantReason: "the certificates are right"},
		"a secret of another type, and a clock behind": {in: &l.first, inType: corev1.SecretTypeOpaque, inAfter: -2 * time.Hour, want: refuse, wantReason: `its type is "Opaque", not "sakeeper.io/webhook-certificates"`},
		"our clock is ahead of the last write":         {in: &l.first, inAfter: 50 * day, want: keep, wantReason: "the certificates are right"},

		"no serving certificate":                                  {in: change(l.first, func(c *contents) { c.serving = pki.Pair{} }), want: issue, wantReason: "the serving certificate is missing"},
		"a serving certificate that cannot be read":               {in: change(l.first, func(c *contents) { c.serving, c.damaged = pki.Pair{}, []string{keyServing} }), want: issue, wantReason: "the serving certificate is damaged"},
		"a serving certificate that has expired":                  {in: &l.first, inAfter: 90 * day, want: issue, wantReason: "the serving certificate is expired"},
		"a serving certificate from the future":                   {in: fresh(l.first, 2*time.Hour), want: issue, wantReason: "the serving certificate is not valid yet"},
		"a serving certificate of another CA":                     {in: change(l.first, func(c *contents) { c.serving = l.unrelated.serving }), want: issue, wantReason: "the serving certificate is of another CA"},
		"a serving certificate before the last third of its life": {in: &l.first, inAfter: 59 * day, want: keep, wantReason: "the certificates are right"},
		"a serving certificate in it":                             {in: &l.first, inAfter: 60 * day, want: issue, wantReason: "the serving certificate is in the last third of its life"},
		"a serving certificate that a new one would not outlast":  {in: change(l.staged, func(c *contents) { c.serving = l.servedLate }), inAfter: 360 * day, want: keep, wantReason: "the certificates are right"},
		"another host": {in: &l.first, inHosts: []string{"10.0.0.1"}, want: issue, wantReason: "the serving certificate does not cover a host", wantHosts: []string{"10.0.0.1", host}},
		"another host, and it is due for renewal":   {in: &l.first, inHosts: []string{"10.0.0.1"}, inAfter: 80 * day, want: issue, wantReason: "the serving certificate does not cover a host", wantHosts: []string{"10.0.0.1", host}},
		"fewer hosts than it has":                   {in: change(l.first, func(c *contents) { c.serving = mustIssue(t, c.ca, l.now, host, "more") }), want: keep, wantReason: "the certificates are right"},
		"renewal drops the hosts of other replicas": {in: change(l.first, func(c *contents) { c.serving = mustIssue(t, c.ca, l.now, host, "more") }), inAfter: 61 * day, want: issue, wantReason: "the serving certificate is in the last third of its life"},

		"a CA before the last third of its life":                {in: fresh(l.first, 240*day), inAfter: 243 * day, want: keep, wantReason: "the certificates are right"},
		"a CA in it":                                            {in: fresh(l.first, 240*day), inAfter: 244 * day, want: stage, wantReason: "the CA is in the last third of its life"},
		"the next CA is not published":                          {in: fresh(l.staged, 240*day), inAfter: 251 * day, want: keep, wantReason: "the certificates are right"},
		"the next CA was published a moment ago":                {in: fresh(l.staged, 240*day), inAfter: 251 * day, inPublished: 10*time.Minute - 1, want: keep, wantReason: "the certificates are right"},
		"the next CA has been published for ten minutes":        {in: fresh(l.staged, 240*day), inAfter: 251 * day, inPublished: 10 * time.Minute, want: promote, wantReason: "the next CA has been published"},
		"published, and the serving certificate is due":         {in: &l.staged, inAfter: 251 * day, inPublished: time.Hour, want: promote, wantReason: "the next CA has been published"},
		"not published, and the serving certificate is expired": {in: &l.staged, inAfter: 251 * day, want: issue, wantReason: "the serving certificate is expired"},
		"the next CA cannot be read":                            {in: change(*fresh(l.first, 240*day), func(c *contents) { c.damaged = []string{keyNextCA} }), inAfter: 241 * day, want: stage, wantReason: "the next CA is damaged"},
		"the next CA has expired":                               {in: change(l.second, func(c *contents) { c.next = l.first.ca }), inAfter: 400 * day, want: issue, wantReason: "the serving certificate is expired"},
		"the next CA has expired, and the rest is right":        {in: change(*fresh(l.second, 395*day), func(c *contents) { c.next = l.first.ca }), inAfter: 400 * day, want: stage, wantReason: "the next CA is expired"},
		"the next CA is from the future":                        {in: fresh(l.staged, 200*day), inAfter: 210 * day, inPublished: time.Hour, want: stage, wantReason: "the next CA is not valid yet"},
		"an old CA that has not expired":                        {in: &l.second, inAfter: 251 * day, want: keep, wantReason: "the certificates are right"},
		"an old CA that has not expired for clients behind":     {in: fresh(l.second, 360*day), inAfter: 365*day + time.Hour - 1, want: keep, wantReason: "the certificates are right"},
		"an old CA that has expired":                            {in: fresh(l.second, 360*day), inAfter: 365*day + time.Hour, want: prune, wantReason: "an old CA has expired or is damaged"},
		"an old CA that cannot be read":                         {in: change(l.second, func(c *contents) { c.damaged = []string{keyOldCAs} }), inAfter: 251 * day, want: prune, wantReason: "an old CA has expired or is damaged"},
		"a published bundle without a next CA":                  {in: &l.first, inPublished: time.Hour, want: keep, wantReason: "the certificates are right"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			s := state{now: l.now.Add(tc.inAfter), hosts: tc.inHosts, configurationNames: []string{"the configuration"}}
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

// TestOneChangeIsFollowedByNone at the same time, or replicas would write in a loop.
func TestOneChangeIsFollowedByNone(t *testing.T) {
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
	otherHost := m(good)
	otherHost.Webhooks[0].Host = "other.example.svc"
	mixed := m(good, nil, other)
	mixed.Webhooks[1].Host = "other.example.svc"
	untrusting := func(kind, webhook string) string {
		return kind + " sakeeper-webhook, webhook " + webhook + ".sakeeper.io: its caBundle does not trust the certificate that is served"
	}

	cases := map[string]struct {
		in          []*Configuration
		inContents  contents
		inServing   pki.Pair // the certificate that was served before
		inType      corev1.SecretType
		inAfter     time.Duration
		wantRepairs map[string][]string
		wantServe   pki.Pair
		wantUnready string
	}{
		"both are right": {
			in: []*Configuration{m(good), v(good)}, inContents: l.first, wantServe: l.first.serving,
		},
		"neither exists": {
			inContents: l.first, wantServe: l.first.serving, wantUnready: "waiting for one and two",
		},
		"one exists, and is right": {
			in: []*Configuration{v(good)}, inContents: l.first, wantServe: l.first.serving,
		},
		"a bundle was wiped": {
			in: []*Configuration{m(nil), v(good)}, inContents: l.first, wantServe: l.first.serving,
			wantRepairs: map[string][]string{kindMutating: {"a.sakeeper.io"}}, wantUnready: untrusting(kindMutating, "a"),
		},
		"both have another CA": {
			in: []*Configuration{m(other), v(other)}, inContents: l.first, wantServe: l.first.serving,
			wantRepairs: map[string][]string{kindMutating: {"a.sakeeper.io"}, kindValidating: {"a.sakeeper.io"}}, wantUnready: untrusting(kindMutating, "a"),
		},
		"one has another CA besides, and is trusted until it is repaired": {
			in: []*Configuration{m(both), v(good)}, inContents: l.first, wantServe: l.first.serving,
			wantRepairs: map[string][]string{kindMutating: {"a.sakeeper.io"}},
		},
		"a bundle is garbage": {
			in: []*Configuration{m(good), v([]byte("garbage"))}, inContents: l.first, wantServe: l.first.serving,
			wantRepairs: map[string][]string{kindValidating: {"a.sakeeper.io"}}, wantUnready: untrusting(kindValidating, "a"),
		},
		"only webhooks that call one of the hosts are changed": {
			in: []*Configuration{mixed}, inContents: l.first, wantServe: l.first.serving,
			wantRepairs: map[string][]string{kindMutating: {"c.sakeeper.io"}}, wantUnready: untrusting(kindMutating, "c"),
		},
		"no webhook calls one of the hosts": {
			in: []*Configuration{otherHost, v(good)}, inContents: l.first, wantServe: l.first.serving,
			wantUnready: kindMutating + " sakeeper-webhook has no webhook that calls " + host,
		},
		"a configuration without webhooks": {
			in: []*Configuration{m(), v(good)}, inContents: l.first, wantServe: l.first.serving,
		},
		"a new CA, and both still trust the served certificate": {
			in: []*Configuration{m(other), v(other)}, inContents: l.first, inServing: l.unrelated.serving, wantServe: l.unrelated.serving,
			wantRepairs: map[string][]string{kindMutating: {"a.sakeeper.io"}, kindValidating: {"a.sakeeper.io"}},
		},
		"a new CA, and one trusts it": {
			in: []*Configuration{m(good), v(other)}, inContents: l.first, inServing: l.unrelated.serving, wantServe: l.first.serving,
			wantRepairs: map[string][]string{kindValidating: {"a.sakeeper.io"}}, wantUnready: untrusting(kindValidating, "a"),
		},
		"a new CA, and both trust it": {
			in: []*Configuration{m(good), v(good)}, inContents: l.first, inServing: l.unrelated.serving, wantServe: l.first.serving,
		},
		"the next CA is published": {
			in: []*Configuration{m(good), v(l.staged.bundle())}, inContents: l.staged, wantServe: l.first.serving,
			wantRepairs: map[string][]string{kindMutating: {"a.sakeeper.io"}},
		},
		"there is no certificate": {
			in: []*Configuration{m(good), v(good)}, wantUnready: "there is no certificate yet",
		},
		"the secret was emptied, and the served certificate is trusted": {
			in: []*Configuration{m(good), v(good)}, inServing: l.first.serving, wantServe: l.first.serving,
		},
		"a CA that has expired is not published": {
			in: []*Configuration{m(nil), v(other)}, inContents: l.first, inAfter: 366 * day, wantServe: l.first.serving,
			wantUnready: untrusting(kindMutating, "a"),
		},
		"the secret has another type": {
			in: []*Configuration{m(good), v(nil)}, inContents: l.first, inServing: l.unrelated.serving, inType: corev1.SecretTypeOpaque, wantServe: l.unrelated.serving,
			wantUnready: `the secret cannot be used: its type is "Opaque", not "sakeeper.io/webhook-certificates"`,
			wantRepairs: nil,
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			s := state{now: l.now.Add(tc.inAfter), hosts: []string{host}, configurationNames: []string{"one", "two"}, contents: tc.inContents, configurations: tc.in, serving: tc.inServing}
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

// TestPublication: since when all configurations have had the bundle.
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
		"as before":                      {in: []*Configuration{m(bundle), v(bundle)}, inBefore: before, want: before},
		"with another bundle before":     {in: []*Configuration{m(bundle)}, inBefore: publication{since: now.Add(-time.Hour)}, want: publication{sum: before.sum, since: now}},
		"one has lost it":                {in: []*Configuration{m(bundle), v(nil)}, inBefore: before},
		"one is gone, the other has it":  {in: []*Configuration{m(bundle)}, inBefore: before, want: before},
		"none exists":                    {inBefore: before},
		"one calls another host":         {in: []*Configuration{m(bundle), {}}, inBefore: before},
		"the clock was set back":         {in: []*Configuration{m(bundle)}, inBefore: publication{sum: before.sum, since: now.Add(time.Minute)}, want: publication{sum: before.sum, since: now}},
		"one has only the CA that signs": {in: []*Configuration{m(bundle), v(l.first.bundle())}, inBefore: before},
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
