package e2e

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/keys"
	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
	"github.com/sakeeper/sakeeper/pkg/token"
)

// ailing is a token Secret whose token may be invalid.
type ailing struct {
	// token returns the token in the Secret; claims are the right ones.
	token     func(t *testing.T, claims token.LegacyClaims) string
	change    func(*corev1.Secret)
	namespace string // empty: usualNamespace
	// wantReviews is the number of reviews of the token.
	wantReviews int
	// wantResigned: it gets a new token, after wantReviews.
	wantResigned bool
}

func signed(key keys.PrivateKey, change ...func(*token.LegacyClaims)) func(*testing.T, token.LegacyClaims) string {
	return func(t *testing.T, claims token.LegacyClaims) string {
		t.Helper()
		for _, c := range change {
			c(&claims)
		}
		set := keys.NewSet(key)
		compact, err := token.NewSigner(func() *keys.Set { return set }).SignLegacy(t.Context(), claims)
		must(t, err)
		return compact
	}
}

func literally(text string) func(*testing.T, token.LegacyClaims) string {
	return func(*testing.T, token.LegacyClaims) string { return text }
}

const (
	usualNamespace = "usual"
	// settledNamespace has the annotation that keeps tokens as they are.
	settledNamespace = "settled"
)

// ailments are the Secrets by name. The API server accepts and publishes the keys current and
// theirs, the controller has current, and neither has lost.
func ailments(client kubernetes.Interface, current, theirs, lost keys.PrivateKey) map[string]ailing {
	label := func(s *corev1.Secret) { s.Labels = map[string]string{token.InvalidSinceLabel: "2026-01-01"} }
	bound := func(t *testing.T, claims token.LegacyClaims) string {
		t.Helper()
		granted, err := client.CoreV1().ServiceAccounts(claims.Namespace).CreateToken(t.Context(), claims.ServiceAccountName, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
		must(t, err)
		return granted.Status.Token
	}
	otherSecret := func(c *token.LegacyClaims) { c.SecretName = "other" }
	return map[string]ailing{
		"no-token":        {token: literally("")},
		"good":            {token: signed(current)},
		"lost-key":        {token: signed(lost), wantReviews: 3, wantResigned: true},
		"their-key":       {token: signed(theirs)},
		"bound":           {token: bound, wantReviews: 1},
		"withdrawn":       {token: signed(lost), change: label},
		"to-stay":         {token: signed(lost), change: func(s *corev1.Secret) { s.Annotations[api.ResignAnnotation] = "never" }},
		"to-stay-as-all":  {token: signed(lost), namespace: settledNamespace},
		"waits-to-go":     {token: signed(lost), change: func(s *corev1.Secret) { s.Finalizers = []string{"example.com/wait"} }},
		"of-other-secret": {token: signed(lost, otherSecret), wantReviews: 3, wantResigned: true},
		"of-other-name":   {token: signed(lost, func(c *token.LegacyClaims) { c.ServiceAccountName = "other" }), wantReviews: 3, wantResigned: true},
		"of-other-theirs": {token: signed(theirs, otherSecret), wantResigned: true},
		"no-jwt":          {token: literally("not a token"), wantReviews: 3, wantResigned: true},
		"three-parts":     {token: literally("eyJhbGciOiJSUzI1NiJ9.e30.c2ln"), wantReviews: 3, wantResigned: true},
		"long":            {token: literally(strings.Repeat("a.b.", 25_000)), wantReviews: 3, wantResigned: true},
	}
}

// repair is a control plane with ailing Secrets of the ServiceAccount builder of their
// namespace.
type repair struct {
	controlPlane

	ailing map[string]ailing
	before map[string]string // tokens by the name of the Secret
}

func newRepair(t *testing.T, p controlPlane, ailing map[string]ailing) repair {
	t.Helper()
	r := repair{controlPlane: p, ailing: ailing, before: map[string]string{}}
	accounts := map[string]*corev1.ServiceAccount{}
	for _, name := range []string{usualNamespace, settledNamespace} {
		namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
		if name == settledNamespace {
			namespace.Annotations = map[string]string{api.ResignAnnotation: "never"}
		}
		_, err := p.client.CoreV1().Namespaces().Create(t.Context(), namespace, metav1.CreateOptions{})
		must(t, err)
		accounts[name] = mustCreateAccount(t, p.client, name, "builder")
	}
	for name, a := range ailing {
		namespace := a.in()
		secret := tokenSecret(name, "builder")
		r.before[name] = a.token(t, token.LegacyClaims{
			Namespace: namespace, SecretName: name, ServiceAccountName: "builder", ServiceAccountUID: string(accounts[namespace].UID),
		})
		if r.before[name] != "" {
			secret.Data = map[string][]byte{corev1.ServiceAccountTokenKey: []byte(r.before[name])}
		}
		if a.change != nil {
			a.change(secret)
		}
		mustCreateSecret(t, p.client, namespace, secret)
		if len(secret.Finalizers) > 0 {
			must(t, p.client.CoreV1().Secrets(namespace).Delete(t.Context(), name, metav1.DeleteOptions{}))
		}
	}
	return r
}

func (a ailing) in() string {
	if a.namespace != "" {
		return a.namespace
	}
	return usualNamespace
}

// reviews is how many reviews there are after so many for each token that needs them.
func (r repair) reviews(number int) int {
	total := 0
	for _, a := range r.ailing {
		total += min(number, a.wantReviews)
	}
	return total
}

// expectNotes waits until exactly those Secrets have an annotation with the result of reviews.
func (r repair) expectNotes(t *testing.T, want map[string]string) {
	t.Helper()
	eventually(t, "notes of reviews", func(ctx context.Context) error {
		got := map[string]string{}
		for name, a := range r.ailing {
			secret, err := r.client.CoreV1().Secrets(a.in()).Get(ctx, name, metav1.GetOptions{})
			if err != nil {
				return err
			}
			if _, said, ok := strings.Cut(secret.Annotations[api.ReviewedAnnotation], " "); ok {
				got[name] = said
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			return fmt.Errorf("(-want +got):\n%s", diff)
		}
		return nil
	})
}

// expectTokens waits until every Secret has its CA and namespace, and the expected ones have
// another token than before.
func (r repair) expectTokens(t *testing.T, resigned bool) {
	t.Helper()
	eventually(t, "tokens", func(ctx context.Context) error { return r.tokens(ctx, resigned) })
}

// tokens returns an error for a Secret that is not as expected.
func (r repair) tokens(ctx context.Context, resigned bool) error {
	for name, a := range r.ailing {
		secret, err := r.client.CoreV1().Secrets(a.in()).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if string(secret.Data[corev1.ServiceAccountRootCAKey]) != string(r.Admin.CAData) || string(secret.Data[corev1.ServiceAccountNamespaceKey]) != a.in() {
			return fmt.Errorf("secret %s: ca.crt or namespace is wrong", name)
		}
		changed := string(secret.Data[corev1.ServiceAccountTokenKey]) != r.before[name]
		if want := r.before[name] == "" || (a.wantResigned && (resigned || a.wantReviews == 0)); changed != want {
			return fmt.Errorf("secret %s: another token: %t, want %t", name, changed, want)
		}
	}
	return nil
}

// expectHandled waits until keys that were queued before are likely handled: it creates a
// Secret and waits until it is filled.
func (r repair) expectHandled(t *testing.T, barrier string) {
	t.Helper()
	account := expectAccount(t, r.client, usualNamespace, "builder")
	mustCreateSecret(t, r.client, usualNamespace, tokenSecret(barrier, "builder"))
	expectFilled(t, r.client, usualNamespace, barrier, account, r.Admin.CAData)
}

func TestLongDeadTokensAreSignedAnewAndNoOthers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	theirs := mustWriteECKey(t, filepath.Join(dir, "theirs.key"))
	lost := mustWriteECKey(t, filepath.Join(dir, "lost.key"))
	p := newControlPlaneWith(t, controlplane.Options{MoreKeyFiles: []string{filepath.Join(dir, "theirs.key")}})
	current := mustReadKey(t, p.SigningKeyFile)
	r := newRepair(t, p, ailments(p.client, current, theirs, lost))
	clock := clocktesting.NewFakePassiveClock(time.Date(2026, time.January, 2, 3, 4, 5, 0, time.UTC))
	const settle = 15 * time.Second // before the first review
	var c *inProcess
	barriers := 0
	handled := func() {
		barriers++
		r.expectHandled(t, fmt.Sprintf("barrier-%d", barriers))
	}
	// start runs a process at a time that it takes for that from which tokens look dead.
	start := func() (at func(after time.Duration)) {
		c = startInProcess(t, p, inProcessOptions{keys: keys.NewSet(current), clock: clock})
		eventually(t, "ready", c.ready)
		r.expectTokens(t, false)
		for range 2 { // what is reviewed is verified with the published keys first, and handled once more
			c.enqueueAll()
			handled()
		}
		began := clock.Now()
		return func(after time.Duration) {
			clock.SetTime(began.Add(settle + after))
			c.enqueueAll()
		}
	}

	at := start()
	at(-time.Second)
	handled()
	c.expectReviews(t, 0, "it is too early")
	at(0)
	c.awaitReviews(t, r.reviews(1))
	at(5*time.Minute - time.Second)
	handled()
	c.expectReviews(t, r.reviews(1), "it is too early for the second")
	at(5 * time.Minute)
	c.awaitReviews(t, r.reviews(2))
	r.expectNotes(t, map[string]string{"bound": "accepted"})
	c.stop() // another process begins anew

	at = start()
	at(0)
	c.awaitReviews(t, r.reviews(1)-1) // without that of the token that was accepted
	at(5 * time.Minute)
	c.awaitReviews(t, r.reviews(2)-1)
	at(10*time.Minute - time.Second)
	handled()
	r.expectTokens(t, false)
	at(10 * time.Minute)
	c.awaitReviews(t, r.reviews(3)-1)
	eventually(t, "they are signed one after the other", func(ctx context.Context) error {
		clock.SetTime(clock.Now().Add(time.Second))
		return r.tokens(ctx, true)
	})
	at(2 * time.Hour)
	handled()
	r.expectTokens(t, true)
	c.expectReviews(t, r.reviews(3)-1, "all that there is to ask was asked")
	r.expectNotes(t, map[string]string{"bound": "accepted"})
	r.expectUsersAndEvents(t)
	expectCounts(t, c, map[string]float64{
		"none": 0, "unknown": 4, "foreign": 1, theirs.PublicKey().ID(): 1, current.PublicKey().ID(): float64(9 + barriers),
	})
}

// expectUsersAndEvents checks that the new tokens work, and that there are events about them.
func (r repair) expectUsersAndEvents(t *testing.T) {
	t.Helper()
	for name, a := range r.ailing {
		if a.wantResigned {
			secret, err := r.client.CoreV1().Secrets(a.in()).Get(t.Context(), name, metav1.GetOptions{})
			must(t, err)
			expectUser(t, r.ControlPlane, secret, "system:serviceaccount:"+a.in()+":builder")
		}
	}
	eventually(t, "events", func(ctx context.Context) error {
		events, err := r.client.CoreV1().Events("").List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		got := map[string]string{}
		for _, event := range events.Items {
			if !strings.HasSuffix(got[event.InvolvedObject.Name], event.Reason) { // another process says it again
				got[event.InvolvedObject.Name] += event.Reason
			}
		}
		want := map[string]string{}
		for name, a := range r.ailing {
			if a.wantResigned {
				want[name] = api.ReasonResignedToken
			}
		}
		for _, name := range []string{"withdrawn", "to-stay", "to-stay-as-all", "bound"} {
			want[name] = api.ReasonKeptToken
		}
		if diff := cmp.Diff(want, got); diff != "" {
			return fmt.Errorf("(-want +got):\n%s", diff)
		}
		return nil
	})
}
