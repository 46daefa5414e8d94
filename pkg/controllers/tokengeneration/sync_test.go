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
		inAccount   *corev1.ServiceAccount // in cache and API server; nil: team/robot
		inCached    []*corev1.Secret
		inServer    []*corev1.Secret
		inPlan      func(*plan) // zero: to create robot-token-ddddd
		inResponses responses
		inTokens    error

		want      []testkit.Request
		wantLists []string
		wantAgain time.Duration
		wantErr   string
		wantEvent string
		wantPlan  func(*plan) // nil: none is left
	}{
		"a token secret and its reference are one write each": {
			want: []testkit.Request{creates(planned), patches(planned)}, wantLists: []string{listNamespace},
			wantPlan: func(p *plan) { p.secretUID, p.maybeReferenced, p.accountVersion = "uid-1001", true, "1002" },
		},
		"references that exist stay": {
			inAccount: robot(refers("a", "b")), want: []testkit.Request{creates(planned), patches("a", "b", planned)}, wantLists: []string{listSecret("a"), listSecret("b"), listNamespace},
			wantPlan: func(p *plan) { p.secretUID, p.maybeReferenced, p.accountVersion = "uid-1001", true, "1002" },
		},
		"a token secret that the cache does not show yet is waited for": {
			inServer: []*corev1.Secret{tokenSecret("robot-token-bbbbb")}, wantLists: []string{listNamespace}, wantAgain: time.Second, wantPlan: never,
		},
		"other secrets are not waited for": {
			inServer: []*corev1.Secret{foreign, testkit.Secret("team/other", testkit.WithAccount("other"))}, inPlan: func(p *plan) { p.secretName = "robot-token-zzzzz" },
			want: []testkit.Request{creates("robot-token-zzzzz"), patches("robot-token-zzzzz")}, wantLists: []string{listNamespace},
			wantPlan: func(p *plan) {
				p.secretName, p.secretUID, p.maybeReferenced, p.accountVersion = "robot-token-zzzzz", "uid-1001", true, "1002"
			},
		},
		"the list of the namespace fails": {
			inResponses: responses{"list secrets": errBoom}, wantLists: []string{listNamespace}, wantErr: "list secrets team/: boom", wantPlan: never,
		},
		"a token that exists and is not in the cache yet": {
			inAccount: robot(refers("mine")), inServer: []*corev1.Secret{tokenSecret("mine")}, wantLists: []string{listSecret("mine")},
		},
		"a lookup fails": {
			inAccount: robot(refers("mine")), inResponses: responses{"list secrets": errBoom}, wantLists: []string{listSecret("mine")}, wantErr: "list secrets team/mine: boom", wantPlan: never,
		},

		"create: it exists, and is the account's token": {
			inServer: []*corev1.Secret{tokenSecret(planned)}, inCached: []*corev1.Secret{tokenSecret(planned, testkit.WithAccountUID(""))},
			want: []testkit.Request{creates(planned)}, wantLists: []string{listNamespace, listSecret(planned)}, wantPlan: created,
		},
		"create: it exists, and is another account's": {
			inServer: []*corev1.Secret{foreign}, want: []testkit.Request{creates(planned)}, wantLists: []string{listNamespace, listSecret(planned)}, wantPlan: withoutSecret,
		},
		"create: it exists, and is no token": {
			inServer: []*corev1.Secret{opaque}, want: []testkit.Request{creates(planned)}, wantLists: []string{listNamespace, listSecret(planned)}, wantPlan: withoutSecret,
		},
		"create: it exists, and was marked invalid": {
			inServer: []*corev1.Secret{tokenSecret(planned, testkit.WithLabel(token.InvalidSinceLabel, "2026-01-01"))}, inCached: []*corev1.Secret{tokenSecret(planned, testkit.WithAccountUID(""))},
			want: []testkit.Request{creates(planned)}, wantLists: []string{listNamespace, listSecret(planned)}, wantPlan: withoutSecret,
		},
		"create: a quota was busy": {
			inResponses: responses{"create secrets": testkit.Conflict()}, want: []testkit.Request{creates(planned)}, wantLists: []string{listNamespace}, wantAgain: time.Second, wantPlan: never,
		},
		"create: the namespace is terminating": {
			inResponses: responses{"create secrets": testkit.NamespaceTerminating()}, want: []testkit.Request{creates(planned)}, wantLists: []string{listNamespace}, wantPlan: never,
		},
		"create: the namespace is gone": {
			inResponses: responses{"create secrets": testkit.NotFound()}, want: []testkit.Request{creates(planned)}, wantLists: []string{listNamespace}, wantPlan: never,
		},
		"create: over the quota": {
			inResponses: responses{"create secrets": testkit.QuotaExceeded()}, want: []testkit.Request{creates(planned)}, wantLists: []string{listNamespace},
			wantErr: "create secret team/robot-token-ddddd: things \"name\" is forbidden: exceeded quota: few", wantEvent: "Warning FailedGenerateToken The API server refuses to create secret team/robot-token-ddddd: things \"name\" is forbidden: exceeded quota: few",
			wantPlan: never,
		},
		"create: refused in words that quote the token": {
			inResponses: responses{"create secrets": quotesToken()}, want: []testkit.Request{creates(planned)}, wantLists: []string{listNamespace},
			wantErr: "create secret team/robot-token-ddddd: Forbidden (the message is redacted, because it contains a token)", wantEvent: "Warning FailedGenerateToken The API server refuses to create secret team/robot-token-ddddd: Forbidden (the message is redacted",
			wantPlan: never,
		},
		"create: too many requests": {
			inResponses: responses{"create secrets": apierrors.NewTooManyRequests("later", 1)}, want: []testkit.Request{creates(planned)}, wantLists: []string{listNamespace}, wantErr: "create secret team/robot-token-ddddd: later", wantPlan: never,
		},
		"create: no answer": {
			inResponses: responses{"create secrets": timeout()}, want: []testkit.Request{creates(planned)}, wantLists: []string{listNamespace}, wantErr: "create secret team/robot-token-ddddd: Timeout: etcd is slow",
			wantPlan: func(p *plan) { p.createDeadline = testkit.Instant().Add(10 * time.Second) },
		},
		"create: an internal error": {
			inResponses: responses{"create secrets": testkit.InternalError()}, want: []testkit.Request{creates(planned)}, wantLists: []string{listNamespace}, wantErr: "create secret team/robot-token-ddddd: Internal error",
			wantPlan: func(p *plan) { p.createDeadline = testkit.Instant().Add(10 * time.Second) },
		},
		"tokens must wait": {
			inTokens: signingkey.ErrWaiting, wantLists: []string{listNamespace}, wantErr: signingkey.ErrWaiting.Error(), wantPlan: never,
		},
		"tokens cannot be signed": {
			inTokens: errBoom, wantLists: []string{listNamespace}, wantErr: "create secret team/robot-token-ddddd: boom", wantPlan: never,
		},

		"patch: the account changed": {
			inResponses: responses{"patch serviceaccounts": testkit.Conflict()}, want: []testkit.Request{creates(planned), patches(planned)}, wantLists: []string{listNamespace}, wantAgain: time.Second,
			wantPlan: func(p *plan) { p.secretUID, p.conflicts = "uid-1001", 1 },
		},
		"patch: the account changed again and again": {
			inPlan: func(p *plan) { created(p); p.conflicts = 3 }, inResponses: responses{"patch serviceaccounts": testkit.Conflict()},
			want: []testkit.Request{patches(planned)}, wantAgain: 8 * time.Second, wantPlan: func(p *plan) { created(p); p.conflicts = 4 },
		},
		"patch: the delay is bounded": {
			inPlan: func(p *plan) { created(p); p.conflicts = 300 }, inResponses: responses{"patch serviceaccounts": testkit.Conflict()},
			want: []testkit.Request{patches(planned)}, wantAgain: time.Minute, wantPlan: func(p *plan) { created(p); p.conflicts = 301 },
		},
		"patch: the account is gone": {
			inResponses: responses{"patch serviceaccounts": testkit.NotFound()}, want: []testkit.Request{creates(planned), patches(planned), deletes("uid-1001")}, wantLists: []string{listNamespace},
			wantPlan: withoutSecret,
		},
		"patch: forbidden": {
			inResponses: responses{"patch serviceaccounts": testkit.QuotaExceeded()}, want: []testkit.Request{creates(planned), patches(planned), deletes("uid-1001")}, wantLists: []string{listNamespace},
			wantErr: "patch service account team/robot: things \"name\" is forbidden", wantEvent: "Warning FailedGenerateToken The API server refuses to patch service account team/robot: things \"name\" is forbidden",
			wantPlan: func(p *plan) { withoutSecret(p); p.rejected = true },
		},
		"patch: forbidden, and the secret cannot be deleted": {
			inResponses: responses{"patch serviceaccounts": testkit.QuotaExceeded(), "delete secrets": errBoom}, want: []testkit.Request{creates(planned), patches(planned), deletes("uid-1001")}, wantLists: []string{listNamespace},
			wantErr: "delete secret team/robot-token-ddddd: boom", wantEvent: "Warning FailedGenerateToken", wantPlan: func(p *plan) { p.secretUID, p.rejected = "uid-1001", true },
		},
		"patch: an internal error": {
			inResponses: responses{"patch serviceaccounts": testkit.InternalError()}, want: []testkit.Request{creates(planned), patches(planned)}, wantLists: []string{listNamespace},
			wantErr: "patch service account team/robot: Internal error", wantPlan: func(p *plan) { p.secretUID, p.maybeReferenced = "uid-1001", true },
		},
		"patch: too many requests": {
			inResponses: responses{"patch serviceaccounts": apierrors.NewTooManyRequests("later", 1)}, want: []testkit.Request{creates(planned), patches(planned)}, wantLists: []string{listNamespace},
			wantErr: "patch service account team/robot: later", wantPlan: func(p *plan) { p.secretUID = "uid-1001" },
		},
		"patch: forbidden, where it may have been written before": {
			inPlan: func(p *plan) { created(p); p.maybeReferenced = true }, inResponses: responses{"patch serviceaccounts": testkit.QuotaExceeded()}, want: []testkit.Request{patches(planned)},
			wantErr: "patch service account team/robot", wantEvent: "Warning FailedGenerateToken", wantPlan: func(p *plan) { created(p); p.maybeReferenced, p.rejected = true, true },
		},

		"after a rejection there is a dry run": {
			inPlan: func(p *plan) { p.rejected = true }, want: []testkit.Request{dryRuns(planned), creates(planned), patches(planned)}, wantLists: []string{listNamespace},
			wantPlan: func(p *plan) { p.secretUID, p.maybeReferenced, p.accountVersion = "uid-1001", true, "1002" },
		},
		"after a rejected dry run nothing is created": {
			inPlan: func(p *plan) { p.rejected = true }, inResponses: responses{"patch serviceaccounts": testkit.QuotaExceeded()}, want: []testkit.Request{dryRuns(planned)}, wantLists: []string{listNamespace},
			wantErr: "patch service account team/robot", wantPlan: func(p *plan) { p.rejected = true },
		},
		"after a dry run that conflicts nothing is created": {
			inPlan: func(p *plan) { p.rejected = true }, inResponses: responses{"patch serviceaccounts": testkit.Conflict()}, want: []testkit.Request{dryRuns(planned)}, wantLists: []string{listNamespace},
			wantAgain: time.Second, wantPlan: func(p *plan) { p.rejected = true },
		},
		"where no dry run is supported, the secret is created": {
			inPlan: func(p *plan) { p.rejected = true }, inResponses: responses{"patch serviceaccounts": dryRunUnsupported()}, want: []testkit.Request{dryRuns(planned), creates(planned), patches(planned), deletes("uid-1001")},
			wantLists: []string{listNamespace}, wantErr: "patch service account team/robot: webhook", wantEvent: "Warning FailedGenerateToken", wantPlan: func(p *plan) { withoutSecret(p); p.rejected = true },
		},

		"a token that was created before gets a reference without a lookup": {
			inCached: []*corev1.Secret{tokenSecret("robot-token-bbbbb")}, want: []testkit.Request{patches("robot-token-bbbbb")}, wantPlan: func(p *plan) { p.accountVersion = "1001" },
		},
		"a token that was created before is never deleted": {
			inCached: []*corev1.Secret{tokenSecret("robot-token-bbbbb")}, inResponses: responses{"patch serviceaccounts": testkit.QuotaExceeded()}, want: []testkit.Request{patches("robot-token-bbbbb")},
			wantErr: "patch service account team/robot", wantEvent: "Warning FailedGenerateToken", wantPlan: func(p *plan) { p.rejected = true },
		},
		"a token that was created before is not deleted if the account is gone": {
			inCached: []*corev1.Secret{tokenSecret("robot-token-bbbbb")}, inResponses: responses{"patch serviceaccounts": testkit.NotFound()}, want: []testkit.Request{patches("robot-token-bbbbb")}, wantPlan: never,
		},
		"a created secret is referred to at the current version of the account": {
			inPlan: created, want: []testkit.Request{patches(planned)}, wantPlan: func(p *plan) { created(p); p.maybeReferenced, p.accountVersion = true, "1001" },
		},
		"a created secret that is not needed is deleted": {
			inAccount: robot(refers("mine")), inCached: []*corev1.Secret{tokenSecret("mine")}, inPlan: created, want: []testkit.Request{deletes(testkit.SecretUID)}, wantPlan: withoutSecret,
		},
		"delete: it is another secret of that name": {
			inAccount: robot(refers("mine")), inCached: []*corev1.Secret{tokenSecret("mine")}, inPlan: created, inServer: []*corev1.Secret{tokenSecret(planned, testkit.WithUID(testkit.OtherUID))},
			want: []testkit.Request{deletes(testkit.SecretUID)}, wantLists: []string{listSecret(planned)}, wantPlan: withoutSecret,
		},
		"delete: a conflict over the same secret": {
			inAccount: robot(refers("mine")), inCached: []*corev1.Secret{tokenSecret("mine")}, inPlan: created, inServer: []*corev1.Secret{tokenSecret(planned)}, inResponses: responses{"delete secrets": testkit.Conflict()},
			want: []testkit.Request{deletes(testkit.SecretUID)}, wantLists: []string{listSecret(planned)}, wantErr: "delete secret team/robot-token-ddddd: Operation cannot be fulfilled", wantPlan: created,
		},
		"delete: it fails": {
			inAccount: robot(refers("mine")), inCached: []*corev1.Secret{tokenSecret("mine")}, inPlan: created, inResponses: responses{"delete secrets": errBoom}, want: []testkit.Request{deletes(testkit.SecretUID)},
			wantErr: "delete secret team/robot-token-ddddd: boom", wantPlan: created,
		},

		"no answer before, and it was created": {
			inPlan: unanswered, inServer: []*corev1.Secret{tokenSecret(planned)}, wantLists: []string{listSecret(planned)}, wantPlan: created,
		},
		"no answer before, and it may still be created": {
			inPlan: func(p *plan) { p.createDeadline = testkit.Instant().Add(time.Minute) }, wantLists: []string{listSecret(planned)}, wantAgain: time.Second, wantPlan: func(p *plan) { p.createDeadline = testkit.Instant().Add(time.Minute) },
		},
		"no answer before, and it was not created": {
			inPlan: unanswered, wantLists: []string{listSecret(planned)}, wantPlan: withoutSecret,
		},
		"no answer before, and none now": {
			inPlan: unanswered, inResponses: responses{"list secrets": errBoom}, wantLists: []string{listSecret(planned)}, wantErr: "list secrets team/robot-token-ddddd: boom", wantPlan: unanswered,
		},
		"no answer before, and the cache has it": {
			inPlan: unanswered, inCached: []*corev1.Secret{tokenSecret(planned)}, want: []testkit.Request{patches(planned)}, wantPlan: func(p *plan) { created(p); p.maybeReferenced, p.accountVersion = true, "1001" },
		},
		"the account needs nothing": {
			inAccount: robot(refers(planned)), inCached: []*corev1.Secret{tokenSecret(planned)}, inPlan: func(p *plan) { created(p); p.maybeReferenced, p.accountVersion = true, "100" },
		},
		"the cache has the reference, but not the secret yet": {
			inAccount: robot(refers(planned)), inServer: []*corev1.Secret{tokenSecret(planned)}, inPlan: func(p *plan) { created(p); p.maybeReferenced, p.accountVersion = true, "100" },
			wantLists: []string{listSecret(planned)}, wantPlan: func(p *plan) { created(p); p.maybeReferenced, p.accountVersion = true, "100" },
		},
		"the cache has the former version of the account": {
			inPlan: func(p *plan) { created(p); p.maybeReferenced, p.accountVersion = true, "101" }, wantPlan: func(p *plan) { created(p); p.maybeReferenced, p.accountVersion = true, "101" },
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			account := tc.inAccount
			if account == nil {
				account = robot()
			}
			m := newFakeAPIServer(account)
			m.respond = tc.inResponses.to
			for _, secret := range append(tc.inServer, tc.inCached...) {
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
			if diff := cmp.Diff(tc.wantLists, f.lists()); diff != "" {
				t.Errorf("lists (-want +got):\n%s", diff)
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
			if diff := cmp.Diff(want, f.plans.get(robotKey()), cmp.AllowUnexported(plan{})); diff != "" {
				t.Errorf("plan (-want +got):\n%s", diff)
			}
		})
	}
}

func TestADeletedSecretWithoutAnEventIsReplacedUnderAnotherName(t *testing.T) {
	account := robot(testkit.WithReferences(planned))
	f := newFixture(t, newFakeAPIServer(account))
	f.cache(t, account)
	f.plan(func(p *plan) { created(p); p.maybeReferenced = true })
	if again, err := f.sync(f.context(t), robotKey()); again != 0 || err != nil {
		t.Fatal(again, err)
	}
	name := f.plans.get(robotKey()).secretName
	if name == planned || !cache.IsGeneratedName("robot", name) {
		t.Errorf("the new name is %q", name)
	}
	if diff := cmp.Diff([]testkit.Request{creates(name), patches(planned, name)}, f.writes()); diff != "" {
		t.Errorf("writes (-want +got):\n%s", diff)
	}
}
