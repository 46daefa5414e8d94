package inventory

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/sakeeper/sakeeper/pkg/inventory/reach"
)

// Token is what is known about one token in a Secret. It holds no part of the token.
type Token struct {
	Namespace string `json:"namespace"`
	Secret    string `json:"secret"`
	// DataKey is the key in the data of the Secret.
	DataKey string `json:"dataKey"`
	// Account is the ServiceAccount that the token authenticates.
	Account Name `json:"account"`
	Kind    Kind `json:"kind"`
	// KeyID is the id of the signing key, and KeyPublished says whether the API server publishes a
	// key that verifies the token.
	KeyID        string `json:"keyID,omitempty"`
	KeyPublished Answer `json:"keyPublished"`
	// Created is when the Secret was created, or the token issued.
	Created time.Time `json:"created"`
	// Expires is nil for a token that does not.
	Expires *time.Time `json:"expires,omitempty"`
	// LastUsed is a date, "never" or "unknown".
	LastUsed string `json:"lastUsed"`
	// InvalidSince is the date since which the API server refuses the token, because the cleaner of
	// legacy tokens has marked it.
	InvalidSince string `json:"invalidSince,omitempty"`
	// CopyOf is the Secret of a legacy token that is also in this one.
	CopyOf string `json:"copyOf,omitempty"`
	// UsedBy are the objects that refer to the Secret. UsedByUnknown is true if there may be more.
	UsedBy        []User `json:"usedBy"`
	UsedByUnknown bool   `json:"usedByUnknown,omitempty"`

	Verdict Verdict     `json:"verdict"`
	Reach   reach.Level `json:"reach"`
	// Why says what the account may do.
	Why []reach.Finding `json:"why,omitempty"`
}

// Name is a namespace and a name.
type Name struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
}

// User is an object that refers to a Secret.
type User struct {
	Workload

	// Pods is how many of its pods do; zero for a ServiceAccount.
	Pods int `json:"pods,omitempty"`
	// Field is the field that names the Secret.
	Field string `json:"field"`
}

// Verdict says whether a token is alive, and for how long.
type Verdict string

// The verdicts. Of several that apply, the first is given.
const (
	AccountGone  Verdict = "account gone"      // the account does not exist, or is another by its UID
	ObjectGone   Verdict = "dead: object gone" // the Secret or pod that it is bound to does not exist
	Expired      Verdict = "expired"
	DeadNoKey    Verdict = "dead: no key" // no published key verifies it, and it was not used lately
	Expires      Verdict = "expires"
	InUse        Verdict = "in use" // used within the time of Objects.UnusedAfter, or by a pod
	Unused       Verdict = "unused"
	NeverExpires Verdict = "never expires" // and nothing is known about its use
)

// Verdicts returns all verdicts.
func Verdicts() []Verdict {
	return []Verdict{AccountGone, ObjectGone, Expired, DeadNoKey, Expires, InUse, Unused, NeverExpires}
}

// Alive returns false if the API server refuses the token for good.
func (v Verdict) Alive() bool {
	switch v {
	case AccountGone, ObjectGone, Expired, DeadNoKey:
		return false
	default:
		return true
	}
}

// finder has the objects by name.
type finder struct {
	Objects

	accounts map[reach.Account]types.UID
	secrets  map[Name]*Secret
	pods     map[Name]types.UID
	usedBy   map[Name][]User
	reach    map[reach.Account]reach.Result
}

// Find returns the tokens in o: first those that are alive, then those with the widest reach, then by
// namespace and name.
func Find(o Objects) []Token {
	f := newFinder(o)
	var found []Token
	for i := range o.Secrets {
		for _, held := range o.Secrets[i].Tokens {
			found = append(found, f.token(&o.Secrets[i], held))
		}
	}
	slices.SortStableFunc(found, func(a, b Token) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(b.Reach, a.Reach), strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Secret, b.Secret))
	})
	return found
}

func rank(t Token) int {
	if t.Verdict.Alive() {
		return 0
	}
	return 1
}

func newFinder(o Objects) *finder {
	f := &finder{
		Objects: o, accounts: map[reach.Account]types.UID{}, secrets: map[Name]*Secret{}, pods: map[Name]types.UID{},
		usedBy: map[Name][]User{}, reach: map[reach.Account]reach.Result{},
	}
	for i := range o.Secrets {
		f.secrets[Name{o.Secrets[i].Namespace, o.Secrets[i].Name}] = &o.Secrets[i]
	}
	for _, account := range o.Accounts {
		f.accounts[account.Account] = account.UID
		for i, names := range [][]string{account.Secrets, account.PullSecrets} {
			for _, secret := range names {
				f.addUser(Name{account.Namespace, secret}, User{
					Workload: Workload{"ServiceAccount", account.Namespace, account.Name}, Field: []string{"secrets", "imagePullSecrets"}[i],
				})
			}
		}
	}
	for _, pod := range o.Pods {
		f.pods[Name{pod.Namespace, pod.Name}] = pod.UID
		for secret, field := range pod.Secrets {
			f.addUser(Name{pod.Namespace, secret}, User{Workload: f.workload(pod), Pods: 1, Field: field})
		}
	}
	return f
}

// addUser adds a user of a Secret, the pods of one workload as one. Secrets without tokens are of no
// interest.
func (f *finder) addUser(secret Name, user User) {
	if found := f.secrets[secret]; found == nil || len(found.Tokens) == 0 {
		return
	}
	users := f.usedBy[secret]
	i := slices.IndexFunc(users, func(u User) bool { return u.Workload == user.Workload && u.Field == user.Field })
	if i < 0 {
		f.usedBy[secret] = append(users, user)
		return
	}
	users[i].Pods += user.Pods
}

// workload returns what people know a pod by: the Deployment of its ReplicaSet, the CronJob of its
// Job, its owner, or itself.
func (f *finder) workload(pod Pod) Workload {
	owner := pod.Owner
	if owner == (Workload{}) {
		return Workload{"Pod", pod.Namespace, pod.Name}
	}
	if above, ok := f.Owners[owner]; ok {
		return above
	}
	return owner
}

func (f *finder) token(secret *Secret, held Held) Token {
	name := Name{secret.Namespace, secret.Name}
	t := Token{
		Namespace: secret.Namespace, Secret: secret.Name, DataKey: held.DataKey, Account: Name(held.Account), Kind: held.Kind,
		KeyID: held.KeyID, KeyPublished: held.Published, Created: secret.Created,
		UsedBy: f.usedBy[name], UsedByUnknown: f.Unread.Pods || f.Unread.Accounts,
	}
	if t.UsedBy == nil {
		t.UsedBy = []User{}
	}
	if !held.Issued.IsZero() {
		t.Created = held.Issued
	}
	if !held.Expires.IsZero() {
		t.Expires = &held.Expires
	}
	t.LastUsed, t.InvalidSince = Unknown.String(), ""
	if held.Kind == Legacy {
		origin := secret
		if own := (Name{held.Account.Namespace, held.Secret.Name}); held.Secret.Name != "" && own != name {
			t.CopyOf, origin = own.Namespace+"/"+own.Name, f.secrets[own]
		}
		if origin != nil {
			t.LastUsed, t.InvalidSince = f.lastUsed(origin), origin.InvalidSince
		}
	}
	result := f.reachOf(held.Account)
	t.Reach, t.Why = result.Level, result.Findings
	t.Verdict = f.verdict(t, held)
	return t
}

// String returns the answer.
func (a Answer) String() string { return string(a) }

// Never is the LastUsed of a token without a use on record.
const Never = "never"

func (f *finder) lastUsed(secret *Secret) string {
	switch {
	case secret.LastUsed != "":
		return secret.LastUsed
	case f.TrackedSince.IsZero():
		return Unknown.String()
	default:
		return Never
	}
}

func (f *finder) reachOf(account reach.Account) reach.Result {
	result, known := f.reach[account]
	if !known && f.Policy != nil {
		result = f.Policy.Reach(account)
		f.reach[account] = result
	}
	return result
}
