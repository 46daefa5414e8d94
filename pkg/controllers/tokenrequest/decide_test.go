package tokenrequest

import (
	"strings"
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
	for _, opt := range append([]testkit.Option{
		with("issued-at", noted.issuedAt), with("expires-at", noted.expiresAt), with("credential-id", noted.credentialID),
		with("filled-for", spec.account), with("filled-keys", strings.Join(spec.keys(), ",")), with("filled-hash", input.hash(noted)),
	}, opts...) {
		opt(secret)
	}
	return secret
}

func without(key string) testkit.Option {
	return func(o metav1.Object) { delete(o.GetAnnotations(), key) }
}

func TestDecide(t *testing.T) {
	const (
		notServed        = "Namespace team does not have the label sakeeper.io/token-requests=allowed, so this Secret gets no token"
		notServedAnyMore = "Namespace team does not have the label sakeeper.io/token-requests=allowed, so the token in it is not renewed; it stays valid until it expires at 2026-01-03T03:04:05Z"
		noAccount        = "sakeeper.io/service-account: there is no ServiceAccount robot in this namespace; create it, or name another"
	)
	ofType := func(kind corev1.SecretType) testkit.Option {
		return func(o metav1.Object) { o.(*corev1.Secret).Type = kind }
	}
	immutable := func(o metav1.Object) { o.(*corev1.Secret).Immutable = new(true) }
	withoutData := func(key string) testkit.Option { return func(o metav1.Object) { delete(o.(*corev1.Secret).Data, key) } }
	dueAt := token.Validity{Issued: testkit.Instant(), Expires: testkit.Instant().Add(24 * time.Hour)}.RenewAt(string(testkit.SecretUID))

	// What is decided. The time until the next decision is compared apart.
	const soon = time.Hour
	notDue := decision{action: none, reason: "its token is not due", wait: soon, annotate: true}
	changed := decision{action: renew, reason: "the settings or the data have changed", rateLimited: true}
	skipped := func(reason string) decision { return decision{action: none, reason: reason} }
	waiting := func(reason string) decision { return decision{action: none, reason: reason, wait: soon} }
	renewed := func(reason string) decision { return decision{action: renew, reason: reason} }
	due := func(reason string) decision { return decision{action: renew, reason: reason, dueByAge: true} }
	beside := func(d decision, event, text string) decision { d.problem = problem{event, text}; return d }
	refused := func(event, text string) decision {
		return decision{action: refuse, reason: text, problem: problem{event, text}, annotate: true}
	}
	// ignored is refused without a write.
	ignored := func(event, text string) decision {
		return decision{action: refuse, reason: text, problem: problem{event, text}}
	}
	cases := map[string]struct {
		in   *corev1.Secret
		with func(*state) // what differs from a served namespace, an account and an hour after [filled]
		want decision
	}{
		"no secret":                      {want: skipped("it is gone")},
		"a secret that is being deleted": {in: managed(testkit.Deleting()), want: skipped("it is being deleted")},
		"no namespace":                   {in: managed(), with: func(s *state) { s.namespace = nil }, want: skipped("its namespace is gone or terminating")},
		"a terminating namespace":        {in: managed(), with: func(s *state) { testkit.Terminating()(s.namespace) }, want: skipped("its namespace is gone or terminating")},
		"another value of the label": {
			in:   managed(testkit.WithLabel(api.TokenLabel, "true"), with("lifetime", "1m")),
			want: ignored(api.ReasonInvalidTokenSetting, `sakeeper.io/token: "true" is not a value of this label, so this Secret gets no token; did you mean managed?`),
		},
		"an empty value of the label, in a namespace without the label": {
			in: filled(testkit.WithLabel(api.TokenLabel, "")), with: func(s *state) { s.namespace = testkit.Namespace("team") },
			want: ignored(api.ReasonInvalidTokenSetting, `sakeeper.io/token: "" is not a value of this label, so this Secret gets no token; did you mean managed?`),
		},
		"a problem that was written":      {in: filled(with("problem", "old")), want: notDue},
		"a namespace without the label":   {in: managed(), with: func(s *state) { s.namespace = testkit.Namespace("team") }, want: refused(api.ReasonTokenNotServed, notServed)},
		"a namespace with another value":  {in: managed(), with: func(s *state) { s.namespace.Labels[api.TokenRequestsLabel] = "true" }, want: refused(api.ReasonTokenNotServed, notServed)},
		"a namespace that lost the label": {in: filled(), with: func(s *state) { s.namespace, s.now = testkit.Namespace("team"), dueAt }, want: refused(api.ReasonTokenNotServed, notServedAnyMore)},
		"a namespace that lost the label, and an account that is gone": {
			in: filled(), with: func(s *state) { s.namespace, s.account = testkit.Namespace("team"), nil },
			want: refused(api.ReasonTokenNotServed, notServedAnyMore),
		},
		"any namespace if all are served": {in: managed(), with: func(s *state) { s.namespace, s.allNamespaces = testkit.Namespace("team"), true }, want: renewed("it has no token")},
		"an in-tree token secret": {
			in:   managed(ofType(corev1.SecretTypeServiceAccountToken)),
			want: ignored(api.ReasonUnusableTokenSecret, "A Secret of type kubernetes.io/service-account-token belongs to Kubernetes itself and gets no such token; create one of type Opaque"),
		},
		"a bootstrap token": {
			in:   managed(ofType("bootstrap.kubernetes.io/token")),
			want: ignored(api.ReasonUnusableTokenSecret, "A Secret of type bootstrap.kubernetes.io/token belongs to Kubernetes itself and gets no such token; create one of type Opaque"),
		},
		"a user's own type": {in: managed(ofType("example.com/robot")), want: renewed("it has no token")},
		"an immutable secret": {
			in:   managed(immutable),
			want: refused(api.ReasonUnusableTokenSecret, "This Secret is immutable, so no token can be written to it; delete it and create a mutable one"),
		},
		"bad settings": {
			in:   managed(with("lifetime", "1m"), with("format", "jks")),
			want: refused(api.ReasonInvalidTokenSetting, `sakeeper.io/lifetime: "1m" is not a duration from 10m to 1193046h, such as 24h; sakeeper.io/format: "jks" is not one of token, kubeconfig, argocd-cluster, custom`),
		},
		"an annotation that does not exist": {
			in:   managed(with("lifetme", "1h")),
			want: beside(renewed("it has no token"), api.ReasonInvalidTokenSetting, `"sakeeper.io/lifetme": there is no such annotation; did you mean sakeeper.io/lifetime?`),
		},
		"annotations that do not exist, and a good token": {
			in:   filled(with("tokenkey", "k"), with("servr", "x"), with("service", "x"), with("serviceaccount", "x"), with("ro", "x"), with("keep", "true")),
			want: beside(notDue, api.ReasonInvalidTokenSetting, `"sakeeper.io/ro": there is no such annotation; "sakeeper.io/service": there is no such annotation; did you mean sakeeper.io/service-account?; `+`"sakeeper.io/serviceaccount": there is no such annotation; did you mean sakeeper.io/service-account?; "sakeeper.io/servr": there is no such annotation; did you mean sakeeper.io/service-account or sakeeper.io/server?; `+`"sakeeper.io/tokenkey": there is no such annotation; did you mean sakeeper.io/token-key?`),
		},
		"one that does not exist, and one that is wrong": {
			in:   managed(with("lifetme", "1h"), with("format", "jks")),
			want: refused(api.ReasonInvalidTokenSetting, `sakeeper.io/format: "jks" is not one of token, kubeconfig, argocd-cluster, custom; "sakeeper.io/lifetme": there is no such annotation; did you mean sakeeper.io/lifetime?`),
		},
		"bad settings, and a good token": {
			in: filled(with("lifetime", "1m")), with: func(s *state) { s.account = nil },
			want: refused(api.ReasonInvalidTokenSetting, `sakeeper.io/lifetime: "1m" is not a duration from 10m to 1193046h, such as 24h`),
		},

		"no account yet": {in: managed(), with: func(s *state) { s.account, s.now = nil, testkit.Instant().Add(time.Second) }, want: waiting("its service account may be created soon")},
		"no account, and a clock that is behind": {
			in: managed(), with: func(s *state) { s.account, s.now = nil, testkit.Instant().Add(-time.Second) },
			want: refused(api.ReasonNoServiceAccount, noAccount),
		},
		"no account":          {in: managed(), with: func(s *state) { s.account, s.now = nil, testkit.Instant().Add(missingAccountDelay) }, want: refused(api.ReasonNoServiceAccount, noAccount)},
		"no account any more": {in: filled(), with: func(s *state) { s.account = nil }, want: decision{action: remove, reason: "its service account is gone", rateLimited: true}},
		"no account of another name": {
			in: filled(with("service-account", "rob")), with: func(s *state) { s.account = nil },
			want: refused(api.ReasonNoServiceAccount, "sakeeper.io/service-account: there is no ServiceAccount rob in this namespace; create it, or name another. The token in this Secret still is that of ServiceAccount robot, until it expires at 2026-01-03T03:04:05Z"),
		},
		"an account that is being deleted": {in: filled(), with: func(s *state) { testkit.Deleting()(s.account) }, want: skipped("its service account is being deleted")},
		"another account of that name":     {in: filled(), with: func(s *state) { s.account = robot(testkit.WithUID(testkit.OtherUID)) }, want: changed},

		"no token":                           {in: managed(), want: renewed("it has no token")},
		"a valid token":                      {in: filled(), want: notDue},
		"valid in another format":            {in: filledFrom(managed(with("format", "kubeconfig"))), want: notDue},
		"valid for Argo CD":                  {in: filledFrom(managed(with("format", "argocd-cluster"), with("server", "https://other"))), want: notDue},
		"valid with all settings":            {in: filledFrom(managed(with("format", "custom"), with("token-key", "k"), with("audiences", "a,b"), with("lifetime", "48h"))), want: notDue},
		"just before it is due":              {in: filled(), with: func(s *state) { s.now = dueAt.Add(-time.Nanosecond) }, want: notDue},
		"due":                                {in: filled(), with: func(s *state) { s.now = dueAt }, want: due("it is due")},
		"expired":                            {in: filled(), with: func(s *state) { s.now = dueAt.Add(1000 * time.Hour) }, want: due("it is due")},
		"due by a clock that is wrong":       {in: filled(), with: func(s *state) { s.now, s.age = dueAt.Add(1000*time.Hour), new(11*time.Hour) }, want: notDue},
		"not valid yet":                      {in: filled(), with: func(s *state) { s.now = testkit.Instant().Add(-48 * time.Hour) }, want: due("it is not valid yet")},
		"not valid yet, requested just now":  {in: filled(), with: func(s *state) { s.now, s.age = testkit.Instant().Add(-48*time.Hour), new(59*time.Second) }, want: notDue},
		"not valid yet, a minute later":      {in: filled(), with: func(s *state) { s.now, s.age = testkit.Instant().Add(-48*time.Hour), new(time.Minute) }, want: due("it is not valid yet")},
		"requested by this process long ago": {in: filled(), with: func(s *state) { s.now, s.age = testkit.Instant(), new(20*time.Hour) }, want: due("it is due")},

		"another lifetime":                      {in: filled(with("lifetime", "23h")), want: changed},
		"the default, explicit":                 {in: filled(with("lifetime", "24h"), with("format", "token")), want: notDue},
		"other audiences":                       {in: filled(with("audiences", "a")), want: changed},
		"another format":                        {in: filled(with("format", "kubeconfig")), want: changed},
		"another key":                           {in: filledFrom(managed(with("format", "custom"), with("token-key", "k")), with("token-key", "l")), want: changed},
		"another account":                       {in: filled(with("service-account", "rob")), want: changed},
		"another server":                        {in: filledFrom(managed(with("format", "kubeconfig")), with("server", "https://other")), want: changed},
		"another public server":                 {in: filledFrom(managed(with("format", "kubeconfig"))), with: func(s *state) { s.publicServer = "https://other" }, want: changed},
		"a server that the format does not use": {in: filled(with("server", "https://other")), with: func(s *state) { s.publicServer = "https://other" }, want: notDue},
		"another CA":                            {in: filled(), with: func(s *state) { s.caSum = testkit.OtherBundle().Sum() }, want: changed},
		"a copy of the secret":                  {in: filled(testkit.WithUID(testkit.OtherUID)), want: changed},
		"a key that was removed":                {in: filled(withoutData("namespace")), want: changed},
		"a key that was changed":                {in: filled(testkit.WithData("token", "x")), want: changed},
		"a key that is the user's":              {in: filled(testkit.WithData("mine", "no")), want: notDue},
		"other data under the keys of the token": {
			in:   managed(testkit.WithData("token", "mine"), testkit.WithData("ca.crt", "mine"), testkit.WithData("other", "mine")),
			want: refused(api.ReasonUnusableTokenSecret, "This Secret has other data under ca.crt, token, where the token would be written; remove it, or ask for another format"),
		},
		"other data under a key of another format": {
			in:   filled(with("format", "kubeconfig"), with("server", "https://api"), testkit.WithData("kubeconfig", "mine")),
			want: refused(api.ReasonUnusableTokenSecret, "This Secret has other data under kubeconfig, where the token would be written; remove it, or ask for another format"),
		},
		"an empty value under the key of the token": {in: managed(testkit.WithData("token", "")), want: renewed("it has no token")},
		"another expiry":              {in: filled(with("expires-at", "2036-01-01T00:00:00Z")), want: changed},
		"no expiry":                   {in: filled(without(api.ExpiresAtAnnotation)), want: changed},
		"no credential id":            {in: filled(without(api.CredentialIDAnnotation)), want: changed},
		"no filled-for annotation":    {in: filled(without(api.FilledForAnnotation)), want: changed},
		"no list of keys":             {in: filled(without(api.FilledKeysAnnotation)), want: changed},
		"a list of more keys":         {in: filled(with("filled-keys", "ca.crt,mine,namespace,token")), want: changed},
		"no hash":                     {in: filled(without(api.FilledHashAnnotation)), want: renewed("it has no token")},
		"rotate":                      {in: filled(with("rotate", "now")), want: renewed("a rotation was requested")},
		"rotate once more":            {in: filled(with("rotate", "again"), with("rotated", "now")), want: renewed("a rotation was requested")},
		"rotated":                     {in: filled(with("rotate", "now"), with("rotated", "now")), want: notDue},
		"rotated, and rotate removed": {in: filled(with("rotated", "now")), want: notDue},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			s := state{namespace: served(), account: robot(), publicServer: "https://api.example.com", caSum: testkit.Bundle().Sum(), now: testkit.Instant().Add(time.Hour)}
			if tc.in != nil {
				s.secret = cache.NewManagedSecret(tc.in)
			}
			if tc.with != nil {
				tc.with(&s)
			}
			got := decide(s)
			// The next decision comes before the token is due.
			if got.wait > 0 != (tc.want.wait > 0) || got.wait > 5*time.Hour {
				t.Errorf("wait is %v", got.wait)
			}
			tc.want.spec, tc.want.wait = got.spec, got.wait
			if diff := cmp.Diff(tc.want, got, cmp.AllowUnexported(decision{}, problem{}, tokenSpec{})); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}
