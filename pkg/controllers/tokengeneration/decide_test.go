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

// withPlan is the plan of team/robot to make robot-token-ddddd, as change leaves it.
func withPlan(change func(*plan)) plan {
	p := plan{account: testkit.AccountUID, name: "robot-token-ddddd"}
	change(&p)
	return p
}

// made and doubted are what can be known of a Secret that was created.
func made(p *plan)    { p.secret = testkit.SecretUID }
func doubted(p *plan) { p.doubt = testkit.Instant() }

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
		"one that is being deleted": {
			in: state{account: robot(testkit.Deleting())}, want: none,
		},
		"one in a namespace that goes": {
			in: state{account: robot(), namespace: testkit.Namespace("team", testkit.Terminating())}, want: none,
		},
		"one that refers to a token": {
			in: state{account: robot(refers("mine")), secrets: list(cached("mine"))}, want: none,
		},
		"a token that names no uid counts": {
			in: state{account: robot(refers("mine")), secrets: list(cached("mine", testkit.WithAccountUID("")))}, want: none,
		},
		"so does one that was marked invalid": {
			in: state{account: robot(refers("mine")), secrets: list(cached("mine", marked))}, want: none,
		},
		"one of a former account does not": {
			in: state{account: robot(refers("mine")), secrets: list(cached("mine", testkit.WithAccountUID(testkit.OtherUID)))}, want: generate,
		},
		"nor one that is being deleted": {
			in: state{account: robot(refers("mine")), secrets: list(cached("mine", testkit.Deleting()))}, want: generate,
		},
		"nor one that it does not refer to": {
			in: state{account: robot(), secrets: list(cached("mine"))}, want: generate,
		},
		"a name that the cache does not have is asked for": {
			in: state{account: robot(refers("mine")), missing: []string{"mine"}}, want: look,
		},
		"unless another one counts": {
			in: state{account: robot(refers("mine", "s")), secrets: list(cached("s")), missing: []string{"mine"}}, want: none,
		},
		"and counts when the API server says so": {
			in: state{account: robot(refers("mine")), missing: []string{"mine"}, live: map[string]bool{"mine": true}}, want: none,
		},
		"and not when it is no token, or not there": {
			in: state{account: robot(refers("mine")), missing: []string{"mine"}, live: map[string]bool{"mine": false}}, want: generate,
		},

		"a generated token is found again": {
			in: state{account: robot(), secrets: list(cached("s"), cached("robot-token-bbbbb"))}, want: refer, name: "robot-token-bbbbb",
		},
		"of several, the oldest": {
			in: state{account: robot(), secrets: list(cached("robot-token-bbbbb"), cached("robot-token-ccccc", older()))}, want: refer, name: "robot-token-ccccc",
		},
		"of one age, the first": {
			in: state{account: robot(), secrets: list(cached("robot-token-ccccc"), cached("robot-token-bbbbb"))}, want: refer, name: "robot-token-bbbbb",
		},
		"not that of a former account": {
			in: state{account: robot(), secrets: list(cached("robot-token-bbbbb", testkit.WithAccountUID(testkit.OtherUID)))}, want: generate,
		},
		"nor one that names no uid": {
			in: state{account: robot(), secrets: list(cached("robot-token-bbbbb", testkit.WithAccountUID("")))}, want: generate,
		},
		"nor one that is being deleted, or was marked invalid": {
			in: state{account: robot(), secrets: list(cached("robot-token-bbbbb", testkit.Deleting()), cached("robot-token-ccccc", marked))}, want: generate,
		},

		"what was made is referred to": {
			in: state{account: robot(), plan: withPlan(made)}, want: refer, name: "robot-token-ddddd",
		},
		"after the names that may be tokens": {
			in: state{account: robot(refers("mine")), missing: []string{"mine"}, plan: withPlan(made)}, want: look,
		},
		"what was made for nothing goes: another token was referred to": {
			in: state{account: robot(refers("mine")), secrets: list(cached("mine")), plan: withPlan(made)}, want: discard, name: "robot-token-ddddd",
		},
		"or nobody asks for one any more": {
			in: state{account: robot(cleanedUp()), plan: withPlan(made)}, want: discard, name: "robot-token-ddddd",
		},
		"or the account went": {
			in: state{plan: withPlan(made)}, want: discard, name: "robot-token-ddddd",
		},
		"or was replaced": {
			in: state{account: robot(testkit.WithUID(testkit.OtherUID)), plan: withPlan(made)}, want: discard, name: "robot-token-ddddd",
		},
		"also when its successor refers to that name": {
			in: state{account: robot(testkit.WithUID(testkit.OtherUID), refers("robot-token-ddddd")), plan: withPlan(made)}, want: discard, name: "robot-token-ddddd",
		},
		"not what somebody refers to": {
			in: state{account: robot(refers("robot-token-ddddd", "mine")), secrets: list(cached("mine")), plan: withPlan(made)}, want: none,
		},
		"nor what may have been referred to": {
			in: state{account: robot(refers("mine")), secrets: list(cached("mine")), plan: withPlan(func(p *plan) { made(p); p.exposed = true })}, want: none,
		},
		"a create without an answer is asked about": {
			in: state{account: robot(), plan: withPlan(doubted)}, want: probe, name: "robot-token-ddddd",
		},
		"also when the token is not needed any more": {
			in: state{account: robot(refers("mine")), secrets: list(cached("mine")), plan: withPlan(doubted)}, want: probe, name: "robot-token-ddddd",
		},
		"and when the account went": {
			in: state{plan: withPlan(doubted)}, want: probe, name: "robot-token-ddddd",
		},
		"unless the cache has it": {
			in: state{account: robot(), secrets: list(cached("robot-token-ddddd")), plan: withPlan(doubted)}, want: refer, name: "robot-token-ddddd",
		},
		"a cache without the reference that was written is waited for": {
			in: state{account: robot(testkit.WithResourceVersion("99")), plan: withPlan(func(p *plan) { p.version = "100" })}, want: await,
		},
		"one that had it is not": {
			in: state{account: robot(testkit.WithResourceVersion("101")), plan: withPlan(func(p *plan) { p.version = "100" })}, want: generate,
		},
		"an account of before the start waits": {
			in: state{account: robot(), started: testkit.Instant().Add(time.Second), now: testkit.Instant(), settled: testkit.Instant().Add(1)}, want: settle,
		},
		"until nothing is under way": {
			in: state{account: robot(), started: testkit.Instant().Add(time.Second), now: testkit.Instant(), settled: testkit.Instant()}, want: generate,
		},
		"but not for what exists": {
			in: state{account: robot(), secrets: list(cached("robot-token-bbbbb")), started: testkit.Instant().Add(time.Second), now: testkit.Instant(), settled: testkit.Instant().Add(1)}, want: refer, name: "robot-token-bbbbb",
		},
		"so does one of the same second": {
			in: state{account: robot(), started: testkit.Instant(), now: testkit.Instant(), settled: testkit.Instant().Add(1)}, want: settle,
		},
		"one of after the start does not wait": {
			in: state{account: robot(), started: testkit.Instant().Add(-1), now: testkit.Instant(), settled: testkit.Instant().Add(time.Hour)}, want: generate,
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
			if (got.action == refer || got.action == discard) && got.uid != testkit.SecretUID {
				t.Errorf("uid %q", got.uid)
			}
		})
	}
}

func TestANamespaceThatTheCacheDoesNotHave(t *testing.T) {
	if got := decide(state{mode: ModeAll, account: robot()}); got.action != none {
		t.Errorf("got %v", got)
	}
}

func TestWanted(t *testing.T) {
	type says struct{ account, namespace string }
	cases := map[string]struct {
		in                  says
		inCleanedUp         bool
		wantAll, wantLabels bool
	}{
		"nobody says anything":                {wantAll: true},
		"the account asks":                    {in: says{account: "true"}, wantAll: true, wantLabels: true},
		"the namespace asks":                  {in: says{namespace: "true"}, wantAll: true, wantLabels: true},
		"the account refuses":                 {in: says{account: "false"}},
		"the namespace refuses":               {in: says{namespace: "false"}},
		"the account beats its namespace":     {in: says{"false", "true"}},
		"either way":                          {in: says{"true", "false"}, wantAll: true, wantLabels: true},
		"another value says nothing":          {in: says{account: "yes"}, wantAll: true},
		"so the namespace does":               {in: says{"yes", "true"}, wantAll: true, wantLabels: true},
		"its token was cleaned up":            {inCleanedUp: true},
		"but the account asks":                {in: says{account: "true"}, inCleanedUp: true, wantAll: true, wantLabels: true},
		"or the namespace":                    {in: says{namespace: "true"}, inCleanedUp: true, wantAll: true, wantLabels: true},
		"the namespace asks, not the account": {in: says{"false", "true"}, inCleanedUp: true},
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
				if s.mode = mode; s.wanted() != want {
					t.Errorf("%s: got %t", mode, !want)
				}
			}
		})
	}
}

func TestBegins(t *testing.T) {
	cases := map[string]struct {
		in     action
		inPlan plan
		want   bool
	}{
		"a new token":             {in: generate, want: true},
		"a token that was found":  {in: refer, want: true},
		"a question":              {in: look, want: true},
		"a token that was made":   {in: refer, inPlan: plan{name: "s", secret: testkit.SecretUID}},
		"a question about it":     {in: look, inPlan: plan{name: "s", secret: testkit.SecretUID}},
		"its end":                 {in: discard},
		"a create without answer": {in: probe},
		"nothing":                 {in: none},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if got := (state{plan: tc.inPlan}).begins(decision{action: tc.in, secret: "s"}); got != tc.want {
				t.Errorf("got %t", got)
			}
		})
	}
}

func list(secrets ...*cache.TokenSecret) []*cache.TokenSecret { return secrets }
