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

// missingAccountDelay is how long after its Secret a ServiceAccount may be created without
// an event: tools apply both in any order.
const missingAccountDelay = 5 * time.Second

// state is what is known of one Secret.
type state struct {
	secret    *cache.ManagedSecret   // nil: deleted
	namespace *corev1.Namespace      // nil: not in the cache
	account   *corev1.ServiceAccount // nil: not in the cache
	// allNamespaces: namespaces need no label.
	allNamespaces bool
	publicServer  string
	caSum         [sha256.Size]byte
	now           time.Time
	// age is how long ago this process requested the token of the Secret, by its stopwatch;
	// nil: another process did.
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
	// wait is the delay until the next decision, for none; zero: the next event.
	wait time.Duration
	// spec is the token to request, for renew.
	spec tokenSpec
	// dueByAge: only the token's age calls for the renewal, so it cannot be too frequent.
	dueByAge bool
	// rateLimited: many Secrets may need a write for the same reason at once, such as a
	// new CA, and it is not urgent.
	rateLimited bool
	// problem is what is wrong: for refuse, and about annotations that do not exist.
	problem problem
	// annotate: the annotation about problems says what problem does, and is absent if there
	// is none. A renewal and a removal write it too; the other decisions leave it as it is.
	annotate bool
}

func decide(s state) decision {
	for _, rule := range []func(state) (decision, bool){gone, mislabelled, unserved, unusable} {
		if d, ok := rule(s); ok {
			return d
		}
	}
	spec, problems := parse(s.secret.Annotations, s.publicServer)
	unknown := unknownAnnotations(s.secret.UnknownAnnotations)
	if len(problems) > 0 {
		return refuseWith(api.ReasonInvalidTokenSetting, strings.Join(append(problems, unknown...), "; "))
	}
	for _, rule := range []func(state, tokenSpec) (decision, bool){withoutAccount, occupied} {
		if d, ok := rule(s, spec); ok {
			return d
		}
	}
	d := outdated(s, spec)
	if len(unknown) > 0 {
		d.problem = problem{api.ReasonInvalidTokenSetting, strings.Join(unknown, "; ")}
	}
	return d
}

func gone(s state) (decision, bool) {
	switch {
	case s.secret == nil:
		return decision{action: none, reason: "it is gone"}, true
	case s.secret.DeletionTimestamp != nil:
		return decision{action: none, reason: "it is being deleted"}, true
	case s.namespace == nil || s.namespace.Status.Phase == corev1.NamespaceTerminating:
		return decision{action: none, reason: "its namespace is gone or terminating"}, true
	}
	return decision{}, false
}

// mislabelled refuses a Secret whose label has another value than the one that there is. It is not
// managed, so that nothing is written to it.
func mislabelled(s state) (decision, bool) {
	if s.secret.Managed() {
		return decision{}, false
	}
	d := refuseWith(api.ReasonInvalidTokenSetting, fmt.Sprintf("%s: %s is not a value of this label, so this Secret gets no token; did you mean %s?",
		api.TokenLabel, quote(s.secret.Labels[api.TokenLabel]), api.TokenManaged))
	d.annotate = false
	return d, true
}

func unserved(s state) (decision, bool) {
	if s.allNamespaces || s.namespace.Labels[api.TokenRequestsLabel] == api.TokenRequestsAllowed {
		return decision{}, false
	}
	outcome := "this Secret gets no token"
	if expires := s.secret.Annotations[api.ExpiresAtAnnotation]; len(s.secret.FilledKeys()) > 0 {
		outcome = "the token in it is not renewed; it stays valid until it expires at " + expires
	}
	return refuseWith(api.ReasonTokenNotServed, fmt.Sprintf("Namespace %s does not have the label %s=%s, so %s",
		s.namespace.Name, api.TokenRequestsLabel, api.TokenRequestsAllowed, outcome)), true
}

// unusable refuses Secrets of types that Kubernetes owns, to which nothing is written, and
// immutable ones, whose annotations can be changed.
func unusable(s state) (decision, bool) {
	domain, _, _ := strings.Cut(string(s.secret.Type), "/")
	switch {
	case domain == "kubernetes.io" || strings.HasSuffix(domain, ".kubernetes.io"):
		d := refuseWith(api.ReasonUnusableTokenSecret, fmt.Sprintf("A Secret of type %s belongs to Kubernetes itself and gets no such token; create one of type %s", s.secret.Type, corev1.SecretTypeOpaque))
		d.annotate = false
		return d, true
	case s.secret.Immutable:
		return refuseWith(api.ReasonUnusableTokenSecret, "This Secret is immutable, so no token can be written to it; delete it and create a mutable one"), true
	}
	return decision{}, false
}

// withoutAccount handles Secrets whose ServiceAccount does not exist. The existing token
// of another account is kept: the new name may be mistyped.
func withoutAccount(s state, spec tokenSpec) (decision, bool) {
	switch {
	case s.account != nil && s.account.DeletionTimestamp == nil:
		return decision{}, false
	case s.account != nil:
		return decision{action: none, reason: "its service account is being deleted"}, true
	case len(s.secret.FilledKeys()) > 0 && s.secret.Annotations[api.FilledForAnnotation] == spec.account:
		return decision{action: remove, reason: "its service account is gone", spec: spec, rateLimited: true}, true
	}
	if wait := s.secret.CreationTimestamp.Add(missingAccountDelay).Sub(s.now); wait > 0 && wait <= missingAccountDelay {
		return decision{action: none, reason: "its service account may be created soon", wait: wait}, true
	}
	text := missingAccount(spec).text
	if other := s.secret.Annotations[api.FilledForAnnotation]; other != "" && len(s.secret.FilledKeys()) > 0 {
		text += fmt.Sprintf(". The token in this Secret still is that of ServiceAccount %s, until it expires at %s", other, s.secret.Annotations[api.ExpiresAtAnnotation])
	}
	return refuseWith(api.ReasonNoServiceAccount, text), true
}

// missingAccount is the problem of a Secret without a token whose ServiceAccount does not exist.
func missingAccount(spec tokenSpec) problem {
	return problem{api.ReasonNoServiceAccount, fmt.Sprintf("%s: there is no ServiceAccount %s in this namespace; create it, or name another", api.ServiceAccountAnnotation, spec.account)}
}

// occupied refuses a Secret with other data under the keys of the token. Where only
// sakeeper.io/filled-keys is missing, the data is taken for a token of this controller.
func occupied(s state, spec tokenSpec) (decision, bool) {
	if len(s.secret.FilledKeys()) == 0 && (resultsOn(s.secret) != results{} || s.secret.Annotations[api.FilledHashAnnotation] != "") {
		return decision{}, false
	}
	var keys []string
	for _, key := range spec.keys() {
		if slices.Contains(s.secret.OtherKeys, key) {
			keys = append(keys, key)
		}
	}
	if len(keys) == 0 {
		return decision{}, false
	}
	return refuseWith(api.ReasonUnusableTokenSecret, fmt.Sprintf("This Secret has other data under %s, where the token would be written; remove it, or ask for another format",
		strings.Join(keys, ", "))), true
}

// outdated renews a token that is missing, due, or not as it should be.
func outdated(s state, spec tokenSpec) decision {
	results := resultsOn(s.secret)
	term, ok := results.term()
	hash := s.secret.Annotations[api.FilledHashAnnotation]
	rotate := s.secret.Annotations[api.RotateAnnotation]
	switch {
	case hash == "":
		return decision{action: renew, reason: "it has no token", spec: spec}
	case !ok || hash != hashInputOf(s, spec).hash(results) || s.secret.Annotations[api.FilledForAnnotation] != spec.account:
		return decision{action: renew, reason: "the settings or the data have changed", spec: spec, rateLimited: true}
	case rotate != "" && rotate != s.secret.Annotations[api.RotatedAnnotation]:
		return decision{action: renew, reason: "a rotation was requested", spec: spec}
	}
	dueIn := term.RenewIn(s.now, string(s.secret.UID))
	if s.age != nil {
		dueIn = term.RenewInWithAge(*s.age, s.now, string(s.secret.UID))
	}
	switch {
	case dueIn <= 0 && term.NotYetValid(s.now):
		return decision{action: renew, reason: "it is not valid yet", spec: spec, dueByAge: true}
	case dueIn <= 0:
		return decision{action: renew, reason: "it is due", spec: spec, dueByAge: true}
	}
	return decision{action: none, reason: "its token is not due", wait: term.RequeueAfter(dueIn), annotate: true}
}

func refuseWith(reason, text string) decision {
	return decision{action: refuse, reason: text, problem: problem{reason, text}, annotate: true}
}

// resultsOn reads the results from the annotations of a Secret.
func resultsOn(secret *cache.ManagedSecret) results {
	return results{
		issuedAt:     secret.Annotations[api.IssuedAtAnnotation],
		expiresAt:    secret.Annotations[api.ExpiresAtAnnotation],
		credentialID: secret.Annotations[api.CredentialIDAnnotation],
	}
}

// hashInput is everything that the data of a Secret depends on, and that data.
type hashInput struct {
	spec    tokenSpec
	secret  types.UID
	account types.UID
	ca      [sha256.Size]byte
	content [sha256.Size]byte
}

// hashInputOf returns the input for the cached Secret.
func hashInputOf(s state, spec tokenSpec) hashInput {
	return hashInput{spec: spec, secret: s.secret.UID, account: s.account.UID, ca: s.caSum, content: s.secret.ContentSum}
}

// hash returns the value for [api.FilledHashAnnotation]. A Secret with another value is
// filled again. The prefix changes with the kind of input, in a newer version.
func (h hashInput) hash(r results) string {
	// The keys are those of the format: if sakeeper.io/filled-keys has others, the content
	// differs.
	text, err := json.Marshal([]any{
		h.spec.account, h.spec.audiences, h.spec.lifetime, h.spec.format, h.spec.server, h.spec.keys(),
		h.secret, h.account, hex.EncodeToString(h.ca[:]), hex.EncodeToString(h.content[:]),
		r.issuedAt, r.expiresAt, r.credentialID,
	})
	if err != nil {
		panic("tokenrequest: internal error: " + err.Error()) // strings and numbers
	}
	sum := sha256.Sum256(text)
	return "v1-" + hex.EncodeToString(sum[:])
}
