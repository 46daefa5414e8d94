package tokenrequest

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/cache"
)

// patience is how long after its Secret a ServiceAccount may be made, as it is by tools
// that apply both, before that is an event.
const patience = 5 * time.Second

// state is what is known of one Secret.
type state struct {
	secret    *cache.ManagedSecret   // nil: gone
	namespace *corev1.Namespace      // nil: gone, or not seen yet
	account   *corev1.ServiceAccount // nil: gone, or not seen yet
	// everywhere: namespaces need no label.
	everywhere   bool
	publicServer string
	caSum        [sha256.Size]byte
	now          time.Time
	// age is how long ago this process asked for the token that the Secret has, by its own
	// clocks; nil: another process did.
	age *time.Duration
}

type action string

const (
	none   action = "none"
	refuse action = "refuse"
	renew  action = "renew"
	remove action = "remove"
)

// decision is what to do about a Secret.
type decision struct {
	action action
	reason string
	// wait is when to look again after none; zero: at the next event.
	wait time.Duration
	// asked is what to renew with.
	asked asked
	// aged: it is renewed because of its age alone, and so no more often than that allows.
	aged bool
	// paced: many may be renewed for the same reason at once, such as a new CA, and
	// nobody waits for it.
	paced bool
	// refusal is what people are told after refuse.
	refusal refusal
}

// refusal is an event.
type refusal struct{ reason, text string }

func decide(s state) decision {
	for _, rule := range []func(state) (decision, bool){gone, unserved, unusable} {
		if d, ok := rule(s); ok {
			return d
		}
	}
	a, problems := parse(s.secret.Annotations, s.publicServer)
	if len(problems) > 0 {
		return refused(api.ReasonInvalidTokenSetting, strings.Join(problems, "; "))
	}
	for _, rule := range []func(state, asked) (decision, bool){orphaned, taken} {
		if d, ok := rule(s, a); ok {
			return d
		}
	}
	return outdated(s, a)
}

func gone(s state) (decision, bool) {
	switch {
	case s.secret == nil:
		return decision{action: none, reason: "it is gone"}, true
	case s.secret.DeletionTimestamp != nil:
		return decision{action: none, reason: "it is being deleted"}, true
	case s.namespace == nil || s.namespace.Status.Phase == corev1.NamespaceTerminating:
		return decision{action: none, reason: "its namespace is not there, or on its way out"}, true
	}
	return decision{}, false
}

func unserved(s state) (decision, bool) {
	if s.everywhere || s.namespace.Labels[api.TokenRequestsLabel] == api.TokenRequestsAllowed {
		return decision{}, false
	}
	outcome := "this Secret gets no token"
	if expires := s.secret.Annotations[api.ExpiresAtAnnotation]; len(s.secret.FilledKeys()) > 0 {
		outcome = "the token here is not renewed; it stays good until it expires at " + expires
	}
	return refused(api.ReasonTokenNotServed, fmt.Sprintf("Namespace %s does not have the label %s=%s, so %s",
		s.namespace.Name, api.TokenRequestsLabel, api.TokenRequestsAllowed, outcome)), true
}

// unusable refuses Secrets that in-tree controllers own, and those that nobody can write.
func unusable(s state) (decision, bool) {
	domain, _, _ := strings.Cut(string(s.secret.Type), "/")
	switch {
	case domain == "kubernetes.io" || strings.HasSuffix(domain, ".kubernetes.io"):
		return refused(api.ReasonUnusableTokenSecret, fmt.Sprintf("A Secret of type %s belongs to Kubernetes itself and gets no such token; create one of type %s", s.secret.Type, corev1.SecretTypeOpaque)), true
	case s.secret.Immutable:
		return refused(api.ReasonUnusableTokenSecret, "This Secret is immutable, so no token can be written to it; delete it and create it again without that"), true
	}
	return decision{}, false
}

// orphaned handles Secrets whose ServiceAccount is not there. A name that was mistyped
// costs nobody the token that is there.
func orphaned(s state, a asked) (decision, bool) {
	switch {
	case s.account != nil && s.account.DeletionTimestamp == nil:
		return decision{}, false
	case s.account != nil:
		return decision{action: none, reason: "its service account is being deleted"}, true
	case len(s.secret.FilledKeys()) > 0 && s.secret.Annotations[api.FilledForAnnotation] == a.account:
		return decision{action: remove, reason: "its service account is gone", asked: a, paced: true}, true
	}
	if wait := s.secret.CreationTimestamp.Add(patience).Sub(s.now); wait > 0 && wait <= patience {
		return decision{action: none, reason: "its service account may be about to be made", wait: wait}, true
	}
	return refused(api.ReasonNoServiceAccount, fmt.Sprintf("%s: there is no ServiceAccount %s in this namespace; create it, or name another", api.ServiceAccountAnnotation, a.account)), true
}

// taken refuses a Secret in which something else stands where the token would. Whose
// notes are damaged keeps its token: what it has is taken for ours.
func taken(s state, a asked) (decision, bool) {
	if len(s.secret.FilledKeys()) == 0 && (noted(s.secret) != results{} || s.secret.Annotations[api.FilledHashAnnotation] != "") {
		return decision{}, false
	}
	var keys []string
	for _, key := range a.keys() {
		if slices.Contains(s.secret.OtherKeys, key) {
			keys = append(keys, key)
		}
	}
	if len(keys) == 0 {
		return decision{}, false
	}
	return refused(api.ReasonUnusableTokenSecret, fmt.Sprintf("The token would go where this Secret has something else, under %s; remove that, or ask for another format",
		strings.Join(keys, ", "))), true
}

// outdated renews what is not, or not for long, what it should be.
func outdated(s state, a asked) decision {
	results := noted(s.secret)
	term, ok := results.term()
	hash := s.secret.Annotations[api.FilledHashAnnotation]
	rotate := s.secret.Annotations[api.RotateAnnotation]
	switch {
	case hash == "":
		return decision{action: renew, reason: "it has no token", asked: a}
	case !ok || hash != fillingOf(s, a).hash(results) || s.secret.Annotations[api.FilledForAnnotation] != a.account:
		return decision{action: renew, reason: "what is asked for, or what is there, has changed", asked: a, paced: true}
	case rotate != "" && rotate != s.secret.Annotations[api.RotatedAnnotation]:
		return decision{action: renew, reason: "it was asked to rotate", asked: a}
	}
	dueIn := term.RenewIn(s.now, string(s.secret.UID))
	if s.age != nil {
		dueIn = term.RenewInWithAge(*s.age, s.now, string(s.secret.UID))
	}
	if dueIn <= 0 {
		return decision{action: renew, reason: "it is due", asked: a, aged: true}
	}
	return decision{action: none, reason: "its token is right", wait: term.RequeueAfter(dueIn)}
}

func refused(reason, text string) decision {
	return decision{action: refuse, reason: text, refusal: refusal{reason, text}}
}

// noted are the results on a Secret.
func noted(secret *cache.ManagedSecret) results {
	return results{
		issuedAt:     secret.Annotations[api.IssuedAtAnnotation],
		expiresAt:    secret.Annotations[api.ExpiresAtAnnotation],
		credentialID: secret.Annotations[api.CredentialIDAnnotation],
	}
}

// filling is all that decides what a Secret should hold, and what it does hold.
type filling struct {
	asked   asked
	secret  types.UID
	account types.UID
	ca      [sha256.Size]byte
	content [sha256.Size]byte
}

// fillingOf is that of a Secret as it is cached.
func fillingOf(s state, a asked) filling {
	return filling{asked: a, secret: s.secret.UID, account: s.account.UID, ca: s.caSum, content: s.secret.ContentSum}
}

// hash is the value of [api.FilledHashAnnotation]: another one than the Secret
// has means that it is to be filled anew. Its first part changes when what is hashed
// does in a newer version of this program.
func (f filling) hash(r results) string {
	// The keys are those that would be filled: a Secret that names others in its
	// annotation has another content.
	text, err := json.Marshal([]any{
		f.asked.account, f.asked.audiences, f.asked.lifetime, f.asked.format, f.asked.server, f.asked.keys(),
		f.secret, f.account, hex.EncodeToString(f.ca[:]), hex.EncodeToString(f.content[:]),
		r.issuedAt, r.expiresAt, r.credentialID,
	})
	if err != nil {
		panic("tokenrequest: internal error: " + err.Error()) // strings and numbers
	}
	sum := sha256.Sum256(text)
	return "v1-" + hex.EncodeToString(sum[:])
}
