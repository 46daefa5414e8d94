package tokengeneration

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/signingkey"
	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/token"
)

func TestSync(t *testing.T) {
	foreign := testkit.Secret("team/"+planned, testkit.WithAccount("other"), testkit.WithAccountUID(testkit.AccountUID))
	opaque := testkit.Secret("team/" + planned)
	opaque.Type = corev1.SecretTypeOpaque
	refers := testkit.WithReferences
	never := func(*plan) {}

	cases := map[string]struct {
		inAccount *corev1.ServiceAccount // cached and real; nil: team/robot
		inCached  []*corev1.Secret
		inReal    []*corev1.Secret
		inPlan    func(*plan) // zero: to make robot-token-ddddd
		inAnswers answers
		inTokens  error

		want      []testkit.Request
		wantAsked []string
		wantAgain time.Duration
		wantErr   string
		wantEvent string
		wantPlan  func(*plan) // nil: none is left
	}{
		"a token secret is one write, and its reference another": {
			want: []testkit.Request{creates(planned), patches(planned)}, wantAsked: []string{surveys},
			wantPlan: func(p *plan) { p.secret, p.exposed, p.version = "made-1001", true, "1002" },
		},
		"references that exist stay": {
			inAccount: robot(refers("a", "b")), want: []testkit.Request{creates(planned), patches("a", "b", planned)}, wantAsked: []string{asks("a"), asks("b"), surveys},
			wantPlan: func(p *plan) { p.secret, p.exposed, p.version = "made-1001", true, "1002" },
		},
		"what the cache does not show yet is waited for": {
			inReal: []*corev1.Secret{tokenSecret("robot-token-bbbbb")}, wantAsked: []string{surveys}, wantAgain: time.Second, wantPlan: never,
		},
		"not what is of no concern": {
			inReal: []*corev1.Secret{foreign, testkit.Secret("team/other", testkit.WithAccount("other"))}, inPlan: func(p *plan) { p.name = "robot-token-zzzzz" },
			want: []testkit.Request{creates("robot-token-zzzzz"), patches("robot-token-zzzzz")}, wantAsked: []string{surveys},
			wantPlan: func(p *plan) { p.name, p.secret, p.exposed, p.version = "robot-token-zzzzz", "made-1001", true, "1002" },
		},
		"a survey that fails": {
			inAnswers: answers{"list secrets": errBoom}, wantAsked: []string{surveys}, wantErr: "list secrets team/: boom", wantPlan: never,
		},
		"a token that exists and is not in the cache yet": {
			inAccount: robot(refers("mine")), inReal: []*corev1.Secret{tokenSecret("mine")}, wantAsked: []string{asks("mine")},
		},
		"a question that fails": {
			inAccount: robot(refers("mine")), inAnswers: answers{"list secrets": errBoom}, wantAsked: []string{asks("mine")}, wantErr: "list secrets team/mine: boom", wantPlan: never,
		},

		"create: it exists, and is what was asked for": {
			inReal: []*corev1.Secret{tokenSecret(planned)}, inCached: []*corev1.Secret{tokenSecret(planned, testkit.WithAccountUID(""))},
			want: []testkit.Request{creates(planned)}, wantAsked: []string{surveys, asks(planned)}, wantPlan: made,
		},
		"create: it exists, and is another account's": {
			inReal: []*corev1.Secret{foreign}, want: []testkit.Request{creates(planned)}, wantAsked: []string{surveys, asks(planned)}, wantPlan: forgotten,
		},
		"create: it exists, and is no token": {
			inReal: []*corev1.Secret{opaque}, want: []testkit.Request{creates(planned)}, wantAsked: []string{surveys, asks(planned)}, wantPlan: forgotten,
		},
		"create: it exists, and was marked invalid": {
			inReal: []*corev1.Secret{tokenSecret(planned, testkit.WithLabel(token.InvalidSinceLabel, "2026-01-01"))}, inCached: []*corev1.Secret{tokenSecret(planned, testkit.WithAccountUID(""))},
			want: []testkit.Request{creates(planned)}, wantAsked: []string{surveys, asks(planned)}, wantPlan: forgotten,
		},
		"create: a quota was busy": {
			inAnswers: answers{"create secrets": testkit.Conflict()}, want: []testkit.Request{creates(planned)}, wantAsked: []string{surveys}, wantAgain: time.Second, wantPlan: never,
		},
		"create: the namespace is terminating": {
			inAnswers: answers{"create secrets": testkit.NamespaceTerminating()}, want: []testkit.Request{creates(planned)}, wantAsked: []string{surveys}, wantPlan: never,
		},
		"create: the namespace is gone": {
			inAnswers: answers{"create secrets": testkit.NotFound()}, want: []testkit.Request{creates(planned)}, wantAsked: []string{surveys}, wantPlan: never,
		},
		"create: over the quota": {
			inAnswers: answers{"create secrets": testkit.QuotaExceeded()}, want: []testkit.Request{creates(planned)}, wantAsked: []string{surveys},
			wantErr: "create secret team/robot-token-ddddd: things \"name\" is forbidden: exceeded quota: few", wantEvent: "Warning FailedGenerateToken The API server refuses to create secret team/robot-token-ddddd: things \"name\" is forbidden: exceeded quota: few",
			wantPlan: never,
		},
		"create: refused in words that quote the token": {
			inAnswers: answers{"create secrets": quotesToken()}, want: []testkit.Request{creates(planned)}, wantAsked: []string{surveys},
			wantErr: "create secret team/robot-token-ddddd: Forbidden (the message is redacted, because it contains a token)", wantEvent: "Warning FailedGenerateToken The API server refuses to create secret team/robot-token-ddddd: Forbidden (the message",
			wantPlan: never,
		},
		"create: too many requests": {
			inAnswers: answers{"create secrets": apierrors.NewTooManyRequests("later", 1)}, want: []testkit.Request{creates(planned)}, wantAsked: []string{surveys}, wantErr: "create secret team/robot-token-ddddd: later", wantPlan: never,
		},
		"create: no answer": {
			inAnswers: answers{"create secrets": timeout()}, want: []testkit.Request{creates(planned)}, wantAsked: []string{surveys}, wantErr: "create secret team/robot-token-ddddd: Timeout: etcd is slow",
			wantPlan: func(p *plan) { p.doubt = testkit.Instant().Add(10 * time.Second) },
		},
		"create: an internal error": {
			inAnswers: answers{"create secrets": testkit.InternalError()}, want: []testkit.Request{creates(planned)}, wantAsked: []string{surveys}, wantErr: "create secret team/robot-token-ddddd: Internal error",
			wantPlan: func(p *plan) { p.doubt = testkit.Instant().Add(10 * time.Second) },
		},
		"tokens must wait": {
			inTokens: signingkey.ErrWaiting, wantAsked: []string{surveys}, wantErr: signingkey.ErrWaiting.Error(), wantPlan: never,
		},
		"tokens cannot be signed": {
			inTokens: errBoom, wantAsked: []string{surveys}, wantErr: "create secret team/robot-token-ddddd: boom", wantPlan: never,
		},

		"patch: the account changed": {
			inAnswers: answers{"patch serviceaccounts": testkit.Conflict()}, want: []testkit.Request{creates(planned), patches(planned)}, wantAsked: []string{surveys}, wantAgain: time.Second,
			wantPlan: func(p *plan) { p.secret, p.conflicts = "made-1001", 1 },
		},
		"patch: the account changed again and again": {
			inPlan: func(p *plan) { made(p); p.conflicts = 3 }, inAnswers: answers{"patch serviceaccounts": testkit.Conflict()},
			want: []testkit.Request{patches(planned)}, wantAgain: 8 * time.Second, wantPlan: func(p *plan) { made(p); p.conflicts = 4 },
		},
		"patch: without end": {
			inPlan: func(p *plan) { made(p); p.conflicts = 300 }, inAnswers: answers{"patch serviceaccounts": testkit.Conflict()},
			want: []testkit.Request{patches(planned)}, wantAgain: time.Minute, wantPlan: func(p *plan) { made(p); p.conflicts = 301 },
		},
		"patch: the account is gone": {
			inAnswers: answers{"patch serviceaccounts": testkit.NotFound()}, want: []testkit.Request{creates(planned), patches(planned), deletes("made-1001")}, wantAsked: []string{surveys},
			wantPlan: forgotten,
		},
		"patch: forbidden": {
			inAnswers: answers{"patch serviceaccounts": testkit.QuotaExceeded()}, want: []testkit.Request{creates(planned), patches(planned), deletes("made-1001")}, wantAsked: []string{surveys},
			wantErr: "patch service account team/robot: things \"name\" is forbidden", wantEvent: "Warning FailedGenerateToken The API server refuses to patch service account team/robot: things \"name\" is forbidden",
			wantPlan: func(p *plan) { forgotten(p); p.refused = true },
		},
		"patch: forbidden, and the secret cannot be deleted": {
			inAnswers: answers{"patch serviceaccounts": testkit.QuotaExceeded(), "delete secrets": errBoom}, want: []testkit.Request{creates(planned), patches(planned), deletes("made-1001")}, wantAsked: []string{surveys},
			wantErr: "delete secret team/robot-token-ddddd: boom", wantEvent: "Warning FailedGenerateToken", wantPlan: func(p *plan) { p.secret, p.refused = "made-1001", true },
		},
		"patch: an internal error": {
			inAnswers: answers{"patch serviceaccounts": testkit.InternalError()}, want: []testkit.Request{creates(planned), patches(planned)}, wantAsked: []string{surveys},
			wantErr: "patch service account team/robot: Internal error", wantPlan: func(p *plan) { p.secret, p.exposed = "made-1001", true },
		},
		"patch: too many requests": {
			inAnswers: answers{"patch serviceaccounts": apierrors.NewTooManyRequests("later", 1)}, want: []testkit.Request{creates(planned), patches(planned)}, wantAsked: []string{surveys},
			wantErr: "patch service account team/robot: later", wantPlan: func(p *plan) { p.secret = "made-1001" },
		},
		"patch: forbidden, where it may have been written before": {
			inPlan: func(p *plan) { made(p); p.exposed = true }, inAnswers: answers{"patch serviceaccounts": testkit.QuotaExceeded()}, want: []testkit.Request{patches(planned)},
			wantErr: "patch service account team/robot", wantEvent: "Warning FailedGenerateToken", wantPlan: func(p *plan) { made(p); p.exposed, p.refused = true, true },
		},

		"after a refusal there is a rehearsal": {
			inPlan: func(p *plan) { p.refused = true }, want: []testkit.Request{rehearses(planned), creates(planned), patches(planned)}, wantAsked: []string{surveys},
			wantPlan: func(p *plan) { p.secret, p.exposed, p.version = "made-1001", true, "1002" },
		},
		"and nothing is made for nothing": {
			inPlan: func(p *plan) { p.refused = true }, inAnswers: answers{"patch serviceaccounts": testkit.QuotaExceeded()}, want: []testkit.Request{rehearses(planned)}, wantAsked: []string{surveys},
			wantErr: "patch service account team/robot", wantPlan: func(p *plan) { p.refused = true },
		},
		"also when the account changed": {
			inPlan: func(p *plan) { p.refused = true }, inAnswers: answers{"patch serviceaccounts": testkit.Conflict()}, want: []testkit.Request{rehearses(planned)}, wantAsked: []string{surveys},
			wantAgain: time.Second, wantPlan: func(p *plan) { p.refused = true },
		},
		"where there can be none, the real thing is tried": {
			inPlan: func(p *plan) { p.refused = true }, inAnswers: answers{"patch serviceaccounts": unsupportedRehearsal()}, want: []testkit.Request{rehearses(planned), creates(planned), patches(planned), deletes("made-1001")},
			wantAsked: []string{surveys}, wantErr: "patch service account team/robot: webhook", wantEvent: "Warning FailedGenerateToken", wantPlan: func(p *plan) { forgotten(p); p.refused = true },
		},

		"a token that was made before is referred to, and nothing is asked": {
			inCached: []*corev1.Secret{tokenSecret("robot-token-bbbbb")}, want: []testkit.Request{patches("robot-token-bbbbb")}, wantPlan: func(p *plan) { p.version = "1001" },
		},
		"and never deleted": {
			inCached: []*corev1.Secret{tokenSecret("robot-token-bbbbb")}, inAnswers: answers{"patch serviceaccounts": testkit.QuotaExceeded()}, want: []testkit.Request{patches("robot-token-bbbbb")},
			wantErr: "patch service account team/robot", wantEvent: "Warning FailedGenerateToken", wantPlan: func(p *plan) { p.refused = true },
		},
		"also when the account is gone": {
			inCached: []*corev1.Secret{tokenSecret("robot-token-bbbbb")}, inAnswers: answers{"patch serviceaccounts": testkit.NotFound()}, want: []testkit.Request{patches("robot-token-bbbbb")}, wantPlan: never,
		},
		"what was made is referred to at the account's version of now": {
			inPlan: made, want: []testkit.Request{patches(planned)}, wantPlan: func(p *plan) { made(p); p.exposed, p.version = true, "1001" },
		},
		"what was made for nothing goes": {
			inAccount: robot(refers("mine")), inCached: []*corev1.Secret{tokenSecret("mine")}, inPlan: made, want: []testkit.Request{deletes(testkit.SecretUID)}, wantPlan: forgotten,
		},
		"unless it is another secret of that name": {
			inAccount: robot(refers("mine")), inCached: []*corev1.Secret{tokenSecret("mine")}, inPlan: made, inReal: []*corev1.Secret{tokenSecret(planned, testkit.WithUID(testkit.OtherUID))},
			want: []testkit.Request{deletes(testkit.SecretUID)}, wantAsked: []string{asks(planned)}, wantPlan: forgotten,
		},
		"which a conflict alone does not tell": {
			inAccount: robot(refers("mine")), inCached: []*corev1.Secret{tokenSecret("mine")}, inPlan: made, inReal: []*corev1.Secret{tokenSecret(planned)}, inAnswers: answers{"delete secrets": testkit.Conflict()},
			want: []testkit.Request{deletes(testkit.SecretUID)}, wantAsked: []string{asks(planned)}, wantErr: "delete secret team/robot-token-ddddd: Operation cannot be fulfilled", wantPlan: made,
		},
		"and is tried again when that fails": {
			inAccount: robot(refers("mine")), inCached: []*corev1.Secret{tokenSecret("mine")}, inPlan: made, inAnswers: answers{"delete secrets": errBoom}, want: []testkit.Request{deletes(testkit.SecretUID)},
			wantErr: "delete secret team/robot-token-ddddd: boom", wantPlan: made,
		},

		"no answer before, and it was made": {
			inPlan: doubted, inReal: []*corev1.Secret{tokenSecret(planned)}, wantAsked: []string{asks(planned)}, wantPlan: made,
		},
		"no answer before, and it may still be made": {
			inPlan: func(p *plan) { p.doubt = testkit.Instant().Add(time.Minute) }, wantAsked: []string{asks(planned)}, wantAgain: time.Second, wantPlan: func(p *plan) { p.doubt = testkit.Instant().Add(time.Minute) },
		},
		"no answer before, and it was not made": {
			inPlan: doubted, wantAsked: []string{asks(planned)}, wantPlan: forgotten,
		},
		"no answer before, and none now": {
			inPlan: doubted, inAnswers: answers{"list secrets": errBoom}, wantAsked: []string{asks(planned)}, wantErr: "list secrets team/robot-token-ddddd: boom", wantPlan: doubted,
		},
		"no answer before, and the cache has it": {
			inPlan: doubted, inCached: []*corev1.Secret{tokenSecret(planned)}, want: []testkit.Request{patches(planned)}, wantPlan: func(p *plan) { made(p); p.exposed, p.version = true, "1001" },
		},
		"the account is right": {
			inAccount: robot(refers(planned)), inCached: []*corev1.Secret{tokenSecret(planned)}, inPlan: func(p *plan) { made(p); p.exposed, p.version = true, "100" },
		},
		"the cache has the reference, and the secret not yet": {
			inAccount: robot(refers(planned)), inReal: []*corev1.Secret{tokenSecret(planned)}, inPlan: func(p *plan) { made(p); p.exposed, p.version = true, "100" },
			wantAsked: []string{asks(planned)}, wantPlan: func(p *plan) { made(p); p.exposed, p.version = true, "100" },
		},
		"the cache has the account of before": {
			inPlan: func(p *plan) { made(p); p.exposed, p.version = true, "101" }, wantPlan: func(p *plan) { made(p); p.exposed, p.version = true, "101" },
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			account := tc.inAccount
			if account == nil {
				account = robot()
			}
			m := newModel(account)
			m.answer = tc.inAnswers.of
			for _, secret := range append(tc.inReal, tc.inCached...) {
				if m.secrets["team/"+secret.Name] == nil {
					m.secrets["team/"+secret.Name] = secret
				}
			}
			f := newFixture(t, m)
			f.tokens.err = tc.inTokens
			f.cache(t, account)
			for _, secret := range tc.inCached {
				f.cache(t, secret)
			}
			if tc.inPlan == nil {
				tc.inPlan = never
			}
			f.plan(tc.inPlan)

			again, err := f.sync(f.context(t), robotKey())

			if diff := cmp.Diff(tc.want, f.writes()); diff != "" {
				t.Errorf("writes (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tc.wantAsked, f.asked()); diff != "" {
				t.Errorf("questions (-want +got):\n%s", diff)
			}
			if again != tc.wantAgain && err == nil {
				t.Errorf("again after %v, want %v", again, tc.wantAgain)
			}
			if !strings.Contains(fmt.Sprint(err), tc.wantErr) || (err == nil) != (tc.wantErr == "") {
				t.Errorf("error %v, want %q", err, tc.wantErr)
			}
			events := testkit.Events(f.recorder)
			if !strings.HasPrefix(strings.Join(events, ""), tc.wantEvent) || (len(events) == 0) != (tc.wantEvent == "") {
				t.Errorf("events %q, want %q", events, tc.wantEvent)
			}
			if strings.Contains(fmt.Sprint(err, events), secretBytes) {
				t.Error("the error or the event holds a token")
			}
			want := plan{}
			if tc.wantPlan != nil {
				want = withPlan(tc.wantPlan)
			}
			if diff := cmp.Diff(want, f.plans.of(robotKey()), cmp.AllowUnexported(plan{})); diff != "" {
				t.Errorf("plan (-want +got):\n%s", diff)
			}
		})
	}
}

func TestWhatWasMadeAndWentUnseenIsMadeAnewUnderAnotherName(t *testing.T) {
	account := robot(testkit.WithReferences(planned))
	f := newFixture(t, newModel(account))
	f.cache(t, account)
	f.plan(func(p *plan) { made(p); p.exposed = true })
	if again, err := f.sync(f.context(t), robotKey()); again != 0 || err != nil {
		t.Fatal(again, err)
	}
	name := f.plans.of(robotKey()).name
	if name == planned || !cache.IsGeneratedName("robot", name) {
		t.Errorf("the new name is %q", name)
	}
	if diff := cmp.Diff([]testkit.Request{creates(name), patches(planned, name)}, f.writes()); diff != "" {
		t.Errorf("writes (-want +got):\n%s", diff)
	}
}
