package e2e

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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
	// wantReviews is the number of reviews of the token with the first keys.
	wantReviews int
	// wantResigned: it gets a new token.
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

// ailments are the Secrets by name. The API server accepts the keys current and theirs, the
// controller has current, and neither has lost.
func ailments(current, theirs, lost keys.PrivateKey) map[string]ailing {
	label := func(s *corev1.Secret) { s.Labels = map[string]string{token.InvalidSinceLabel: "2026-01-01"} }
	return map[string]ailing{
		"no-token":        {token: literally("")},
		"good":            {token: signed(current)},
		"lost-key":        {token: signed(lost), wantReviews: 3, wantResigned: true},
		"their-key":       {token: signed(theirs), wantReviews: 1},
		"withdrawn":       {token: signed(lost), change: label},
		"to-stay":         {token: signed(lost), change: func(s *corev1.Secret) { s.Annotations[api.ResignAnnotation] = "never" }},
		"to-stay-as-all":  {token: signed(lost), namespace: settledNamespace},
		"waits-to-go":     {token: signed(lost), change: func(s *corev1.Secret) { s.Finalizers = []string{"example.com/wait"} }},
		"of-other-secret": {token: signed(lost, func(c *token.LegacyClaims) { c.SecretName = "other" }), wantReviews: 3, wantResigned: true},
		"of-other-name":   {token: signed(lost, func(c *token.LegacyClaims) { c.ServiceAccountName = "other" }), wantReviews: 3, wantResigned: true},
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

// expectExams waits until every token that must be reviewed has been read for its review of
// that number. More reads, or reads of other tokens, are an error. It ignores Secrets that had
// no token: one has the first token of the key, which is read if a lagging API server refuses
// it.
func (r repair) expectExams(t *testing.T, number int) {
	t.Helper()
	want := map[string]int{}
	for name, a := range r.ailing {
		if n := min(number, a.wantReviews); n > 0 {
			want[name] = n
		}
	}
	eventually(t, fmt.Sprintf("review %d", number), func(context.Context) error {
		got := map[string]int{}
		for _, request := range requests(t, r.ControlPlane, 0, "") {
			if request.Verb == "get" && request.Object.Resource == "secrets" && r.before[request.Object.Name] != "" {
				got[request.Object.Name]++
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			return fmt.Errorf("reads (-want +got):\n%s", diff)
		}
		return nil
	})
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
				got[name], _, _ = strings.Cut(said, " 2026-")
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
		if want := r.before[name] == "" || (a.wantResigned && resigned); changed != want {
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
	r := newRepair(t, p, ailments(current, theirs, lost))
	start := time.Date(2026, time.January, 2, 3, 4, 5, 0, time.UTC)
	clock := clocktesting.NewFakePassiveClock(start)
	c := startInProcess(t, p, inProcessOptions{keys: keys.NewSet(current), clock: clock})
	const settle = 15 * time.Second // before the first review
	at := func(after time.Duration) {
		clock.SetTime(start.Add(settle + after))
		c.enqueueAll()
	}

	eventually(t, "ready", c.ready)
	// Tokens look dead from now on: what is reviewed was repaired before, and handled once more.
	r.expectTokens(t, false)
	r.expectHandled(t, "barrier")
	at(-time.Second)
	r.expectHandled(t, "barrier-0")
	// One of the tokens until now is the first token of the key, and all others wait for it:
	// the clock must not advance while a lagging API server refuses it.
	r.expectTokens(t, false)
	r.expectExams(t, 0)
	at(0)
	r.expectExams(t, 1)
	c.awaitExams(t, 7)
	at(5*time.Minute - time.Second)
	r.expectHandled(t, "barrier-1")
	r.expectExams(t, 1)
	at(5 * time.Minute)
	r.expectExams(t, 2)
	c.awaitExams(t, 13)
	r.expectNotes(t, map[string]string{
		"lost-key": "refused 2", "of-other-secret": "refused 2", "of-other-name": "refused 2", "no-jwt": "refused 2", "three-parts": "refused 2", "long": "refused 2",
		"their-key": "accepted",
	})
	c.expectExams(t, 13, "two of each dead token, and one of that by another key")
	c.stop() // another process goes on with what is noted on the Secrets
	c = startInProcess(t, p, inProcessOptions{keys: keys.NewSet(current), clock: clock})
	eventually(t, "ready again", c.ready)
	at(10*time.Minute - time.Second)
	r.expectHandled(t, "barrier-2")
	r.expectExams(t, 2)
	r.expectTokens(t, false)

	at(10 * time.Minute)
	r.expectExams(t, 3)
	eventually(t, "they are signed one after the other", func(ctx context.Context) error {
		clock.SetTime(clock.Now().Add(time.Second))
		return r.tokens(ctx, true)
	})
	at(2 * time.Hour)
	r.expectHandled(t, "barrier-3")
	r.expectExams(t, 3)
	r.expectTokens(t, true)
	c.expectExams(t, 6, "the third of each dead token")
	r.expectNotes(t, map[string]string{"their-key": "accepted"})
	r.expectUsersAndEvents(t)
	expectCounts(t, c, map[string]float64{"none": 0, "unknown": 5, "foreign": 0, current.PublicKey().ID(): 13})

	// The controller gets the other verification key, and loses it again.
	c.use(keys.NewSet(current, theirs.PublicKey()))
	eventually(t, "count of the other key", func(context.Context) error {
		if got := c.metric(t, "sakeeper_token_secrets", "key_id="+theirs.PublicKey().ID()); got != 1 {
			return fmt.Errorf("%v, want 1", got)
		}
		return nil
	})
	r.expectHandled(t, "barrier-4")
	c.expectExams(t, 6, "none when a key verifies")
	c.use(keys.NewSet(current))
	r.expectHandled(t, "barrier-5")
	c.expectExams(t, 6, "what was said about the other key, with these keys, is on record")
	r.expectTokens(t, true)
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
		for _, name := range []string{"withdrawn", "to-stay", "to-stay-as-all", "their-key"} {
			want[name] = api.ReasonKeptToken
		}
		if diff := cmp.Diff(want, got); diff != "" {
			return fmt.Errorf("(-want +got):\n%s", diff)
		}
		return nil
	})
}
