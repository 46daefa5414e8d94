package inventory

import (
	"testing"

	"github.com/sakeeper/sakeeper/pkg/inventory/reach"
)

func TestActions(t *testing.T) {
	account := Name{"ci", "bot"}
	token := func(secret string, verdict Verdict, level reach.Level, change func(*Token)) Token {
		one := Token{Namespace: "ci", Secret: secret, Account: account, Kind: Legacy, Verdict: verdict, Reach: level}
		if change != nil {
			change(&one)
		}
		return one
	}
	found := []Token{
		token("harmless", InUse, reach.Nothing, nil),
		token("expiring", Expires, reach.Write, nil),
		token("dead", DeadNoKey, reach.Admin, nil),
		token("dead-in-text", ObjectGone, reach.Admin, func(t *Token) { t.Kind = Bound }),
		token("unknown", NeverExpires, reach.Unknown, nil),
		token("used", InUse, reach.Admin, func(t *Token) { t.Account.Name = "it's" }),
		token("unused", Unused, reach.Admin, nil),
		token("marked", Unused, reach.Secrets, func(t *Token) { t.InvalidSince = daysAgo(1) }),
		token("copy", InUse, reach.CanBecomeAdmin, func(t *Token) { t.CopyOf = "ci/used" }),
	}
	want := []string{
		"kubectl label secret -n ci unused kubernetes.io/legacy-token-invalid-since=2026-01-02",
		`kubectl sakeeper reach 'ci/it'\''s'`,
		"kubectl sakeeper reach ci/bot", // copy: another Secret may have more than the token
		"kubectl delete secret -n ci marked",
		"kubectl sakeeper reach ci/bot", // unknown
		"kubectl delete secret -n ci dead",
		"kubectl describe secret -n ci dead-in-text",
	}
	actions := Actions(found, now(), 20)
	if len(actions) != len(want) {
		t.Fatalf("got %d actions, want %d", len(actions), len(want))
	}
	for i, action := range actions {
		if action.Command != want[i] {
			t.Errorf("%d: got %s for %s, want %s", i+1, action.Command, action.Token.Secret, want[i])
		}
	}
	if got := Actions(found, now(), 2); len(got) != 2 {
		t.Errorf("got %d actions, want 2", len(got))
	}
}
