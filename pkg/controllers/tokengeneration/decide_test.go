package tokengeneration

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/token"
)

// tokenSecret is team/<name> of team/robot, complete, less what opts change.
func tokenSecret(name string, opts ...testkit.Option) *corev1.Secret {
	return testkit.Secret("team/"+name, append([]testkit.Option{
		testkit.WithAccount("robot"), testkit.WithAccountUID(testkit.AccountUID), testkit.WithData("token", secretBytes),
		testkit.WithData("ca.crt", string(testkit.Bundle().PEM())), testkit.WithData("namespace", "team"),
	}, opts...)...)
}

func cached(name string, opts ...testkit.Option) *cache.TokenSecret {
	return cache.NewTokenSecret(tokenSecret(name, opts...), nil)
}

func robot(opts ...testkit.Option) *corev1.ServiceAccount {
	return testkit.ServiceAccount("team/robot", opts...)
}

func labelled(value string) testkit.Option { return testkit.WithLabel("sakeeper.io/auto-token", value) }

func cleanedUp() testkit.Option {
	return testkit.WithAnnotation("sakeeper.io/token-cleaned-up", "2026-01-01")
}

// withPlan is the plan of team/robot to create robot-token-ddddd, modified by change.
func withPlan(change func(*plan)) plan {
	p := plan{accountUID: testkit.AccountUID, secretName: "robot-token-ddddd"}
	change(&p)
	return p
}

// created and unanswered are the two states after a create.
func created(p *plan)    { p.secretUID = testkit.SecretUID }
func unanswered(p *plan) { p.createDeadline = testkit.Instant() }

func TestDecide(t *testing.T) {
	refers := testkit.WithReferences
	marked := testkit.WithLabel(token.InvalidSinceLabel, "2026-01-01")
	older := func() testkit.Option {
		return func(o metav1.Object) { o.SetCreationTimestamp(metav1.NewTime(testkit.Instant().Add(-time.Hour))) }
	}
	cases := map[string]struct {
		in   state // an active namespace, and ModeAll, unless it says otherwise
		want action
		name string // of the Secret
	}{
		"an account without a token": {
			in: state{account: robot()}, want: generate,
		},
		"no account": {
			want: none,
		},
		"an account that is being deleted": {
			in: state{account: robot(testkit.Deleting())}, want: none,
		},
		"a terminating namespace": {
			in: state{account: robot(), namespace: testkit.Namespace("team", testkit.Terminating())}, want: none,
		},
		"an account that refers to a token": {
			in: state{account: robot(refers("mine")), secrets: list(cached("mine"))}, want: none,
		},
		"a referenced token that names no uid counts": {
			in: state{account: robot(refers("mine")), secrets: list(cached("mine", testkit.WithAccountUID("")))}, want: none,
		},
		"a referenced token that was marked invalid counts": {
			in: state{account: robot(refers("mine")), secrets: list(cached("mine", marked))}, want: none,
		},
		"a referenced token of a deleted account does not count": {
			in: state{account: robot(refers("mine")), secrets: list(cached("mine", testkit.WithAccountUID(testkit.OtherUID)))}, want: generate,
		},
		"a referenced token that is being deleted does not count": {
			in: state{account: robot(refers("mine")), secrets: list(cached("mine", testkit.Deleting()))}, want: generate,
		},
		"a token without a reference does not count": {
			in: state{account: robot(), secrets: list(cached("mine"))}, want: generate,
		},
		"a referenced name that the cache does not have is looked up": {
			in: state{account: robot(refers("mine")), missing: []string{"mine"}}, want: checkReferences,
		},
		"a missing name is not looked up if another reference counts": {
			in: state{account: robot(refers("mine", "s")), secrets: list(cached("s")), missing: []string{"mine"}}, want: none,
		},
		"a missing name counts if the API server has the token": {
			in: state{account: robot(refers("mine")), missing: []string{"mine"}, live: map[string]bool{"mine": true}}, want: none,
		},
		"a missing name does not count if the API server has no such token": {
			in: state{account: robot(refers("mine")), missing: []string{"mine"}, live: map[string]bool{"mine": false}}, want: generate,
		},

		"a generated token without a reference gets one": {
			in: state{account: robot(), secrets: list(cached("s"), cached("robot-token-bbbbb"))}, want: addReference, name: "robot-token-bbbbb",
		},
		"of several generated tokens, the oldest gets a reference": {
			in: state{account: robot(), secrets: list(cached("robot-token-bbbbb"), cached("robot-token-ccccc", older()))}, want: addReference, name: "robot-token-ccccc",
		},
		"of generated tokens of one age, the first by name gets a reference": {
			in: state{account: robot(), secrets: list(cached("robot-token-ccccc"), cached("robot-token-bbbbb"))}, want: addReference, name: "robot-token-bbbbb",
		},
		"a generated token of a deleted account gets no reference": {
			in: state{account: robot(), secrets: list(cached("robot-token-bbbbb", testkit.WithAccountUID(testkit.OtherUID)))}, want: generate,
		},
		"a generated token that names no uid gets no reference": {
			in: state{account: robot(), secrets: list(cached("robot-token-bbbbb", testkit.WithAccountUID("")))}, want: generate,
		},
		"generated tokens that are being deleted or invalid get no reference": {
			in: state{account: robot(), secrets: list(cached("robot-token-bbbbb", testkit.Deleting()), cached("robot-token-ccccc", marked))}, want: generate,
		},

		"a created secret gets a reference": {
			in: state{account: robot(), plan: withPlan(created)}, want: addReference, name: "robot-token-ddddd",
		},
		"missing names are looked up before the reference": {
			in: state{account: robot(refers("mine")), missing: []string{"mine"}, plan: withPlan(created)}, want: checkReferences,
		},
		"a created secret is deleted if the account refers to another token": {
			in: state{account: robot(refers("mine")), secrets: list(cached("mine")), plan: withPlan(created)}, want: deleteSecret, name: "robot-token-ddddd",
		},
		"a created secret is deleted if the account is no longer selected": {
			in: state{account: robot(cleanedUp()), plan: withPlan(created)}, want: deleteSecret, name: "robot-token-ddddd",
		},
		"a created secret is deleted if the account is deleted": {
			in: state{plan: withPlan(created)}, want: deleteSecret, name: "robot-token-ddddd",
		},
		"a created secret is deleted if the account is replaced": {
			in: state{account: robot(testkit.WithUID(testkit.OtherUID)), plan: withPlan(created)}, want: deleteSecret, name: "robot-token-ddddd",
		},
		"a created secret is deleted if the new account refers to its name": {
			in: state{account: robot(testkit.WithUID(testkit.OtherUID), refers("robot-token-ddddd")), plan: withPlan(created)}, want: deleteSecret, name: "robot-token-ddddd",
		},
		"a created secret with a reference stays": {
			in: state{account: robot(refers("robot-token-ddddd", "mine")), secrets: list(cached("mine")), plan: withPlan(created)}, want: none,
		},
		"a created secret that may have had a reference stays": {
			in: state{account: robot(refers("mine")), secrets: list(cached("mine")), plan: withPlan(func(p *plan) { created(p); p.maybeReferenced = true })}, want: none,
		},
		"a create without an answer is checked": {
			in: state{account: robot(), plan: withPlan(unanswered)}, want: checkCreate, name: "robot-token-ddddd",
		},
		"a create without an answer is checked if no token is needed": {
			in: state{account: robot(refers("mine")), secrets: list(cached("mine")), plan: withPlan(unanswered)}, want: checkCreate, name: "robot-token-ddddd",
		},
		"a create without an answer is checked if the account is deleted": {
			in: state{plan: withPlan(unanswered)}, want: checkCreate, name: "robot-token-ddddd",
		},
		"a create without an answer is not checked if the cache has the secret": {
			in: state{account: robot(), secrets: list(cached("robot-token-ddddd")), plan: withPlan(unanswered)}, want: addReference, name: "robot-token-ddddd",
		},
		"a cache without the written reference is stale": {
			in: state{account: robot(testkit.WithResourceVersion("99")), plan: withPlan(func(p *plan) { p.accountVersion = "100" })}, want: awaitCache,
		},
		"a cache that is newer than the written reference is not stale": {
			in: state{account: robot(testkit.WithResourceVersion("101")), plan: withPlan(func(p *plan) { p.accountVersion = "100" })}, want: generate,
		},
		"an account older than the process waits for earlier requests": {
			in: state{account: robot(), started: testkit.Instant().Add(time.Second), now: testkit.Instant(), previousRequestsEnd: testkit.Instant().Add(1)}, want: awaitRequests,
		},
		"an account older than the process waits no longer than that": {
			in: state{account: robot(), started: testkit.Instant().Add(time.Second), now: testkit.Instant(), previousRequestsEnd: testkit.Instant()}, want: generate,
		},
		"an account older than the process does not wait if a token exists": {
			in: state{account: robot(), secrets: list(cached("robot-token-bbbbb")), started: testkit.Instant().Add(time.Second), now: testkit.Instant(), previousRequestsEnd: testkit.Instant().Add(1)}, want: addReference, name: "robot-token-bbbbb",
		},
		"an account of the same second as the process waits": {
			in: state{account: robot(), started: testkit.Instant(), now: testkit.Instant(), previousRequestsEnd: testkit.Instant().Add(1)}, want: awaitRequests,
		},
		"an account newer than the process does not wait": {
			in: state{account: robot(), started: testkit.Instant().Add(-1), now: testkit.Instant(), previousRequestsEnd: testkit.Instant().Add(time.Hour)}, want: generate,
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			s := tc.in
			s.mode = ModeAll
			if s.namespace == nil {
				s.namespace = testkit.Namespace("team")
			}
			got := decide(s)
			if diff := cmp.Diff(tc.want, got.action); diff != "" {
				t.Errorf("%s: -want +got:\n%s", got.reason, diff)
			}
			if got.secret != tc.name || got.reason == "" {
				t.Errorf("%q because %q, want %q and a reason", got.secret, got.reason, tc.name)
			}
			if (got.action == addReference || got.action == deleteSecret) && got.secretUID != testkit.SecretUID {
				t.Errorf("uid %q", got.secretUID)
			}
		})
	}
}

func TestANamespaceThatTheCacheDoesNotHave(t *testing.T) {
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
			s := state{account: robot(), namespace: testkit.Namespace("team")}
			if tc.in.account != "" {
				labelled(tc.in.account)(s.account)
			}
			if tc.in.namespace != "" {
				labelled(tc.in.namespace)(s.namespace)
			}
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
	cases := map[string]struct {
		in     action
		inPlan plan
		want   bool
	}{
		"a new token":                             {in: generate, want: true},
		"a reference to a token that was found":   {in: addReference, want: true},
		"a lookup":                                {in: checkReferences, want: true},
		"a reference to a token that was created": {in: addReference, inPlan: plan{secretName: "s", secretUID: testkit.SecretUID}},
		"a lookup after a create":                 {in: checkReferences, inPlan: plan{secretName: "s", secretUID: testkit.SecretUID}},
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

func list(secrets ...*cache.TokenSecret) []*cache.TokenSecret { return secrets }
