package tokenrequest

import (
	gocmp "cmp"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/token"
)

// filled is team/s with a token that was issued at [testkit.Instant] for a day, changed by
// opts after that.
func filled(opts ...testkit.Option) *corev1.Secret { return filledFrom(managed(), opts...) }

func filledFrom(secret *corev1.Secret, opts ...testkit.Option) *corev1.Secret {
	spec, problems := parse(secret.Annotations, "https://api.example.com")
	if len(problems) > 0 {
		panic(problems)
	}
	issued := testkit.Instant()
	data, err := spec.render(tokenFor(secret.UID, testkit.AccountUID, issued, spec.lifetime, "1"), target{namespace: "team", secret: "s", ca: testkit.Bundle().PEM()})
	if err != nil {
		panic(err)
	}
	noted := results{issued.Format(time.RFC3339), issued.Add(spec.lifetime).Format(time.RFC3339), "JTI=1"}
	input := hashInput{spec: spec, secret: secret.UID, account: testkit.AccountUID, ca: testkit.Bundle().Sum(), content: cache.ContentSum(data, spec.keys())}
	for key, value := range data {
		testkit.WithData(key, string(value))(secret)
	}
	keys := ""
	for i, key := range spec.keys() {
		if i > 0 {
			keys += ","
		}
		keys += key
	}
	for _, opt := range append([]testkit.Option{
		with("issued-at", noted.issuedAt), with("expires-at", noted.expiresAt), with("credential-id", noted.credentialID),
		with("filled-for", spec.account), with("filled-keys", keys), with("filled-hash", input.hash(noted)),
	}, opts...) {
		opt(secret)
	}
	return secret
}

func without(key string) testkit.Option {
	return func(o metav1.Object) { delete(o.GetAnnotations(), key) }
}

func TestDecide(t *testing.T) {
	const changed = "the settings or the data have changed"
	ofType := func(kind corev1.SecretType) testkit.Option {
		return func(o metav1.Object) { o.(*corev1.Secret).Type = kind }
	}
	immutable := func(o metav1.Object) { o.(*corev1.Secret).Immutable = new(true) }
	withoutData := func(key string) testkit.Option { return func(o metav1.Object) { delete(o.(*corev1.Secret).Data, key) } }
	due := token.Validity{Issued: testkit.Instant(), Expires: testkit.Instant().Add(24 * time.Hour)}.RenewAt(string(testkit.SecretUID))
	in := func(change func(*state)) state {
		s := state{namespace: served(), account: robot(), publicServer: "https://api.example.com", caSum: testkit.Bundle().Sum(), now: testkit.Instant().Add(time.Hour)}
		change(&s)
		return s
	}
	secret := func(secret *corev1.Secret) state {
		return in(func(s *state) { s.secret = cache.NewManagedSecret(secret) })
	}
	but := func(s state, change func(*state)) state { change(&s); return s }
	cases := map[string]struct {
		in         state
		wantAction action
		wantReason string
		wantEvent  string
		wantText   string // of the event; empty: the reason
		wantByAge  bool
		wantWait   bool
		// wantUntouched: not even the annotation about problems is written.
		wantUntouched bool
	}{
		"no secret":                      {in: in(func(*state) {}), wantAction: none, wantReason: "it is gone"},
		"a secret that is being deleted": {in: secret(managed(testkit.Deleting())), wantAction: none, wantReason: "it is being deleted"},
		"no namespace":                   {in: but(secret(managed()), func(s *state) { s.namespace = nil }), wantAction: none, wantReason: "its namespace is gone or terminating"},
		"a terminating namespace":        {in: but(secret(managed()), func(s *state) { testkit.Terminating()(s.namespace) }), wantAction: none, wantReason: "its namespace is gone or terminating"},
		"another value of the label": {
			in: secret(managed(testkit.WithLabel(api.TokenLabel, "true"), with("lifetime", "1m"))), wantAction: refuse, wantEvent: api.ReasonInvalidTokenSetting, wantUntouched: true,
			wantReason: `sakeeper.io/token: "true" is not a value of this label, so this Secret gets no token; did you mean managed?`,
		},
		"an empty value of the label, in a namespace without the label": {
			in: but(secret(filled(testkit.WithLabel(api.TokenLabel, ""))), func(s *state) { s.namespace = testkit.Namespace("team") }), wantAction: refuse, wantEvent: api.ReasonInvalidTokenSetting, wantUntouched: true,
			wantReason: `sakeeper.io/token: "" is not a value of this label, so this Secret gets no token; did you mean managed?`,
		},
		"a problem that was written": {in: secret(filled(with("problem", "old"))), wantAction: none, wantReason: "its token is not due", wantWait: true},
		"a namespace without the label": {
			in: but(secret(managed()), func(s *state) { s.namespace = testkit.Namespace("team") }), wantAction: refuse, wantEvent: api.ReasonTokenNotServed,
			wantReason: "Namespace team does not have the label sakeeper.io/token-requests=allowed, so this Secret gets no token",
		},
		"a namespace with another value": {
			in: but(secret(managed()), func(s *state) { s.namespace.Labels[api.TokenRequestsLabel] = "true" }), wantAction: refuse, wantEvent: api.ReasonTokenNotServed,
			wantReason: "Namespace team does not have the label sakeeper.io/token-requests=allowed, so this Secret gets no token",
		},
		"a namespace that lost the label": {
			in: but(secret(filled()), func(s *state) { s.namespace, s.now = testkit.Namespace("team"), due }), wantAction: refuse, wantEvent: api.ReasonTokenNotServed,
			wantReason: "Namespace team does not have the label sakeeper.io/token-requests=allowed, so the token in it is not renewed; it stays valid until it expires at 2026-01-03T03:04:05Z",
		},
		"a namespace that lost the label, and an account that is gone": {
			in: but(secret(filled()), func(s *state) { s.namespace, s.account = testkit.Namespace("team"), nil }), wantAction: refuse, wantEvent: api.ReasonTokenNotServed,
			wantReason: "Namespace team does not have the label sakeeper.io/token-requests=allowed, so the token in it is not renewed; it stays valid until it expires at 2026-01-03T03:04:05Z",
		},
		"any namespace if all are served": {
			in: but(secret(managed()), func(s *state) { s.namespace, s.allNamespaces = testkit.Namespace("team"), true }), wantAction: renew, wantReason: "it has no token",
		},
		"an in-tree token secret": {
			in: secret(managed(ofType(corev1.SecretTypeServiceAccountToken))), wantAction: refuse, wantEvent: api.ReasonUnusableTokenSecret, wantUntouched: true,
			wantReason: "A Secret of type kubernetes.io/service-account-token belongs to Kubernetes itself and gets no such token; create one of type Opaque",
		},
		"a bootstrap token": {
			in: secret(managed(ofType("bootstrap.kubernetes.io/token"))), wantAction: refuse, wantEvent: api.ReasonUnusableTokenSecret, wantUntouched: true,
			wantReason: "A Secret of type bootstrap.kubernetes.io/token belongs to Kubernetes itself and gets no such token; create one of type Opaque",
		},
		"a user's own type": {in: secret(managed(ofType("example.com/robot"))), wantAction: renew, wantReason: "it has no token"},
		"an immutable secret": {
			in: secret(managed(immutable)), wantAction: refuse, wantEvent: api.ReasonUnusableTokenSecret,
			wantReason: "This Secret is immutable, so no token can be written to it; delete it and create a mutable one",
		},
		"bad settings": {
			in: secret(managed(with("lifetime", "1m"), with("format", "jks"))), wantAction: refuse, wantEvent: api.ReasonInvalidTokenSetting,
			wantReason: `sakeeper.io/lifetime: "1m" is not a duration from 10m to 1193046h, such as 24h; sakeeper.io/format: "jks" is not one of token, kubeconfig, argocd-cluster, custom`,
		},
		"an annotation that does not exist": {
			in: secret(managed(with("lifetme", "1h"))), wantAction: renew, wantReason: "it has no token", wantEvent: api.ReasonInvalidTokenSetting,
			wantText: `"sakeeper.io/lifetme": there is no such annotation; did you mean sakeeper.io/lifetime?`,
		},
		"annotations that do not exist, and a good token": {
			in: secret(filled(with("tokenkey", "k"), with("servr", "x"), with("service", "x"), with("serviceaccount", "x"), with("ro", "x"), with("keep", "true"))), wantAction: none, wantReason: "its token is not due", wantWait: true, wantEvent: api.ReasonInvalidTokenSetting,
			wantText: `"sakeeper.io/ro": there is no such annotation; "sakeeper.io/service": there is no such annotation; did you mean sakeeper.io/service-account?; ` +
				`"sakeeper.io/serviceaccount": there is no such annotation; did you mean sakeeper.io/service-account?; "sakeeper.io/servr": there is no such annotation; did you mean sakeeper.io/service-account or sakeeper.io/server?; ` +
				`"sakeeper.io/tokenkey": there is no such annotation; did you mean sakeeper.io/token-key?`,
		},
		"one that does not exist, and one that is wrong": {
			in: secret(managed(with("lifetme", "1h"), with("format", "jks"))), wantAction: refuse, wantEvent: api.ReasonInvalidTokenSetting,
			wantReason: `sakeeper.io/format: "jks" is not one of token, kubeconfig, argocd-cluster, custom; "sakeeper.io/lifetme": there is no such annotation; did you mean sakeeper.io/lifetime?`,
		},
		"bad settings, and a good token": {
			in: but(secret(filled(with("lifetime", "1m"))), func(s *state) { s.account = nil }), wantAction: refuse, wantEvent: api.ReasonInvalidTokenSetting,
			wantReason: `sakeeper.io/lifetime: "1m" is not a duration from 10m to 1193046h, such as 24h`,
		},

		"no account yet": {
			in: but(secret(managed()), func(s *state) { s.account, s.now = nil, testkit.Instant().Add(time.Second) }), wantAction: none, wantWait: true,
			wantReason: "its service account may be created soon",
		},
		"no account, and a clock that is behind": {
			in: but(secret(managed()), func(s *state) { s.account, s.now = nil, testkit.Instant().Add(-time.Second) }), wantAction: refuse, wantEvent: api.ReasonNoServiceAccount,
			wantReason: "sakeeper.io/service-account: there is no ServiceAccount robot in this namespace; create it, or name another",
		},
		"no account": {
			in: but(secret(managed()), func(s *state) { s.account, s.now = nil, testkit.Instant().Add(missingAccountDelay) }), wantAction: refuse, wantEvent: api.ReasonNoServiceAccount,
			wantReason: "sakeeper.io/service-account: there is no ServiceAccount robot in this namespace; create it, or name another",
		},
		"no account any more": {in: but(secret(filled()), func(s *state) { s.account = nil }), wantAction: remove, wantReason: "its service account is gone"},
		"no account of another name": {
			in: but(secret(filled(with("service-account", "rob"))), func(s *state) { s.account = nil }), wantAction: refuse, wantEvent: api.ReasonNoServiceAccount,
			wantReason: "sakeeper.io/service-account: there is no ServiceAccount rob in this namespace; create it, or name another. The token in this Secret still is that of ServiceAccount robot, until it expires at 2026-01-03T03:04:05Z",
		},
		"an account that is being deleted": {in: but(secret(filled()), func(s *state) { testkit.Deleting()(s.account) }), wantAction: none, wantReason: "its service account is being deleted"},
		"another account of that name":     {in: but(secret(filled()), func(s *state) { s.account = robot(testkit.WithUID(testkit.OtherUID)) }), wantAction: renew, wantReason: changed},

		"no token":                           {in: secret(managed()), wantAction: renew, wantReason: "it has no token"},
		"a valid token":                      {in: secret(filled()), wantAction: none, wantReason: "its token is not due", wantWait: true},
		"valid in another format":            {in: secret(filledFrom(managed(with("format", "kubeconfig")))), wantAction: none, wantReason: "its token is not due", wantWait: true},
		"valid with all settings":            {in: secret(filledFrom(managed(with("format", "custom"), with("token-key", "k"), with("audiences", "a,b"), with("lifetime", "48h")))), wantAction: none, wantReason: "its token is not due", wantWait: true},
		"just before it is due":              {in: but(secret(filled()), func(s *state) { s.now = due.Add(-time.Nanosecond) }), wantAction: none, wantReason: "its token is not due", wantWait: true},
		"due":                                {in: but(secret(filled()), func(s *state) { s.now = due }), wantAction: renew, wantReason: "it is due", wantByAge: true},
		"expired":                            {in: but(secret(filled()), func(s *state) { s.now = due.Add(1000 * time.Hour) }), wantAction: renew, wantReason: "it is due", wantByAge: true},
		"due by a clock that is wrong":       {in: but(secret(filled()), func(s *state) { s.now, s.age = due.Add(1000*time.Hour), new(11*time.Hour) }), wantAction: none, wantReason: "its token is not due", wantWait: true},
		"not valid yet":                      {in: but(secret(filled()), func(s *state) { s.now = testkit.Instant().Add(-48 * time.Hour) }), wantAction: renew, wantReason: "it is not valid yet", wantByAge: true},
		"not valid yet, requested just now":  {in: but(secret(filled()), func(s *state) { s.now, s.age = testkit.Instant().Add(-48*time.Hour), new(59*time.Second) }), wantAction: none, wantReason: "its token is not due", wantWait: true},
		"not valid yet, a minute later":      {in: but(secret(filled()), func(s *state) { s.now, s.age = testkit.Instant().Add(-48*time.Hour), new(time.Minute) }), wantAction: renew, wantReason: "it is not valid yet", wantByAge: true},
		"requested by this process long ago": {in: but(secret(filled()), func(s *state) { s.now, s.age = testkit.Instant(), new(20*time.Hour) }), wantAction: renew, wantReason: "it is due", wantByAge: true},

		"another lifetime":      {in: secret(filled(with("lifetime", "23h"))), wantAction: renew, wantReason: changed},
		"the default, explicit": {in: secret(filled(with("lifetime", "24h"), with("format", "token"))), wantAction: none, wantReason: "its token is not due", wantWait: true},
		"other audiences":       {in: secret(filled(with("audiences", "a"))), wantAction: renew, wantReason: changed},
		"another format":        {in: secret(filled(with("format", "kubeconfig"))), wantAction: renew, wantReason: changed},
		"another key":           {in: secret(filledFrom(managed(with("format", "custom"), with("token-key", "k")), with("token-key", "l"))), wantAction: renew, wantReason: changed},
		"another account":       {in: secret(filled(with("service-account", "rob"))), wantAction: renew, wantReason: changed},
		"another server":        {in: secret(filledFrom(managed(with("format", "kubeconfig")), with("server", "https://other"))), wantAction: renew, wantReason: changed},
		"another public server": {in: but(secret(filledFrom(managed(with("format", "kubeconfig")))), func(s *state) { s.publicServer = "https://other" }), wantAction: renew, wantReason: changed},
		"a server that the format does not use": {
			in: but(secret(filled(with("server", "https://other"))), func(s *state) { s.publicServer = "https://other" }), wantAction: none, wantReason: "its token is not due", wantWait: true,
		},
		"another CA":               {in: but(secret(filled()), func(s *state) { s.caSum = testkit.OtherBundle().Sum() }), wantAction: renew, wantReason: changed},
		"a copy of the secret":     {in: secret(filled(testkit.WithUID(testkit.OtherUID))), wantAction: renew, wantReason: changed},
		"a key that was removed":   {in: secret(filled(withoutData("namespace"))), wantAction: renew, wantReason: changed},
		"a key that was changed":   {in: secret(filled(testkit.WithData("token", "x"))), wantAction: renew, wantReason: changed},
		"a key that is the user's": {in: secret(filled(testkit.WithData("mine", "no"))), wantAction: none, wantReason: "its token is not due", wantWait: true},
		"other data under the keys of the token": {
			in: secret(managed(testkit.WithData("token", "mine"), testkit.WithData("ca.crt", "mine"), testkit.WithData("other", "mine"))), wantAction: refuse, wantEvent: api.ReasonUnusableTokenSecret,
			wantReason: "This Secret has other data under ca.crt, token, where the token would be written; remove it, or ask for another format",
		},
		"other data under a key of another format": {
			in: secret(filled(with("format", "kubeconfig"), with("server", "https://api"), testkit.WithData("kubeconfig", "mine"))), wantAction: refuse, wantEvent: api.ReasonUnusableTokenSecret,
			wantReason: "This Secret has other data under kubeconfig, where the token would be written; remove it, or ask for another format",
		},
		"an empty value under the key of the token": {in: secret(managed(testkit.WithData("token", ""))), wantAction: renew, wantReason: "it has no token"},
		"another expiry":              {in: secret(filled(with("expires-at", "2036-01-01T00:00:00Z"))), wantAction: renew, wantReason: changed},
		"no expiry":                   {in: secret(filled(without(api.ExpiresAtAnnotation))), wantAction: renew, wantReason: changed},
		"no credential id":            {in: secret(filled(without(api.CredentialIDAnnotation))), wantAction: renew, wantReason: changed},
		"no filled-for annotation":    {in: secret(filled(without(api.FilledForAnnotation))), wantAction: renew, wantReason: changed},
		"no list of keys":             {in: secret(filled(without(api.FilledKeysAnnotation))), wantAction: renew, wantReason: changed},
		"a list of more keys":         {in: secret(filled(with("filled-keys", "ca.crt,mine,namespace,token"))), wantAction: renew, wantReason: changed},
		"no hash":                     {in: secret(filled(without(api.FilledHashAnnotation))), wantAction: renew, wantReason: "it has no token"},
		"rotate":                      {in: secret(filled(with("rotate", "now"))), wantAction: renew, wantReason: "a rotation was requested"},
		"rotate once more":            {in: secret(filled(with("rotate", "again"), with("rotated", "now"))), wantAction: renew, wantReason: "a rotation was requested"},
		"rotated":                     {in: secret(filled(with("rotate", "now"), with("rotated", "now"))), wantAction: none, wantReason: "its token is not due", wantWait: true},
		"rotated, and rotate removed": {in: secret(filled(with("rotated", "now"))), wantAction: none, wantReason: "its token is not due", wantWait: true},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got := decide(tc.in)
			want := decision{action: tc.wantAction, reason: tc.wantReason, dueByAge: tc.wantByAge, rateLimited: tc.wantReason == changed || tc.wantAction == remove, spec: got.spec, wait: got.wait}
			want.annotate = !tc.wantUntouched && (tc.wantAction == refuse || tc.wantReason == "its token is not due")
			if tc.wantEvent != "" {
				want.problem = problem{tc.wantEvent, gocmp.Or(tc.wantText, tc.wantReason)}
			}
			if diff := cmp.Diff(want, got, cmp.AllowUnexported(decision{}, problem{}, tokenSpec{})); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			// The next decision comes before the token is due.
			if got.wait > 0 != tc.wantWait || got.wait > 5*time.Hour {
				t.Errorf("wait is %v", got.wait)
			}
		})
	}
}
