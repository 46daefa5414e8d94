package tokensecret

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/token"
)

// neverResign are annotations of a Secret or namespace whose tokens are not signed anew.
var neverResign = map[string]string{api.ResignAnnotation: "never"}

func TestDecide(t *testing.T) {
	sum := testkit.Bundle().Sum()
	secret := func(changes ...func(*cache.TokenSecret)) *cache.TokenSecret {
		s := &cache.TokenSecret{Account: "robot", AccountUID: testkit.AccountUID, CASum: sum, NamespaceRight: true}
		for _, change := range changes {
			change(s)
		}
		return s
	}
	unfilled := func(s *cache.TokenSecret) { s.Unfilled = &corev1.Secret{} }
	otherCA := func(s *cache.TokenSecret) { s.CASum = testkit.OtherBundle().Sum() }
	noNamespace := func(s *cache.TokenSecret) { s.NamespaceRight = false }
	nameless := func(s *cache.TokenSecret) { s.Account = "" }
	impossible := func(s *cache.TokenSecret) { s.Account = "a/b" }
	withoutUID := func(s *cache.TokenSecret) { s.AccountUID = "" }
	deleting := func(s *cache.TokenSecret) {
		now := metav1.NewTime(testkit.Instant())
		s.DeletionTimestamp = &now
	}

	cases := map[string]struct {
		inSecret   *cache.TokenSecret
		inAccount  types.UID
		inMistaken bool
		inOtherUID types.UID
		inMissing  time.Duration
		inDoubted  bool
		want       action
		wantReason string
	}{
		"no secret": {
			inAccount: testkit.AccountUID, want: none, wantReason: "secret does not exist",
		},
		"a secret that names no account is left alone": {
			inSecret: secret(nameless, unfilled, otherCA), want: none, wantReason: "secret names no service account",
		},
		"nor is one whose account no object can be": {
			inSecret: secret(impossible, unfilled, otherCA), want: leaveAlone, wantReason: impossibleAccountText,
		},
		"which has no event while it is being deleted": {
			inSecret: secret(impossible, deleting), want: none, wantReason: "secret is being deleted",
		},
		"a secret without its account is removed": {
			inSecret: secret(), want: remove, wantReason: "service account does not exist",
		},
		"at once, if it names a UID": {
			inSecret: secret(unfilled), want: remove, wantReason: "service account does not exist",
		},
		"one that names no UID waits for its account": {
			inSecret: secret(unfilled, withoutUID), want: awaitAccount, wantReason: "service account may still be created",
		},
		"also if it has a token": {
			inSecret: secret(withoutUID), inMissing: accountGrace - 1, want: awaitAccount, wantReason: "service account may still be created",
		},
		"and is removed after that": {
			inSecret: secret(unfilled, withoutUID), inMissing: accountGrace, want: remove, wantReason: "service account does not exist",
		},
		"it does not wait while it is being deleted": {
			inSecret: secret(unfilled, withoutUID, deleting), want: none, wantReason: "secret is being deleted",
		},
		"after a list that left many without their account, it waits longer": {
			inSecret: secret(), inDoubted: true, inMissing: doubtedFor - 1, want: awaitAccount, wantReason: "a list left many secrets without their service accounts",
		},
		"also if the account has another UID": {
			inSecret: secret(), inDoubted: true, inOtherUID: testkit.OtherUID, want: awaitAccount, wantReason: "a list left many secrets without their service accounts",
		},
		"and is removed after that too": {
			inSecret: secret(withoutUID), inDoubted: true, inMissing: doubtedFor, want: remove, wantReason: "service account does not exist",
		},
		"it does not wait if the account is found": {
			inSecret: secret(), inDoubted: true, inAccount: testkit.AccountUID, want: none, wantReason: "secret is right",
		},
		"an account with another UID is another reason": {
			inSecret: secret(), inOtherUID: testkit.OtherUID, want: remove, wantReason: "service account has another UID",
		},
		"but not one that is being deleted": {
			inSecret: secret(deleting), want: none, wantReason: "secret is being deleted",
		},
		"a secret without a token is filled": {
			inSecret: secret(unfilled), inAccount: testkit.AccountUID, want: fill, wantReason: "token is missing",
		},
		"also if all else is wrong too": {
			inSecret: secret(unfilled, otherCA, noNamespace), inAccount: testkit.AccountUID, want: fill, wantReason: "token is missing",
		},
		"also while it waits for its finalizers": {
			inSecret: secret(unfilled, deleting), inAccount: testkit.AccountUID, want: fill, wantReason: "token is missing",
		},
		"another CA is repaired": {
			inSecret: secret(otherCA, noNamespace), inAccount: testkit.AccountUID, want: repair, wantReason: "ca.crt differs",
		},
		"a missing or wrong namespace is repaired": {
			inSecret: secret(noNamespace), inAccount: testkit.AccountUID, want: repair, wantReason: "namespace differs",
		},
		"a missing uid annotation is no reason for a write": {
			inSecret: secret(withoutUID), inAccount: testkit.AccountUID, want: none, wantReason: "secret is right",
		},
		"a token that was made by mistake is removed": {
			inSecret: secret(otherCA), inMistaken: true, want: undoFill, wantReason: "it was filled for an account that is gone",
		},
		"a secret that is right": {
			inSecret: secret(), inAccount: testkit.AccountUID, want: none, wantReason: "secret is right",
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got, reason := decide(state{secret: tc.inSecret, doubted: tc.inDoubted, owner: owner{account: tc.inAccount, mistaken: tc.inMistaken, otherUID: tc.inOtherUID, missingFor: tc.inMissing}, caSum: sum})
			if got != tc.want || reason != tc.wantReason {
				t.Errorf("got %d, %q; want %d, %q", got, reason, tc.want, tc.wantReason)
			}
		})
	}
}

func TestDecideOnTokens(t *testing.T) {
	marked := map[string]string{token.InvalidSinceLabel: "2026-01-02"}
	deleting := metav1.NewTime(testkit.Instant())
	// left is this action where tokens are replaced, and an event where they are not.
	left := func(act action) map[Resign]action {
		return map[Resign]action{ResignAll: act, ResignDead: act, ResignNever: leaveAlone, "": leaveAlone}
	}
	cases := map[string]struct {
		inToken    tokenStatus
		inSettings map[string]string // of the Secret or its namespace
		inLabels   map[string]string
		inDeleting *metav1.Time
		inOtherCA  bool
		want       map[Resign]action // by --resign-tokens; none where it is not named
	}{
		"a good token":                             {inToken: current},
		"one that the API server accepts":          {inToken: accepted, want: map[Resign]action{ResignAll: leaveAlone, ResignDead: leaveAlone, ResignNever: leaveAlone, "": leaveAlone}},
		"one of another secret or account":         {inToken: misplaced, want: left(resign)},
		"of another, kept by annotation":           {inToken: misplaced, inSettings: neverResign, want: left(leaveAlone)},
		"of another, invalidated":                  {inToken: misplaced, inLabels: marked, want: left(leaveAlone)},
		"of another, in a secret being deleted":    {inToken: misplaced, inDeleting: &deleting},
		"one of an older key":                      {inToken: older, want: map[Resign]action{ResignAll: resign}},
		"one that may be dead":                     {inToken: maybeDead, want: left(reviewToken)},
		"a dead one":                               {inToken: dead, want: left(resign)},
		"of an older key, kept by annotation":      {inToken: older, inSettings: neverResign},
		"perhaps dead, kept by annotation":         {inToken: maybeDead, inSettings: neverResign, want: left(leaveAlone)},
		"dead, kept by annotation":                 {inToken: dead, inSettings: neverResign, want: left(leaveAlone)},
		"of an older key, invalidated":             {inToken: older, inLabels: marked},
		"perhaps dead, invalidated":                {inToken: maybeDead, inLabels: marked, want: left(leaveAlone)},
		"dead, invalidated":                        {inToken: dead, inLabels: marked, want: left(leaveAlone)},
		"dead, in a secret that is being deleted":  {inToken: dead, inDeleting: &deleting},
		"dead, with a label that is empty":         {inToken: dead, inLabels: map[string]string{token.InvalidSinceLabel: ""}, want: left(resign)},
		"the CA is repaired before a review":       {inToken: maybeDead, inOtherCA: true, want: map[Resign]action{ResignAll: repair, ResignDead: repair, ResignNever: repair, "": repair}},
		"and before a dead token is replaced":      {inToken: dead, inOtherCA: true, want: map[Resign]action{ResignAll: repair, ResignDead: repair, ResignNever: repair, "": repair}},
		"the CA of an invalidated one is repaired": {inToken: dead, inOtherCA: true, inLabels: marked, want: map[Resign]action{ResignAll: repair, ResignDead: repair, ResignNever: repair, "": repair}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			for _, setting := range []Resign{"", ResignNever, ResignDead, ResignAll} {
				s := state{
					secret: &cache.TokenSecret{
						ObjectMeta: metav1.ObjectMeta{Labels: tc.inLabels, DeletionTimestamp: tc.inDeleting},
						Account:    "robot", NamespaceRight: true, CASum: testkit.Bundle().Sum(),
					},
					owner: owner{account: testkit.AccountUID}, token: tc.inToken, caSum: testkit.Bundle().Sum(),
					resign: setting, resignAnnotation: tc.inSettings[api.ResignAnnotation],
				}
				if tc.inOtherCA {
					s.caSum = testkit.OtherBundle().Sum()
				}
				if got, reason := decide(s); got != tc.want[setting] {
					t.Errorf("--resign-tokens=%s: got %d, %q; want %d", setting, got, reason, tc.want[setting])
				}
			}
		})
	}
}

func TestBelongs(t *testing.T) {
	cases := map[string]struct {
		inNamed, inUID types.UID
		want           bool
	}{
		"the secret names this UID":      {inNamed: testkit.AccountUID, inUID: testkit.AccountUID, want: true},
		"the secret names another UID":   {inNamed: testkit.OtherUID, inUID: testkit.AccountUID, want: false},
		"the secret names no UID so far": {inUID: testkit.AccountUID, want: true},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if got := belongs(&cache.TokenSecret{AccountUID: tc.inNamed}, tc.inUID); got != tc.want {
				t.Errorf("got %t", got)
			}
		})
	}
}
