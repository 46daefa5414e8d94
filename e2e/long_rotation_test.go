package e2e

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sync/errgroup"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/flowcontrol"

	"github.com/sakeeper/sakeeper/pkg/keys"
	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
	"github.com/sakeeper/sakeeper/pkg/token"
)

// accepted is how long a client that reads its Secret again may be refused. The test fails
// after ten times that.
const (
	accepted      = time.Second
	acceptedGuard = 10 * accepted
)

func TestLongRotationLosesNoClient(t *testing.T) {
	const n = 200
	r := newRotation(t)
	namespace := newNamespace(t, r.client)
	mustCreateAccount(t, r.client, namespace, "robot")
	forEach(t, n, func(ctx context.Context, i int) error {
		_, err := r.client.CoreV1().Secrets(namespace).Create(ctx, tokenSecret(robotSecret(i), "robot"), metav1.CreateOptions{})
		return err
	})
	expectMetric(t, r.sakeeper, secretsOfKey(r.oldKey, n))
	before := tokenSecrets(t, r.controlPlane)

	users, stop := r.use(t, namespace, n)
	eventuallyIn(t, patience, "every client has been accepted", func(context.Context) error { return users.all(user.hasWorked) })
	mark := mustMark(t, r.ControlPlane)
	mustReplace(t, r.SigningKeyFile, r.newKeyPEM) // the API server read its keys once
	expectMetric(t, r.sakeeper, secretsOfKey(r.newKey, n))
	expectMetric(t, r.sakeeper, secretsOfKey(r.oldKey, 0))
	eventuallyIn(t, 2*patience, "every client has been refused and accepted again", func(context.Context) error { return users.all(user.hasRecovered) })
	stop()

	after := tokenSecrets(t, r.controlPlane)
	expectTokensOf(t, r.newKey, after)
	users.expectAcceptedAgain(t, after)
	if diff := cmp.Diff(withoutToken(before), withoutToken(after), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("more than the token changed (-want +got):\n%s", tail(diff, 2000))
	}
	expectOneResignEach(t, requests(t, r.ControlPlane, mark, namespace), n)
}

// rotation is a control plane whose API server accepts two keys; sakeeper signs with the old
// one.
type rotation struct {
	controlPlane

	sakeeper       *controlplane.Sakeeper
	oldKey, newKey keys.PrivateKey
	newKeyPEM      []byte
}

func newRotation(t *testing.T) rotation {
	t.Helper()
	dir := t.TempDir()
	newKeyFile := filepath.Join(dir, "new.key")
	r := rotation{newKey: mustWriteECKey(t, newKeyFile)}
	planeDir := filepath.Join(dir, "plane")
	must(t, os.Mkdir(planeDir, 0o700))
	cp, err := controlplane.Start(controlplane.Options{Dir: planeDir, MoreKeyFiles: []string{newKeyFile}})
	must(t, err)
	t.Cleanup(func() { _ = cp.Stop() })
	must(t, cp.Install(t.Context()))
	r.controlPlane = controlPlane{cp, mustClient(t, cp.Admin)}

	r.newKeyPEM, err = os.ReadFile(newKeyFile)
	must(t, err)
	data, err := os.ReadFile(cp.SigningKeyFile)
	must(t, err)
	r.oldKey, err = keys.ParsePrivate(data)
	must(t, err)
	oldKeyFile := filepath.Join(dir, "old.key")
	must(t, os.WriteFile(oldKeyFile, data, 0o600))
	r.sakeeper = startReadySakeeper(t, r.sakeeperArgs(t,
		"--service-account-key-file", oldKeyFile, "--resign-tokens=all", "--resign-qps=50"))
	return r
}

func robotSecret(i int) string { return fmt.Sprintf("robot-%03d", i) }

func secretsOfKey(key fmt.Stringer, n int) string {
	return fmt.Sprintf("sakeeper_token_secrets{key_id=%q} %d", key.String(), n)
}

// user is a client that uses the token of one Secret repeatedly, and reads the Secret when the
// token is refused.
type user struct {
	namespace, secret string

	progress *progress
}

// progress counts the requests of a user.
type progress struct {
	token string
	// works and recovered count requests that were accepted, and refusals that ended.
	works, recovered atomic.Int64
	// refused is the longest time of refusals, and again counts refusals of a token that had
	// just been read.
	refused time.Duration
	again   int
}

func (u user) hasWorked() bool    { return u.progress.works.Load() > 0 }
func (u user) hasRecovered() bool { return u.progress.recovered.Load() > 0 }

type users []user

func (u users) all(are func(user) bool) error {
	n := 0
	for _, one := range u {
		if are(one) {
			n++
		}
	}
	if n < len(u) {
		return fmt.Errorf("%d of %d", n, len(u))
	}
	return nil
}

// use starts a user for each of n Secrets, which together make fifty requests a second until
// stop is called. The only failures may be refusals that end.
func (r rotation) use(t *testing.T, namespace string, n int) (all users, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	group, ctx := errgroup.WithContext(ctx)
	pace := flowcontrol.NewTokenBucketRateLimiter(50, 10)
	for i := range n {
		u := user{namespace: namespace, secret: robotSecret(i), progress: &progress{}}
		all = append(all, u)
		group.Go(func() error { return u.work(ctx, r.controlPlane, pace) })
	}
	stop = func() {
		cancel()
		if err := group.Wait(); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(stop)
	return all, stop
}

func (u user) work(ctx context.Context, p controlPlane, pace flowcontrol.RateLimiter) error {
	client, err := u.read(ctx, p)
	for err == nil {
		if pace.Wait(ctx) != nil {
			return nil //nolint:nilerr // time to stop
		}
		if err = ask(ctx, client); apierrors.IsUnauthorized(err) {
			client, err = u.recover(ctx, p)
		}
		if err == nil {
			u.progress.works.Add(1)
		}
	}
	if ctx.Err() != nil {
		return nil //nolint:nilerr // it was stopped half way
	}
	return fmt.Errorf("client of secret %s: %w", u.secret, err)
}

// recover reads the Secret repeatedly until its token is accepted.
func (u user) recover(ctx context.Context, p controlPlane) (client kubernetes.Interface, err error) {
	began := time.Now()
	err = wait.PollUntilContextTimeout(ctx, 50*time.Millisecond, patience, true, func(ctx context.Context) (bool, error) {
		if client, err = u.read(ctx, p); err != nil {
			return false, err
		}
		err := ask(ctx, client)
		if apierrors.IsUnauthorized(err) {
			u.progress.again++
			return false, nil
		}
		return err == nil, err
	})
	if err == nil {
		u.progress.refused = max(u.progress.refused, time.Since(began))
		u.progress.recovered.Add(1)
	}
	return client, err
}

// read returns a client with the current token of the Secret, and with connections of its own:
// the API server closes the one on which it refuses a token.
func (u user) read(ctx context.Context, p controlPlane) (kubernetes.Interface, error) {
	secret, err := p.client.CoreV1().Secrets(u.namespace).Get(ctx, u.secret, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	u.progress.token = string(secret.Data[corev1.ServiceAccountTokenKey])
	config := rest.AnonymousClientConfig(p.Admin)
	config.BearerToken, config.Dial = u.progress.token, new(net.Dialer).DialContext
	return kubernetes.NewForConfig(config)
}

func ask(ctx context.Context, client kubernetes.Interface) error {
	_, err := client.AuthenticationV1().SelfSubjectReviews().Create(ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	return err
}

// expectAcceptedAgain checks users that have stopped: each has the token of its Secret, and was
// not refused for long.
func (u users) expectAcceptedAgain(t *testing.T, secrets map[string]corev1.Secret) {
	t.Helper()
	var refused []time.Duration
	requests, again := int64(0), 0
	for _, one := range u {
		if one.progress.token != string(secrets[one.namespace+"/"+one.secret].Data[corev1.ServiceAccountTokenKey]) {
			t.Errorf("the client of secret %s has not got its new token", one.secret)
		}
		refused = append(refused, one.progress.refused)
		requests += one.progress.works.Load()
		again += one.progress.again
	}
	slices.Sort(refused)
	longest := refused[len(refused)-1]
	t.Logf("%d clients made %d requests; from the first refusal to the next success: p50 %v, p99 %v, max %v (promised: %v); %d times a token that had just been read was refused",
		len(u), requests, refused[len(refused)/2], refused[len(refused)*99/100], longest, accepted, again)
	if longest > acceptedGuard {
		t.Errorf("a client was refused for %v", longest)
	}
}

func expectTokensOf(t *testing.T, key keys.PrivateKey, secrets map[string]corev1.Secret) {
	t.Helper()
	set := keys.NewSet(key)
	verifier := token.NewVerifier(func() *keys.Set { return set })
	for name, secret := range secrets {
		compact := string(secret.Data[corev1.ServiceAccountTokenKey])
		if got, want := token.UnverifiedKeyID(compact), key.PublicKey().ID(); got != want {
			t.Errorf("the token of secret %s is of key %s, want %s", name, got, want)
		}
		if _, err := verifier.VerifyLegacy(compact); err != nil {
			t.Errorf("the token of secret %s: %v", name, err)
		}
	}
}

// withoutToken removes from secrets the token, the fields that every write changes, and the
// label that the API server writes when a token is used.
func withoutToken(secrets map[string]corev1.Secret) map[string]corev1.Secret {
	bare := map[string]corev1.Secret{}
	for name, secret := range secrets {
		secret := *secret.DeepCopy()
		secret.ResourceVersion, secret.ManagedFields = "", nil
		delete(secret.Labels, token.LastUsedLabel)
		delete(secret.Data, corev1.ServiceAccountTokenKey)
		bare[name] = secret
	}
	return bare
}

// A write that failed with a conflict does not count.
func expectOneResignEach(t *testing.T, requests []controlplane.Request, n int) {
	t.Helper()
	done := map[string]int{}
	for _, r := range requests {
		if r.Object.Resource == "secrets" && r.Verb == "patch" && r.Response.Code < 300 {
			done[r.Object.Name]++
		}
	}
	for name, writes := range done {
		if writes != 1 {
			t.Errorf("secret %s was written %d times", name, writes)
		}
	}
	t.Logf("requests for %d secrets: %v", n, controlplane.Count(requests))
	if len(done) != n {
		t.Errorf("%d secrets were written, want %d", len(done), n)
	}
}
