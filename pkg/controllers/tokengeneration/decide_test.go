package tokengeneration

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/testkit"
)

func cached(name string, opts ...testkit.Option) *cache.TokenSecret {
	return cache.NewTokenSecret(tokenSecret(name, opts...), nil)
}

func list(secrets ...*cache.TokenSecret) []*cache.TokenSecret { return secrets }

func cleanedUp() testkit.Option {
	return testkit.WithAnnotation("sakeeper.io/token-cleaned-up", "2026-01-01")
}

// decideCases are by sentence. The state has an active namespace, [ModeAll], and the account robot
// unless withoutAccount is true.
type decideCases map[string]struct {
	in             state
	withoutAccount bool
	want           action
	secret         string // its name
}

func (cases decideCases) run(t *testing.T) {
	t.Helper()
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			s := tc.in
			s.mode = ModeAll
			if s.namespace == nil {
				s.namespace = testkit.Namespace("team")
			}
			if s.account == nil && !tc.withoutAccount {
				s.account = robot()
			}
			got := decide(s)
			if got.action != tc.want || got.secret != tc.secret || got.reason == "" {
				t.Errorf("got %v of %q because %q, want %v of %q and a reason", got.action, got.secret, got.reason, tc.want, tc.secret)
			}
			if (got.action == addReference || got.action == deleteSecret) && got.secretUID != testkit.SecretUID {
				t.Errorf("uid %q", got.secretUID)
			}
		})
	}
}

func TestDecide(t *testing.T) {
	mine := robot(testkit.WithReferences("mine"))
	missing := []string{"mine"}
	decideCases{
		"an account without a token":        {want: generate},
		"no account":                        {withoutAccount: true, want: none},
		"an account that is being deleted":  {in: state{account: robot(testkit.Deleting())}, want: none},
		"a terminating namespace":           {in: state{namespace: testkit.Namespace("team", testkit.Terminating())}, want: none},
		"an account that refers to a token": {in: state{account: mine, secrets: list(cached("mine"))}, want: none},
		"a token without a reference":       {in: state{secrets: list(cached("mine"))}, want: generate},
		"a referenced token without a uid":  {in: state{account: mine, secrets: list(cached("mine", testkit.WithAccountUID("")))}, want: none},
		"a referenced token of a deleted account": {
			in: state{account: mine, secrets: list(cached("mine", testkit.WithAccountUID(testkit.OtherUID)))}, want: generate,
		},
		"a referenced token that was marked invalid":     {in: state{account: mine, secrets: list(cached("mine", marked()))}, want: none},
		"a referenced token that is being deleted":       {in: state{account: mine, secrets: list(cached("mine", testkit.Deleting()))}, want: generate},
		"a referenced name that the cache does not have": {in: state{account: mine, missing: missing}, want: checkReferences},
		"a missing name beside a reference that counts": {
			in: state{account: robot(testkit.WithReferences("mine", "s")), secrets: list(cached("s")), missing: missing}, want: none,
		},
		"a missing name of which the API server has the token": {in: state{account: mine, missing: missing, live: map[string]bool{"mine": true}}, want: none},
		"a missing name of which the API server has no token":  {in: state{account: mine, missing: missing, live: map[string]bool{"mine": false}}, want: generate},
	}.run(t)
}

func TestDecideRefersToAGeneratedTokenWithoutReference(t *testing.T) {
	const b, c = "robot-token-bbbbb", "robot-token-ccccc"
	older := func(o metav1.Object) { o.SetCreationTimestamp(metav1.NewTime(testkit.Instant().Add(-time.Hour))) }
	decideCases{
		"beside another token":           {in: state{secrets: list(cached("s"), cached(b))}, want: addReference, secret: b},
		"of several, the oldest":         {in: state{secrets: list(cached(b), cached(c, older))}, want: addReference, secret: c},
		"of one age, the first by name":  {in: state{secrets: list(cached(c), cached(b))}, want: addReference, secret: b},
		"not one of a deleted account":   {in: state{secrets: list(cached(b, testkit.WithAccountUID(testkit.OtherUID)))}, want: generate},
		"not one that names no uid":      {in: state{secrets: list(cached(b, testkit.WithAccountUID("")))}, want: generate},
		"not one that is being deleted":  {in: state{secrets: list(cached(b, testkit.Deleting()))}, want: generate},
		"not one that is marked invalid": {in: state{secrets: list(cached(b, marked()))}, want: generate},
	}.run(t)
}

func TestDecideFinishesAPlan(t *testing.T) {
	mine := robot(testkit.WithReferences("mine"))
	other := robot(testkit.WithUID(testkit.OtherUID))
	tokens := list(cached("mine"))
	begun, unsure := withPlan(created), withPlan(unanswered)
	decideCases{
		"a created secret gets a reference":                                {in: state{plan: begun}, want: addReference, secret: planned},
		"missing names are looked up before":                               {in: state{account: mine, missing: []string{"mine"}, plan: begun}, want: checkReferences},
		"a created secret is deleted if the account has another":           {in: state{account: mine, secrets: tokens, plan: begun}, want: deleteSecret, secret: planned},
		"a created secret is deleted if the account is no longer selected": {in: state{account: robot(cleanedUp()), plan: begun}, want: deleteSecret, secret: planned},
		"a created secret is deleted with the account":                     {withoutAccount: true, in: state{plan: begun}, want: deleteSecret, secret: planned},
		"a created secret is deleted if the account is replaced":           {in: state{account: other, plan: begun}, want: deleteSecret, secret: planned},
		"a created secret is deleted even if the new account refers to its name": {
			in: state{account: robot(testkit.WithUID(testkit.OtherUID), testkit.WithReferences(planned)), plan: begun}, want: deleteSecret, secret: planned,
		},
		"a created secret with a reference stays": {
			in: state{account: robot(testkit.WithReferences(planned, "mine")), secrets: tokens, plan: begun}, want: none,
		},
		"a created secret that may have had a reference stays": {in: state{account: mine, secrets: tokens, plan: withPlan(created, mayBeReferenced)}, want: none},

		"a create without an answer is checked":                         {in: state{plan: unsure}, want: checkCreate, secret: planned},
		"a create without an answer is checked if no token is needed":   {in: state{account: mine, secrets: tokens, plan: unsure}, want: checkCreate, secret: planned},
		"a create without an answer is checked without the account":     {withoutAccount: true, in: state{plan: unsure}, want: checkCreate, secret: planned},
		"a create without an answer is not checked if the cache has it": {in: state{secrets: list(cached(planned)), plan: unsure}, want: addReference, secret: planned},

		"a cache without the written reference is stale": {in: state{account: robot(testkit.WithResourceVersion("99")), plan: withPlan(referencedAt("100"))}, want: awaitCache},
		"a cache that is newer is not stale":             {in: state{account: robot(testkit.WithResourceVersion("101")), plan: withPlan(referencedAt("100"))}, want: generate},
	}.run(t)
}

func TestDecideWaitsForRequestsOfAPreviousProcess(t *testing.T) {
	created := testkit.Instant()
	begun := func(sinceCreation, left time.Duration) state {
		return state{started: created.Add(sinceCreation), now: created, previousRequestsEnd: created.Add(left)}
	}
	withToken := begun(time.Second, 1)
	withToken.secrets = list(cached("robot-token-bbbbb"))
	decideCases{
		"an account older than the process":                     {in: begun(time.Second, 1), want: awaitRequests},
		"an account of the same second as the process":          {in: begun(0, 1), want: awaitRequests},
		"an account newer than the process":                     {in: begun(-1, time.Hour), want: generate},
		"an older account, and they are over":                   {in: begun(time.Second, 0), want: generate},
		"an older account that has a token without a reference": {in: withToken, want: addReference, secret: "robot-token-bbbbb"},
	}.run(t)
}

func TestDecideDoesNothingInANamespaceThatTheCacheDoesNotHave(t *testing.T) {
	if got := decide(state{mode: ModeAll, account: robot()}); got.action != none {
		t.Errorf("got %v", got)
	}
}

func TestSelected(t *testing.T) {
	type labels struct{ account, namespace string }
	cases := map[string]struct {
		in                  labels
		inCleanedUp         bool
		wantAll, wantLabels bool
	}{
		"no label":                                    {wantAll: true},
		"the account enables":                         {in: labels{account: "true"}, wantAll: true, wantLabels: true},
		"the namespace enables":                       {in: labels{namespace: "true"}, wantAll: true, wantLabels: true},
		"the account disables":                        {in: labels{account: "false"}},
		"the namespace disables":                      {in: labels{namespace: "false"}},
		"the account disables, its namespace enables": {in: labels{"false", "true"}},
		"the account enables, its namespace disables": {in: labels{"true", "false"}, wantAll: true, wantLabels: true},
		"another value is ignored":                    {in: labels{account: "yes"}, wantAll: true},
		"another value, and the namespace enables":    {in: labels{"yes", "true"}, wantAll: true, wantLabels: true},
		"its token was cleaned up":                    {inCleanedUp: true},
		"cleaned up, and the account enables":         {in: labels{account: "true"}, inCleanedUp: true, wantAll: true, wantLabels: true},
		"cleaned up, and the namespace enables":       {in: labels{namespace: "true"}, inCleanedUp: true, wantAll: true, wantLabels: true},
		"cleaned up, and the account disables":        {in: labels{"false", "true"}, inCleanedUp: true},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			s := state{account: robot(labelled(tc.in.account)), namespace: testkit.Namespace("team", labelled(tc.in.namespace))}
			if tc.inCleanedUp {
				cleanedUp()(s.account)
			}
			for mode, want := range map[Mode]bool{ModeAll: tc.wantAll, ModeLabelled: tc.wantLabels, ModeNone: false} {
				if s.mode = mode; s.selected() != want {
					t.Errorf("%s: got %t", mode, !want)
				}
			}
		})
	}
}

func TestStartsWork(t *testing.T) {
	begun := plan{secretName: "s", secretUID: testkit.SecretUID}
	cases := map[string]struct {
		in     action
		inPlan plan
		want   bool
	}{
		"a new token":                             {in: generate, want: true},
		"a reference to a token that was found":   {in: addReference, want: true},
		"a lookup":                                {in: checkReferences, want: true},
		"a reference to a token that was created": {in: addReference, inPlan: begun},
		"a lookup after a create":                 {in: checkReferences, inPlan: begun},
		"a deletion":                              {in: deleteSecret},
		"a create without answer":                 {in: checkCreate},
		"nothing":                                 {in: none},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if got := (state{plan: tc.inPlan}).startsWork(decision{action: tc.in, secret: "s"}); got != tc.want {
				t.Errorf("got %t", got)
			}
		})
	}
}
