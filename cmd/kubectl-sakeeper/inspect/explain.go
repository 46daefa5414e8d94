package inspect

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/sakeeper/sakeeper/cmd/kubectl-sakeeper/printer"
	"github.com/sakeeper/sakeeper/pkg/inventory"
	"github.com/sakeeper/sakeeper/pkg/keys"
	"github.com/sakeeper/sakeeper/pkg/token"
)

type document struct {
	Tokens []explanation `json:"tokens"`
}

// explanation is what a token says, without the token.
type explanation struct {
	// Kind is legacy, bound, or "not a ServiceAccount token".
	Kind      string   `json:"kind"`
	Issuer    string   `json:"issuer,omitempty"`
	Subject   string   `json:"subject,omitempty"`
	Audiences []string `json:"audiences,omitempty"`
	// Issued, NotBefore and Expires are nil if the token does not have them.
	Issued    *time.Time `json:"issued,omitempty"`
	NotBefore *time.Time `json:"notBefore,omitempty"`
	Expires   *time.Time `json:"expires,omitempty"`
	// ID is the jti, which audit logs have as JTI=<id>.
	ID        string `json:"id,omitempty"`
	Algorithm string `json:"algorithm,omitempty"`
	KeyID     string `json:"keyID,omitempty"`
	// BoundTo are the objects without which the API server refuses the token.
	BoundTo []object `json:"boundTo,omitempty"`
	// Verified says whether a key that the API server publishes verifies the signature.
	Verified inventory.Answer `json:"verified"`
	// Problems say why the API server would refuse it, as far as the token shows that.
	Problems []string `json:"problems,omitempty"`
	Review   *review  `json:"review,omitempty"`
}

type object struct {
	Kind string `json:"kind"`
	Name string `json:"name"`
	UID  string `json:"uid,omitempty"`
}

// audiences is one text or a list.
type audiences []string

func (a *audiences) UnmarshalJSON(data []byte) error {
	var one string
	if json.Unmarshal(data, &one) == nil {
		*a = audiences{one}
		return nil
	}
	return json.Unmarshal(data, (*[]string)(a))
}

// claims are those that are explained. The order of the private ones is that of BoundTo.
type claims struct {
	Issuer     string    `json:"iss"`
	Subject    string    `json:"sub"`
	Audiences  audiences `json:"aud"`
	ID         string    `json:"jti"`
	Issued     float64   `json:"iat"`
	NotBefore  float64   `json:"nbf"`
	Expires    float64   `json:"exp"`
	Kubernetes struct {
		Namespace      string     `json:"namespace"`
		ServiceAccount *token.Ref `json:"serviceaccount"`
		Pod            *token.Ref `json:"pod"`
		Secret         *token.Ref `json:"secret"`
		Node           *token.Ref `json:"node"`
		Validating     *token.Ref `json:"validatingwebhookconfiguration"`
		Mutating       *token.Ref `json:"mutatingwebhookconfiguration"`
	} `json:"kubernetes.io"`
	LegacyNamespace string `json:"kubernetes.io/serviceaccount/namespace"`
	LegacySecret    string `json:"kubernetes.io/serviceaccount/secret.name"`
	LegacyAccount   string `json:"kubernetes.io/serviceaccount/service-account.name"`
	LegacyUID       string `json:"kubernetes.io/serviceaccount/service-account.uid"`
}

// notOurs is the kind of a token that is not one of a ServiceAccount.
const notOurs = "not a ServiceAccount token"

// explain reads a token. set has the keys that the API server publishes; nil if they are unknown.
func explain(compact string, set *keys.Set, now time.Time) explanation {
	e := explanation{Kind: notOurs, Verified: inventory.Unknown}
	if set != nil {
		e.Verified = inventory.No
	}
	parts := strings.Split(compact, ".")
	var header struct {
		Algorithm string `json:"alg"`
		KeyID     string `json:"kid"`
	}
	var c claims
	if decode(parts[0], &header) != nil || decode(parts[1], &c) != nil {
		e.Problems = []string{"its header or its claims cannot be read"}
		return e
	}
	e.Algorithm, e.KeyID = header.Algorithm, header.KeyID
	e.Issuer, e.Subject, e.Audiences, e.ID = c.Issuer, c.Subject, c.Audiences, c.ID
	e.Issued, e.NotBefore, e.Expires = instant(c.Issued), instant(c.NotBefore), instant(c.Expires)
	switch {
	case c.Issuer == token.LegacyIssuer:
		e.Kind = string(inventory.Legacy)
		e.BoundTo = []object{{"ServiceAccount", c.LegacyNamespace + "/" + c.LegacyAccount, c.LegacyUID}, {"Secret", c.LegacyNamespace + "/" + c.LegacySecret, ""}}
	case c.Kubernetes.ServiceAccount != nil:
		e.Kind, e.BoundTo = string(inventory.Bound), c.bound()
	}
	if e.Expires != nil && e.Expires.Before(now) {
		e.Problems = append(e.Problems, "it has expired")
	}
	if e.NotBefore != nil && e.NotBefore.After(now) {
		e.Problems = append(e.Problems, "it is not valid yet")
	}
	if set != nil {
		e.verify(compact, set)
	}
	return e
}

func (c *claims) bound() []object {
	var bound []object
	add := func(kind string, namespaced bool, ref *token.Ref) {
		switch {
		case ref == nil:
		case namespaced:
			bound = append(bound, object{kind, c.Kubernetes.Namespace + "/" + ref.Name, ref.UID})
		default:
			bound = append(bound, object{kind, ref.Name, ref.UID})
		}
	}
	k := c.Kubernetes
	add("ServiceAccount", true, k.ServiceAccount)
	add("Pod", true, k.Pod)
	add("Secret", true, k.Secret)
	add("Node", false, k.Node)
	add("ValidatingWebhookConfiguration", false, k.Validating)
	add("MutatingWebhookConfiguration", false, k.Mutating)
	return bound
}

func (e *explanation) verify(compact string, set *keys.Set) {
	_, err := token.NewVerifier(func() *keys.Set { return set }).Verify(compact, e.Issuer)
	switch {
	case err == nil:
		e.Verified = inventory.Yes
	case errors.Is(err, token.ErrUnknownKey):
		e.Problems = append(e.Problems, "the API server does not publish its key: another cluster, or a key that was replaced")
	case errors.Is(err, token.ErrSignature):
		e.Problems = append(e.Problems, "its signature is wrong: no published key has made it")
	case errors.Is(err, token.ErrClaims), errors.Is(err, token.ErrUnknownKind):
		e.Verified = inventory.Yes
		e.Problems = append(e.Problems, "its claims are not those of a ServiceAccount token")
	default:
		e.Problems = append(e.Problems, "it is malformed, or has an algorithm that the API server does not use")
	}
}

func decode(part string, into any) error {
	data, err := base64.RawURLEncoding.DecodeString(part)
	if err != nil {
		return err
	}
	return json.Unmarshal(data, into)
}

// maxSeconds is the year 9999, the last that JSON can hold.
const maxSeconds = 253402300799

func instant(seconds float64) *time.Time {
	if seconds <= 0 || seconds > maxSeconds {
		return nil
	}
	t := time.Unix(int64(seconds), 0).UTC()
	return &t
}

// write prints explanations for people.
func write(w io.Writer, all []explanation, now time.Time) error {
	var text strings.Builder
	for i, e := range all {
		if i > 0 {
			text.WriteString("\n")
		}
		e.write(&text, now)
	}
	_, err := io.WriteString(w, text.String())
	return err
}

func (e *explanation) write(text *strings.Builder, now time.Time) {
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(text, "%-12s %s\n", name+":", printer.Clean(value))
		}
	}
	kind := e.Kind
	switch inventory.Kind(e.Kind) {
	case inventory.Legacy:
		kind += ": it never expires, and is valid until its Secret or its account is deleted"
	case inventory.Bound:
		kind += ": from the TokenRequest API"
	default:
	}
	line("Kind", kind)
	line("Subject", e.Subject)
	line("Issuer", e.Issuer)
	line("Audiences", strings.Join(e.Audiences, ", "))
	line("Issued", when(e.Issued, now))
	line("Not before", when(e.NotBefore, now))
	line("Expires", when(e.Expires, now))
	line("Token id", e.ID)
	line("Key", strings.TrimSpace(e.KeyID+" "+e.Algorithm))
	for _, o := range e.BoundTo {
		uid := ""
		if o.UID != "" {
			uid = " (UID " + o.UID + ")"
		}
		line("Bound to", o.Kind+" "+o.Name+uid)
	}
	line("Verified", map[inventory.Answer]string{
		inventory.Yes: "yes, by a key that the API server publishes", inventory.No: "no", inventory.Unknown: "unknown: the keys of the API server were not read",
	}[e.Verified])
	for _, problem := range e.Problems {
		line("Problem", problem)
	}
	if e.Review != nil {
		answer := "refused: " + e.Review.Error
		if e.Review.Accepted {
			answer = "accepted as " + e.Review.User
		}
		line("API server", answer)
	}
}

func when(t *time.Time, now time.Time) string {
	switch {
	case t == nil:
		return ""
	case t.After(now):
		return t.Format(time.RFC3339) + " (in " + duration.HumanDuration(t.Sub(now)) + ")"
	default:
		return t.Format(time.RFC3339) + " (" + duration.HumanDuration(now.Sub(*t)) + " ago)"
	}
}
