package tokens

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

const (
	issuer      = "https://issuer"
	otherIssuer = "https://former-issuer"
	legacy      = "kubernetes/serviceaccount"
)

// labelled is a request with the labels of its special properties.
type labelled struct {
	question
	kind   string
	labels []string
	// unknownKind is true if a private claim is unknown, which only kube-apiserver ignores.
	unknownKind bool
}

func (l labelled) String() string {
	return fmt.Sprintf("%s token; %s; audiences %q of %q; state %+v", l.kind, strings.Join(l.labels, ", "), l.Audiences, l.APIAudiences, l.State)
}

// generator makes cases. It leaves about half of each part valid, so that each defect occurs
// alone as well as with others.
type generator struct {
	*rand.Rand
	ring *ring
}

func (g generator) oneIn(n int) bool { return g.IntN(n) == 0 }

func pick[T any](g generator, from ...T) T { return from[g.IntN(len(from))] }

// claim is a member of the payload; a name may occur twice.
type claim struct{ name, value string }

func quoted(text string) string { return `"` + text + `"` }

func ref(name, uid string) string { return `{"name":` + quoted(name) + `,"uid":` + quoted(uid) + `}` }

const (
	account  = `{"namespace":"team","serviceaccount":{"name":"robot","uid":"u-robot"}`
	attested = `,"attestations":{"admissionReviewAPIGroups":["apps"]}`
)

// make returns one case.
func (g generator) make() labelled {
	l := labelled{kind: pick(g, "legacy", "account", "pod", "pod on a node", "secret", "node", "validating webhook", "mutating webhook")}
	l.Issuers, l.APIAudiences = []string{issuer, otherIssuer}, []string{issuer, "api"}
	l.State = state{
		Accounts: map[string]object{"team/robot": {UID: "u-robot"}}, Pods: map[string]object{"team/app": {UID: "u-app"}},
		Secrets: map[string]object{"team/robot-token": {UID: "u-secret"}}, Nodes: map[string]object{"node-1": {UID: "u-node"}},
		ValidatingWebhooks: map[string]object{"check": {UID: "u-check"}}, MutatingWebhooks: map[string]object{"change": {UID: "u-change"}},
	}
	claims := g.claims(l.kind)
	if g.oneIn(2) {
		claims = g.spoilClaims(&l, claims)
	}
	if g.oneIn(20) {
		l.labels = append(l.labels, l.kind+" of a name that no account can have")
		for i := range claims {
			claims[i].value = strings.ReplaceAll(strings.ReplaceAll(claims[i].value, `"robot"`, `"Ro_bot"`), `:robot"`, `:Ro_bot"`)
		}
		l.State.Accounts = map[string]object{"team/Ro_bot": l.State.Accounts["team/robot"]}
	}
	l.Token = g.sign(&l, claims)
	secret := l.State.Secrets["team/robot-token"]
	secret.Token = l.Token
	l.State.Secrets["team/robot-token"] = secret
	if g.oneIn(2) {
		g.spoilState(&l)
	}
	if g.oneIn(3) {
		g.spoilText(&l)
	}
	if g.oneIn(3) {
		l.Audiences = pick(g, []string{"api"}, []string{"other"}, []string{"other", "api", issuer}, []string{issuer}, []string{"vault"})
		l.labels = append(l.labels, "audiences asked for")
	}

	return l
}

func (g generator) claims(kind string) []claim {
	if kind == "legacy" {
		return []claim{
			{"iss", quoted(legacy)}, {"kubernetes.io/serviceaccount/namespace", quoted("team")}, {"kubernetes.io/serviceaccount/secret.name", quoted("robot-token")},
			{"kubernetes.io/serviceaccount/service-account.name", quoted("robot")}, {"kubernetes.io/serviceaccount/service-account.uid", quoted("u-robot")},
			{"sub", quoted("system:serviceaccount:team:robot")},
		}
	}
	now := time.Now().Unix()
	bound := `"namespace":"team","serviceaccount":` + ref("robot", "u-robot")
	switch kind {
	case "pod":
		bound += `,"pod":` + ref("app", "u-app")
	case "pod on a node":
		bound += `,"pod":` + ref("app", "u-app") + `,"node":` + ref("node-1", "u-node")
	case "secret":
		bound += `,"secret":` + ref("robot-token", "u-secret")
	case "node":
		bound += `,"node":` + ref("node-1", "u-node")
	case "validating webhook":
		bound += `,"validatingwebhookconfiguration":` + ref("check", "u-check") + attested
	case "mutating webhook":
		bound += `,"mutatingwebhookconfiguration":` + ref("change", "u-change") + attested
	}

	return []claim{
		{"aud", `["` + issuer + `"]`}, {"exp", fmt.Sprint(now + 3600)}, {"iat", fmt.Sprint(now - 60)}, {"iss", quoted(issuer)}, {"jti", quoted("id-1")},
		{"kubernetes.io", "{" + bound + "}"}, {"nbf", fmt.Sprint(now - 60)}, {"sub", quoted("system:serviceaccount:team:robot")},
	}
}

// spoilClaims changes, drops, doubles or adds one claim.
func (g generator) spoilClaims(l *labelled, claims []claim) []claim {
	at := g.IntN(len(claims))
	name := claims[at].name
	now := time.Now().Unix()
	switch g.IntN(10) {
	case 0:
		l.labels = append(l.labels, "without "+name)

		return slices.Delete(claims, at, at+1)
	case 1:
		l.labels = append(l.labels, name+" twice")

		return append(claims, claims[at])
	case 2:
		value := pick(g, `"other"`, `""`, `null`, `[]`, `{}`, `7`, `true`, `"system:serviceaccount:team:other"`, `"`+otherIssuer+`"`, `"`+legacy+`"`)
		l.labels = append(l.labels, name+" is "+value)
		claims[at].value = value
	case 3:
		value := pick(g, `["vault"]`, `"api"`, `["vault","api"]`, `[]`, `""`, `[""]`, `null`, `{"a":1}`, `["api",7]`)
		l.labels = append(l.labels, "aud is "+value)
		claims = set(claims, "aud", value)
	case 4, 5:
		which := pick(g, "exp", "nbf", "iat")
		// The leeway is a minute: after exp, and before nbf and iat.
		value := pick(g, now-3600, now-65, now-55, now-1, now+1, now+55, now+65, now+3600, 0, -1, 1<<40)
		text := pick(g, fmt.Sprint(value), fmt.Sprintf("%d.5", value), fmt.Sprintf("%de0", value), quoted(fmt.Sprint(value)))
		l.labels = append(l.labels, fmt.Sprintf("%s by %d s as %s", which, value-now, strings.NewReplacer("0", "9", "1", "9").Replace(fmt.Sprint(len(text)))))
		claims = set(claims, which, text)
	case 6:
		value := pick(g, `{}`, `null`, `[]`, `7`, `{"namespace":"team"}`, `{"namespace":"team","serviceaccount":{"name":"robot"}}`, `{"namespace":"team","serviceaccount":{"name":"robot","uid":"u-robot"},"pod":{}}`,
			`{"namespace":"team","serviceaccount":{"name":"robot","uid":"u-robot"},"pod":null,"warnafter":1}`, `{"namespace":"team","namespace":"team","serviceaccount":{"name":"robot","uid":"u-robot"}}`,
			`{"namespace":"team","serviceaccount":{"name":"robot","uid":"u-robot"},"node":{"name":"node-1"}}`, `{"namespace":"","serviceaccount":{"name":"robot","uid":"u-robot"}}`,
			`{"namespace":"team","serviceaccount":{"name":"robot","uid":"u-robot"},"secret":{"name":"robot-token","uid":"u-secret"},"pod":{"name":"app","uid":"u-app"}}`,
			`{"Namespace":"team","serviceaccount":{"name":"robot","uid":"u-robot"}}`)
		l.labels = append(l.labels, "kubernetes.io is "+value)
		claims = set(claims, "kubernetes.io", value)
	case 7:
		attestations := pick(g, attested, "", `,"attestations":null`, `,"attestations":{}`, `,"attestations":[]`, `,"attestations":"apps"`, `,"attestations":{"admissionReviewAPIGroups":"apps"}`,
			`,"attestations":{"admissionReviewAPIGroups":[]}`, `,"attestations":{"admissionReviewAPIGroups":null}`, `,"attestations":{"admissionReviewAPIGroups":["apps","*"]}`,
			`,"attestations":{"admissionReviewAPIGroups":[7]}`, `,"attestations":{"admissionReviewAPIGroups":[""]}`, `,"attestations":{"more":["x"],"admissionReviewAPIGroups":["*"]}`, `,"attestations":{"admissionreviewapigroups":["apps"]}`)
		bound := pick(g, "", `,"validatingwebhookconfiguration":`+ref("check", "u-check"), `,"mutatingwebhookconfiguration":`+ref("change", "u-change"),
			`,"validatingwebhookconfiguration":`+ref("check", "u-check")+`,"mutatingwebhookconfiguration":`+ref("change", "u-change"),
			`,"validatingwebhookconfiguration":`+ref("check", "u-check")+`,"mutatingwebhookconfiguration":`+ref("change", "u-old"),
			`,"validatingwebhookconfiguration":`+ref("change", "u-change"), `,"validatingwebhookconfiguration":{"name":"check"}`, `,"mutatingwebhookconfiguration":{}`, `,"mutatingwebhookconfiguration":null`, `,"validatingwebhookconfiguration":"check"`,
			`,"pod":`+ref("app", "u-app")+`,"mutatingwebhookconfiguration":`+ref("change", "u-change"), `,"node":`+ref("node-1", "u-node")+`,"validatingwebhookconfiguration":`+ref("check", "u-check"))
		l.labels = append(l.labels, "bound to ["+bound+attestations+"]")
		claims = set(claims, "kubernetes.io", account+bound+attestations+"}")
	case 8:
		bound := pick(g, `,"deployment":`+ref("app", "u-app"), `,"more":1`, `,"more":null`, `,"Pod":`+ref("app", "u-app"), `,"":{}`, `,"pod":`+ref("app", "u-app")+`,"deployment":`+ref("app", "u-app"))
		l.labels = append(l.labels, "an unknown kind")
		l.unknownKind = true
		claims = set(claims, "kubernetes.io", account+bound+"}")
	default:
		added := pick(g, claim{"ISS", quoted(issuer)}, claim{"Iss", quoted("other")}, claim{"extra", "1"}, claim{"iss", quoted("other")}, claim{"iss", quoted(legacy)}, claim{"sub", quoted("root")}, claim{"groups", `["system:masters"]`})
		l.labels = append(l.labels, "with "+added.name+" "+added.value)
		claims = slices.Insert(claims, g.IntN(len(claims)+1), added)
	}

	return claims
}

func set(claims []claim, name, value string) []claim {
	for i := range claims {
		if claims[i].name == name {
			claims[i].value = value

			return claims
		}
	}

	return append(claims, claim{name, value})
}

// sign returns the token, signed with the right key or with a defect.
func (g generator) sign(l *labelled, claims []claim) string {
	var members []string
	for _, c := range claims {
		members = append(members, quoted(c.name)+":"+c.value)
	}
	payload := base64.RawURLEncoding.EncodeToString([]byte("{" + strings.Join(members, ",") + "}"))
	key := pick(g, g.ring.known...)
	header := map[string]string{"alg": key.algorithm, "kid": key.id}
	how := "its key"
	if g.oneIn(3) {
		how = pick(g, "no kid", "swapped kid", "unknown kid", "unknown key", "unknown key under a known kid", "alg none", "HS256 with the public key", "another alg", "no signature", "damaged signature", "with typ")
	}
	l.labels = append(l.labels, key.algorithm, how)
	signer := key
	switch how {
	case "no kid":
		delete(header, "kid")
	case "swapped kid":
		header["kid"] = pick(g, g.ring.known...).id
	case "unknown kid":
		header["kid"] = "unknown"
	case "unknown key":
		signer = g.ring.unknown
		header = map[string]string{"alg": signer.algorithm, "kid": signer.id}
	case "unknown key under a known kid":
		signer = g.ring.unknown
		header = map[string]string{"alg": signer.algorithm, "kid": g.ring.known[0].id}
	case "alg none":
		header["alg"] = pick(g, "none", "None", "")
	case "HS256 with the public key":
		header["alg"] = "HS256"
	case "another alg":
		header["alg"] = pick(g, "RS256", "ES256", "ES384", "ES512")
	case "with typ":
		header["typ"] = "JWT"
	}
	text, err := json.Marshal(header)
	if err != nil {
		panic(err)
	}
	signed := base64.RawURLEncoding.EncodeToString(text) + "." + payload
	signature := signer.sign([]byte(signed))
	switch how {
	case "HS256 with the public key":
		signature = key.mac([]byte(signed))
	case "no signature", "alg none":
		signature = nil
	case "damaged signature":
		signature[g.IntN(len(signature))] ^= 1
	}

	return signed + "." + base64.RawURLEncoding.EncodeToString(signature)
}

// spoilState changes the objects of the cluster.
func (g generator) spoilState(l *labelled) {
	kinds := map[string]map[string]object{"account": l.State.Accounts, "pod": l.State.Pods, "secret": l.State.Secrets, "node": l.State.Nodes, "validating webhook": l.State.ValidatingWebhooks, "mutating webhook": l.State.MutatingWebhooks}
	which := pick(g, slices.Sorted(maps.Keys(kinds))...)
	objects := kinds[which]
	for name, found := range objects {
		what := pick(g, "gone", "made again", "deleted", "another token", "marked invalid", "under another name")
		l.labels = append(l.labels, which+" "+what)
		switch what {
		case "gone":
			delete(objects, name)
		case "under another name":
			delete(objects, name)
			objects[name+"-2"] = found
		case "made again":
			found.UID = "u-new"
			objects[name] = found
		case "deleted":
			ago := pick(g, -3600, -30, 0, 30, 55, 65, 3600)
			l.labels = append(l.labels, fmt.Sprintf("for %d s", ago))
			found.DeletedFor = &ago
			objects[name] = found
		case "another token":
			found.Token = pick(g, "", "other", l.Token+"x")
			objects[name] = found
		case "marked invalid":
			found.InvalidSince = pick(g, "2026-01-02", "x")
			objects[name] = found
		}
	}
}

// spoilText changes the encoded token.
func (g generator) spoilText(l *labelled) {
	parts := strings.Split(l.Token, ".")
	how := pick(g, "one part more", "one part less", "padding", "JSON", "a character changed", "a character more", "empty header", "empty payload")
	l.labels = append(l.labels, how)
	switch how {
	case "one part more":
		l.Token += "." + parts[2]
	case "one part less":
		l.Token = parts[0] + "." + parts[1]
	case "padding":
		l.Token = parts[0] + "." + parts[1] + "=." + parts[2]
	case "JSON":
		l.Token = fmt.Sprintf(`{"payload":%q,"protected":%q,"signature":%q}`, parts[1], parts[0], parts[2])
	case "a character changed":
		at := g.IntN(len(l.Token))
		l.Token = l.Token[:at] + pick(g, "A", "_", "9", ".", "*") + l.Token[at+1:]
	case "a character more":
		at := g.IntN(len(l.Token))
		l.Token = l.Token[:at] + pick(g, "A", "_", "9") + l.Token[at:]
	case "empty header":
		l.Token = "." + parts[1] + "." + parts[2]
	case "empty payload":
		l.Token = parts[0] + ".." + parts[2]
	}
}
