package keys

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sakeeper/sakeeper/pkg/inventory"
	"github.com/sakeeper/sakeeper/pkg/inventory/collect"
	"github.com/sakeeper/sakeeper/pkg/inventory/reach"
	"github.com/sakeeper/sakeeper/pkg/keys"
	"github.com/sakeeper/sakeeper/pkg/testkit"
)

func TestConclude(t *testing.T) {
	cases := map[string]struct {
		in         key
		published  int
		incomplete bool
		want       string
	}{
		"the published keys are unknown":     {in: key{ID: "k", Published: inventory.Unknown, InUse: 1}, want: "unknown: the published keys could not be read"},
		"not published":                      {in: key{ID: "k", Published: inventory.No}, want: "not published: its tokens are dead, unless the API server has it without publishing it"},
		"tokens without a key id":            {in: key{Published: inventory.No}, want: "these tokens name no key, and no published key verifies them"},
		"not all tokens are known":           {in: key{ID: "k", Published: inventory.Yes}, published: 2, incomplete: true, want: "unknown: not all token Secrets could be read"},
		"in use":                             {in: key{ID: "k", Published: inventory.Yes, InUse: 2, NeverExpire: 3, Expiring: 1}, published: 2, want: "needed: 2 tokens in use hang on it"},
		"perhaps in use":                     {in: key{ID: "k", Published: inventory.Yes, NeverExpire: 3, Expiring: 1}, published: 2, want: "needed, if one of 3 tokens that never expire is used"},
		"tokens that expire":                 {in: key{ID: "k", Published: inventory.Yes, Expiring: 1}, published: 2, want: "needed until 1 tokens have expired"},
		"no token, and the only key":         {in: key{ID: "k", Published: inventory.Yes}, published: 1, want: "the only key: it signs"},
		"no token, and there is another key": {in: key{ID: "k", Published: inventory.Yes}, published: 2, want: "no token in a Secret needs it; if it does not sign, it can go when the tokens of pods have expired"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if got := conclude(tc.in, tc.published, tc.incomplete); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

// found is what was read of a cluster with these tokens, whose accounts exist.
func found(published *keys.Set, held ...inventory.Held) *collect.Result {
	result := &collect.Result{Published: published}
	result.Now = testkit.Instant()
	account := reach.Account{Namespace: "ci", Name: "bot"}
	result.Accounts = []inventory.Account{{Account: account, UID: testkit.AccountUID}}
	secret := inventory.Secret{Namespace: "ci", Name: "s"}
	for _, h := range held {
		h.Account, h.UID = account, testkit.AccountUID
		secret.Tokens = append(secret.Tokens, h)
	}
	result.Secrets = []inventory.Secret{secret}
	return result
}

func TestCount(t *testing.T) {
	set := testkit.Keys("p256", "p384")
	first, second := set.Verification()[0], set.Verification()[1]
	token := func(id string, published inventory.Answer, change func(*inventory.Held)) inventory.Held {
		held := inventory.Held{Kind: inventory.Legacy, KeyID: id, Published: published}
		if change != nil {
			change(&held)
		}
		return held
	}
	expiresIn := func(days int) func(*inventory.Held) {
		return func(held *inventory.Held) {
			held.Kind, held.Expires = inventory.Bound, testkit.Instant().AddDate(0, 0, days)
		}
	}
	forbidden := collect.Missing{Right: "list secrets", Forbidden: true, Err: apierrors.NewForbidden(schema.GroupResource{Resource: "secrets"}, "", errors.New("no"))}
	gone := collect.Missing{Right: "list secrets", Err: context.DeadlineExceeded}
	absent := collect.Missing{Right: "get /openid/v1/jwks", Err: &apierrors.StatusError{ErrStatus: apierrors.NewNotFound(schema.GroupResource{}, "jwks").ErrStatus}}
	type row struct {
		ID                            string
		Published                     inventory.Answer
		Tokens, NeverExpire, Expiring int
	}
	cases := map[string]struct {
		in             *collect.Result
		missing        []collect.Missing
		want           []row
		wantConclusion string // of the first
	}{
		"published keys without tokens": {
			in:             found(set),
			want:           []row{{ID: first.ID(), Published: inventory.Yes}, {ID: second.ID(), Published: inventory.Yes}},
			wantConclusion: conclude(key{ID: "k", Published: inventory.Yes}, 2, false),
		},
		"tokens of each": {
			in: found(set, token(first.ID(), inventory.Yes, nil), token(first.ID(), inventory.Yes, expiresIn(1)), token(first.ID(), inventory.Yes, expiresIn(-1)), token("former", inventory.No, nil), token("", inventory.No, nil)),
			want: []row{
				{ID: first.ID(), Published: inventory.Yes, Tokens: 3, NeverExpire: 1, Expiring: 1}, {ID: second.ID(), Published: inventory.Yes},
				{ID: "former", Published: inventory.No, Tokens: 1}, {Published: inventory.No, Tokens: 1},
			},
			wantConclusion: "needed, if one of 1 tokens that never expire is used",
		},
		"no right to list Secrets": {
			in: found(set), missing: []collect.Missing{forbidden},
			want:           []row{{ID: first.ID(), Published: inventory.Yes}, {ID: second.ID(), Published: inventory.Yes}},
			wantConclusion: "unknown: not all token Secrets could be read",
		},
		"the API server went away half-way": {
			in: found(set, token(second.ID(), inventory.Yes, nil)), missing: []collect.Missing{gone},
			want:           []row{{ID: first.ID(), Published: inventory.Yes}, {ID: second.ID(), Published: inventory.Yes, Tokens: 1, NeverExpire: 1}},
			wantConclusion: "unknown: not all token Secrets could be read",
		},
		"an API server that publishes no keys": {
			in: found(nil, token("k", inventory.Unknown, nil)), missing: []collect.Missing{absent},
			want:           []row{{ID: "k", Published: inventory.Unknown, Tokens: 1, NeverExpire: 1}},
			wantConclusion: "unknown: the published keys could not be read",
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			tc.in.Missing = tc.missing
			var got []row
			counted := count(tc.in)
			for _, k := range counted {
				got = append(got, row{k.ID, k.Published, k.Tokens, k.NeverExpire, k.Expiring})
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if counted[0].Conclusion != tc.wantConclusion {
				t.Errorf("concluded %q, want %q", counted[0].Conclusion, tc.wantConclusion)
			}
		})
	}
}
