package tokensecret

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/token"
)

// changes make a state differ from that of a Secret that is right.
type changes []func(*state)

func stateWith(all changes) state {
	sum := testkit.Bundle().Sum()
	s := state{
		secret: &cache.TokenSecret{Account: "robot", AccountUID: testkit.AccountUID, CASum: sum, NamespaceRight: true},
		owner:  owner{account: testkit.AccountUID}, caSum: sum, resign: ResignDead,
	}
	for _, change := range all {
		change(&s)
	}
	return s
}

func unfilled(s *state)    { s.secret.Unfilled = &corev1.Secret{} }
func otherCA(s *state)     { s.caSum = testkit.OtherBundle().Sum() }
func noNamespace(s *state) { s.secret.NamespaceRight = false }
func namesNoUID(s *state)  { s.secret.AccountUID = "" }
func impossible(s *state)  { s.secret.Account = "a/b" }
func deleting(s *state)    { s.secret.DeletionTimestamp = &metav1.Time{Time: testkit.Instant()} }
func noAccount(s *state)   { s.owner = owner{} }
func otherUID(s *state)    { s.owner = owner{otherUID: testkit.OtherUID} }
func doubted(s *state)     { s.doubted = true }
func marked(s *state)      { s.secret.Labels = map[string]string{token.InvalidSinceLabel: "2026-01-02"} }
func kept(s *state)        { s.resignAnnotation = "never" }

func missingFor(d time.Duration) func(*state) {
	return func(s *state) { s.owner = owner{missingFor: d} }
}

func TestDecide(t *testing.T) {
	const (
		right        = "secret is right"
		beingDeleted = "secret is being deleted"
		notExisting  = "service account does not exist"
		mayAppear    = "service account may still be created"
		tokenMissing = "token is missing"
		wrongList    = "a list left many secrets without their service accounts"
	)
	cases := map[string]struct {
		in         changes
		want       action
		wantReason string
	}{
		"a secret that is right stays":                      {want: none, wantReason: right},
		"a missing uid annotation is no reason for a write": {in: changes{namesNoUID}, want: none, wantReason: right},
		"a secret that does not exist is no reason either":  {in: changes{func(s *state) { s.secret = nil }}, want: none, wantReason: "secret does not exist"},
		"a secret that names no account is left alone":      {in: changes{unfilled, otherCA, func(s *state) { s.secret.Account = "" }}, want: none, wantReason: "secret names no service account"},

		"nor is one filled whose account no object can be": {in: changes{impossible, unfilled, otherCA}, want: leaveAlone, wantReason: impossibleAccountText},
		"which has no event while it is being deleted":     {in: changes{impossible, deleting}, want: none, wantReason: beingDeleted},

		"a secret without its account is removed":        {in: changes{noAccount}, want: remove, wantReason: notExisting},
		"at once, if it names a UID":                     {in: changes{noAccount, unfilled}, want: remove, wantReason: notExisting},
		"one that names no UID waits for its account":    {in: changes{noAccount, namesNoUID, unfilled}, want: awaitAccount, wantReason: mayAppear},
		"also if it has a token":                         {in: changes{missingFor(accountGrace - 1), namesNoUID}, want: awaitAccount, wantReason: mayAppear},
		"and is removed after that":                      {in: changes{missingFor(accountGrace), namesNoUID, unfilled}, want: remove, wantReason: notExisting},
		"it does not wait while it is being deleted":     {in: changes{noAccount, namesNoUID, unfilled, deleting}, want: none, wantReason: beingDeleted},
		"an account with another UID is another reason":  {in: changes{otherUID}, want: remove, wantReason: "service account has another UID"},
		"but not for a secret that is being deleted":     {in: changes{otherUID, deleting}, want: none, wantReason: beingDeleted},
		"after a list without many accounts, it waits":   {in: changes{missingFor(doubtedFor - 1), doubted}, want: awaitAccount, wantReason: wrongList},
		"also if the account has another UID":            {in: changes{otherUID, doubted}, want: awaitAccount, wantReason: wrongList},
		"and is removed after that too":                  {in: changes{missingFor(doubtedFor), doubted, namesNoUID}, want: remove, wantReason: notExisting},
		"it does not wait if the account is found":       {in: changes{doubted}, want: none, wantReason: right},
		"a secret without a token is filled":             {in: changes{unfilled}, want: fill, wantReason: tokenMissing},
		"also if all else is wrong too":                  {in: changes{unfilled, otherCA, noNamespace}, want: fill, wantReason: tokenMissing},
		"also while it waits for its finalizers":         {in: changes{unfilled, deleting}, want: fill, wantReason: tokenMissing},
		"another CA is repaired":                         {in: changes{otherCA, noNamespace}, want: repair, wantReason: "ca.crt differs"},
		"a missing or wrong namespace is repaired":       {in: changes{noNamespace}, want: repair, wantReason: "namespace differs"},
		"a token that was made by mistake is taken back": {in: changes{noAccount, otherCA, func(s *state) { s.owner.mistaken = true }}, want: undoFill, wantReason: "it was filled for an account that is gone"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if got, reason := decide(stateWith(tc.in)); got != tc.want || reason != tc.wantReason {
				t.Errorf("got %d, %q; want %d, %q", got, reason, tc.want, tc.wantReason)
			}
		})
	}
}

func TestDecideOnTokens(t *testing.T) {
	type actions map[Resign]action // by --resign-tokens; none where it is not named
	always := func(act action) actions {
		return actions{ResignAll: act, ResignDead: act, ResignNever: act, "": act}
	}
	// replaced is this action where tokens are replaced, and an event where they are not.
	replaced := func(act action) actions {
		return actions{ResignAll: act, ResignDead: act, ResignNever: leaveAlone, "": leaveAlone}
	}
	cases := map[string]struct {
		inToken tokenStatus
		in      changes
		want    actions
	}{
		"a good token":                             {inToken: current},
		"one that the API server accepts":          {inToken: accepted, want: always(leaveAlone)},
		"one of another secret or account":         {inToken: misplaced, want: replaced(resign)},
		"of another, kept by annotation":           {inToken: misplaced, in: changes{kept}, want: always(leaveAlone)},
		"of another, invalidated":                  {inToken: misplaced, in: changes{marked}, want: always(leaveAlone)},
		"of another, in a secret being deleted":    {inToken: misplaced, in: changes{deleting}},
		"one of an older key":                      {inToken: older, want: actions{ResignAll: resign}},
		"of an older key, kept by annotation":      {inToken: older, in: changes{kept}},
		"of an older key, invalidated":             {inToken: older, in: changes{marked}},
		"one that may be dead":                     {inToken: maybeDead, want: replaced(reviewToken)},
		"perhaps dead, kept by annotation":         {inToken: maybeDead, in: changes{kept}, want: always(leaveAlone)},
		"perhaps dead, invalidated":                {inToken: maybeDead, in: changes{marked}, want: always(leaveAlone)},
		"a dead one":                               {inToken: dead, want: replaced(resign)},
		"dead, kept by annotation":                 {inToken: dead, in: changes{kept}, want: always(leaveAlone)},
		"dead, invalidated":                        {inToken: dead, in: changes{marked}, want: always(leaveAlone)},
		"dead, in a secret that is being deleted":  {inToken: dead, in: changes{deleting}},
		"dead, with a label that is empty":         {inToken: dead, in: changes{func(s *state) { s.secret.Labels = map[string]string{token.InvalidSinceLabel: ""} }}, want: replaced(resign)},
		"the CA is repaired before a review":       {inToken: maybeDead, in: changes{otherCA}, want: always(repair)},
		"and before a dead token is replaced":      {inToken: dead, in: changes{otherCA}, want: always(repair)},
		"the CA of an invalidated one is repaired": {inToken: dead, in: changes{otherCA, marked}, want: always(repair)},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			for _, setting := range []Resign{"", ResignNever, ResignDead, ResignAll} {
				s := stateWith(tc.in)
				s.token, s.resign = tc.inToken, setting
				if got, reason := decide(s); got != tc.want[setting] {
					t.Errorf("--resign-tokens=%s: got %d, %q; want %d", setting, got, reason, tc.want[setting])
				}
			}
		})
	}
}
