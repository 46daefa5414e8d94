package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/sakeeper/sakeeper/pkg/keys"
	keyrotation "github.com/sakeeper/sakeeper/pkg/rotation"
	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
	"github.com/sakeeper/sakeeper/pkg/token"
)

// keyWaits are the waits of a rotation, short for a test.
func keyWaits() []string {
	return []string{"--publish-for=4s", "--refresh-hint=1s", "--discovery-max-age=1s", "--max-token-expiration=1h"}
}

// TestLongKeyRotation: a whole rotation (publish, promote, retire, remove) with an API
// server that has its tokens signed by sakeeper signer, and a hundred clients that use and
// renew bound tokens all the time. None is refused, whether the signer runs on or is
// killed in every phase.
func TestLongKeyRotation(t *testing.T) {
	if testing.Short() {
		t.Skip("long: run by make test-long")
	}
	for name, kill := range map[string]bool{"with a signer that runs": false, "with a signer that is killed in every phase": true} {
		t.Run(name, func(t *testing.T) { rotateWithoutRefusal(t, kill) })
	}
}

func rotateWithoutRefusal(t *testing.T, kill bool) {
	p := newSignedPlane(t)
	namespace := newNamespace(t, p.client)
	mustCreateAccount(t, p.client, namespace, "robot")
	const legacy = 10
	for i := range legacy {
		_, err := p.client.CoreV1().Secrets(namespace).Create(t.Context(), tokenSecret(robotSecret(i), "robot"), metav1.CreateOptions{})
		must(t, err)
	}
	old := p.signing(t)
	expectMetric(t, p.controllers, secretsOfKey(old[0], legacy))
	expectJWKS(t, p, old)

	clients := startBound(t, p.plane, namespace, 100, kill)
	oldToken := clients.sample(t, old)
	phase := func(name string) {
		t.Helper()
		if kill {
			p.restartSigner(t)
		}
		clients.expectProgress(t, name)
	}

	p.keys(t, "rotate", "key <id>: published")
	phase("published")
	expectJWKS(t, p, append(slices.Clone(old), p.published(t)...))
	p.keysWith(t, []string{"rotate", "--publish-for=1h"}, "nothing to do before")
	eventually(t, "the key was published long enough", func(context.Context) error { return p.tryKeys("rotate", "signs now") })
	phase("promoted and retired")
	current := p.signing(t)
	if current[0].ID() == old[0].ID() {
		t.Fatal("the old key signs")
	}
	clients.expectAll(t, current)
	expectMetric(t, p.controllers, secretsOfKey(current[0], legacy))
	if kill {
		p.restartSigner(t)
	}
	p.keysWith(t, []string{"prune", "--kubeconfig", p.admin}, "stays until")
	expectAccepted(t, p.plane, oldToken)

	p.pruneLater(t, 2*time.Hour)
	phase("removed")
	expectJWKS(t, p, current)
	eventuallyIn(t, time.Minute, "a token of the removed key is refused", func(ctx context.Context) error {
		if isAccepted(ctx, p.plane, oldToken) {
			return errors.New("it is accepted")
		}
		return nil
	})
	clients.expectProgress(t, "at last")
	clients.stop()
	uses, renewals, refused, failed := clients.uses.Load(), clients.renewals.Load(), clients.refused.Load(), clients.failed.Load()
	t.Logf("%d requests with %d tokens: %d refused; %d TokenRequests failed", uses, renewals, refused, failed)
	if refused > 0 {
		t.Errorf("%d of %d requests were refused", refused, uses)
	}
	if failed > 0 && !kill {
		t.Errorf("%d TokenRequests failed with a signer that ran", failed)
	}
}

// signedPlane is a plane whose tokens are all signed by sakeeper signer.
type signedPlane struct {
	plane

	dir, admin  string
	signerArgs  []string
	signer      *controlplane.Sakeeper
	controllers *controlplane.Sakeeper
}

func newSignedPlane(t *testing.T) *signedPlane {
	t.Helper()
	dir, err := os.MkdirTemp("", "keys-") // the paths of sockets must be short
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	p := &signedPlane{dir: filepath.Join(dir, "keys")}
	socket, legacy := filepath.Join(dir, "s"), filepath.Join(dir, "l")
	must(t, p.tryKeys("rotate", "made the first key"))
	p.signerArgs = []string{"signer", "--key-dir", p.dir, "--socket", socket, "--legacy-socket", legacy, "--refresh-hint=1s", "--max-token-expiration=1h", "-v=10"}
	p.signer = startReadySakeeper(t, p.signerArgs)
	p.plane = newPlaneWith(t, controlplane.Options{SigningEndpoint: socket})
	p.admin, err = p.Kubeconfig("for-keys.kubeconfig", p.Admin)
	must(t, err)
	args := slices.DeleteFunc(p.sakeeperArgs(t, "--resign-tokens=all", "--service-account-signing-endpoint", legacy), func(arg string) bool {
		return arg == "--service-account-private-key-file" || arg == p.SigningKeyFile
	})
	p.controllers = startReadySakeeper(t, args)
	return p
}

// restartSigner kills it, as a crash would.
func (p *signedPlane) restartSigner(t *testing.T) {
	t.Helper()
	must(t, p.signer.Signal(syscall.SIGKILL))
	_ = p.signer.Wait()
	p.signer = startReadySakeeper(t, p.signerArgs)
}

// keys runs a command of sakeeper keys, which has to say this.
func (p *signedPlane) keys(t *testing.T, command, want string) {
	t.Helper()
	must(t, p.tryKeys(command, want))
}

func (p *signedPlane) tryKeys(command, want string) error {
	return runKeys(append([]string{command, "--key-dir", p.dir}, keyWaits()...), want)
}

func (p *signedPlane) keysWith(t *testing.T, args []string, want string) {
	t.Helper()
	must(t, runKeys(append(args, "--key-dir", p.dir, "--max-token-expiration=1h"), want))
}

func runKeys(args []string, want string) error {
	out, err := exec.Command(shared.binary, append([]string{"keys"}, args...)...).CombinedOutput()
	if err == nil {
		err = checkLogs(string(out))
	}
	for part := range strings.SplitSeq(want, "<id>") {
		if err == nil && !strings.Contains(string(out), part) {
			err = fmt.Errorf("it does not say %q", part)
		}
	}
	if err != nil {
		return fmt.Errorf("sakeeper keys %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

func (p *signedPlane) ring(t *testing.T) *keys.Ring {
	t.Helper()
	ring, err := keys.Directory(p.dir).Ring()
	must(t, err)
	return ring
}

// signing is the key that signs, as a list of one.
func (p *signedPlane) signing(t *testing.T) []keys.PublicKey {
	t.Helper()
	m, ok := p.ring(t).Signing()
	if !ok {
		t.Fatal("no key signs")
	}
	return []keys.PublicKey{m.Public()}
}

func (p *signedPlane) published(t *testing.T) []keys.PublicKey {
	t.Helper()
	var found []keys.PublicKey
	for _, m := range p.ring(t).In(keys.StatePublished) {
		found = append(found, m.Public())
	}
	return found
}

// pruneLater is sakeeper keys prune after so long: the lifetime of tokens is the one wait
// that a test cannot have.
func (p *signedPlane) pruneLater(t *testing.T, later time.Duration) {
	t.Helper()
	store := keyrotation.OpenDirectory(p.dir)
	must(t, store.Begin(t.Context()))
	defer func() { must(t, store.Close()) }()
	ring, err := store.Load(t.Context())
	must(t, err)
	carriers, err := keyrotation.AskCarriers(t.Context(), p.client.CoreV1(), ring)
	must(t, err)
	removed := 0
	for _, step := range keyrotation.Prunable(ring, time.Now().Add(later), carriers, keyrotation.Settings{}) {
		if step.Action != keyrotation.ActionRemove {
			t.Fatalf("key %s: %s, because %s", step.Key.ID(), step.Action, step.Reason)
		}
		_, err := keyrotation.Do(t.Context(), store, step, "", keyrotation.Settings{})
		must(t, err)
		removed++
	}
	if removed != 1 {
		t.Fatalf("%d keys were removed", removed)
	}
}

// expectJWKS waits until the API server's discovery shows these keys.
func expectJWKS(t *testing.T, p *signedPlane, want []keys.PublicKey) {
	t.Helper()
	var ids []string
	for _, key := range want {
		ids = append(ids, key.ID())
	}
	slices.Sort(ids)
	eventually(t, "discovery shows the keys", func(ctx context.Context) error {
		body, err := p.client.Discovery().RESTClient().Get().AbsPath("/openid/v1/jwks").DoRaw(ctx)
		if err != nil {
			return err
		}
		var shown struct {
			Keys []struct {
				ID string `json:"kid"`
			} `json:"keys"`
		}
		if err := json.Unmarshal(body, &shown); err != nil {
			return err
		}
		var got []string
		for _, key := range shown.Keys {
			got = append(got, key.ID)
		}
		slices.Sort(got)
		if !slices.Equal(got, ids) {
			return fmt.Errorf("it shows %v, want %v", got, ids)
		}
		return nil
	})
}

// isAccepted asks on a connection of its own.
func isAccepted(ctx context.Context, p plane, compact string) bool {
	client, err := clientWith(p, compact)
	return err == nil && ask(ctx, client) == nil
}

func expectAccepted(t *testing.T, p plane, compact string) {
	t.Helper()
	if !isAccepted(t.Context(), p, compact) {
		t.Error("a token of a key that verifies is refused")
	}
}

func clientWith(p plane, compact string) (kubernetes.Interface, error) {
	config := rest.AnonymousClientConfig(p.Admin)
	config.BearerToken, config.Dial = compact, new(net.Dialer).DialContext
	return kubernetes.NewForConfig(config)
}

// bound are clients that use bound tokens, each one of its own for renewAfter. It stands
// for kubelet, which renews at 80 % of a lifetime that here is too long for a test.
type bound struct {
	plane     plane
	namespace string
	outages   bool

	mu     sync.Mutex
	tokens map[int]string

	uses, renewals, refused, failed atomic.Int64

	cancel context.CancelFunc
	group  *errgroup.Group
}

const renewAfter = 2 * time.Second

// startBound starts n clients. With outages a TokenRequest may fail; they go on with the
// token that they have.
func startBound(t *testing.T, p plane, namespace string, n int, outages bool) *bound {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	group, ctx := errgroup.WithContext(ctx)
	b := &bound{plane: p, namespace: namespace, outages: outages, tokens: map[int]string{}, cancel: cancel, group: group}
	for i := range n {
		group.Go(func() error { return b.live(ctx, i) })
	}
	t.Cleanup(b.stop)
	eventuallyIn(t, 2*patience, "every client has a token", func(context.Context) error {
		b.mu.Lock()
		defer b.mu.Unlock()
		if len(b.tokens) < n {
			return fmt.Errorf("%d of %d", len(b.tokens), n)
		}
		return nil
	})
	return b
}

func (b *bound) stop() {
	b.cancel()
	_ = b.group.Wait() // what goes wrong is counted
}

func (b *bound) live(ctx context.Context, i int) error {
	for ctx.Err() == nil {
		client, compact, err := b.renew(ctx)
		switch {
		case ctx.Err() != nil:
			return nil //nolint:nilerr // it was stopped
		case err != nil:
			b.failed.Add(1)
		default:
			b.renewals.Add(1)
			b.mu.Lock()
			b.tokens[i] = compact
			b.mu.Unlock()
		}
		for until := time.Now().Add(renewAfter); client != nil && time.Now().Before(until) && ctx.Err() == nil; sleep(ctx, 200*time.Millisecond) {
			switch err := ask(ctx, client); {
			case apierrors.IsUnauthorized(err):
				b.refused.Add(1)
			case err == nil:
				b.uses.Add(1)
			}
		}
		if client == nil {
			sleep(ctx, 100*time.Millisecond)
		}
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

func (b *bound) renew(ctx context.Context) (kubernetes.Interface, string, error) {
	seconds := int64(600)
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &seconds}}
	granted, err := b.plane.client.CoreV1().ServiceAccounts(b.namespace).CreateToken(ctx, "robot", request, metav1.CreateOptions{})
	if err != nil {
		return nil, "", err
	}
	client, err := clientWith(b.plane, granted.Status.Token)
	return client, granted.Status.Token, err
}

// sample is the token of a client, which has to be of this key.
func (b *bound) sample(t *testing.T, key []keys.PublicKey) string {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, compact := range b.tokens {
		if token.UnverifiedKeyID(compact) == key[0].ID() {
			return compact
		}
	}
	t.Fatal("no token is of the key that signs")
	return ""
}

// expectAll waits until every client has a token of this key.
func (b *bound) expectAll(t *testing.T, key []keys.PublicKey) {
	t.Helper()
	eventuallyIn(t, 2*patience, "every client has a token of the new key", func(context.Context) error {
		b.mu.Lock()
		defer b.mu.Unlock()
		for i, compact := range b.tokens {
			if id := token.UnverifiedKeyID(compact); id != key[0].ID() {
				return fmt.Errorf("client %d has one of key %s", i, id)
			}
		}
		return nil
	})
}

// expectProgress waits until tokens were renewed and used as often as in two rounds of all.
func (b *bound) expectProgress(t *testing.T, phase string) {
	t.Helper()
	b.mu.Lock()
	n := int64(len(b.tokens))
	b.mu.Unlock()
	renewals, uses := b.renewals.Load(), b.uses.Load()
	eventuallyIn(t, 2*patience, phase+": the clients go on", func(context.Context) error {
		if more := b.renewals.Load() - renewals; more < 2*n {
			return fmt.Errorf("%d renewals since", more)
		}
		if more := b.uses.Load() - uses; more < 4*n {
			return fmt.Errorf("%d requests since", more)
		}
		return nil
	})
}

// TestLongMoveToASigner: a cluster with kubeadm's key gives it to a signer. Tokens of both
// kinds from before stay good, and nothing is written anew.
func TestLongMoveToASigner(t *testing.T) {
	if testing.Short() {
		t.Skip("long: run by make test-long")
	}
	p := newPlane(t)
	before := startReadySakeeper(t, p.sakeeperArgs(t))
	namespace := newNamespace(t, p.client)
	mustCreateAccount(t, p.client, namespace, "robot")
	_, err := p.client.CoreV1().Secrets(namespace).Create(t.Context(), tokenSecret("old", "robot"), metav1.CreateOptions{})
	must(t, err)
	old := mustFillToken(t, p, namespace, "old")
	request := func() string {
		t.Helper()
		granted, err := p.client.CoreV1().ServiceAccounts(namespace).CreateToken(t.Context(), "robot", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
		must(t, err)
		return granted.Status.Token
	}
	bound := request()
	must(t, before.Stop())

	dir, err := os.MkdirTemp("", "move-")
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	keyDir, socket := filepath.Join(dir, "keys"), filepath.Join(dir, "s")
	must(t, runKeys([]string{"import", "--key-dir", keyDir, "--file", p.SigningKeyFile}, "imported as signing"))
	startReadySakeeper(t, []string{"signer", "--key-dir", keyDir, "--socket", socket})
	must(t, p.UseSigner(t.Context(), socket))
	mark := mustMark(t, p.ControlPlane)
	startReadySakeeper(t, slices.DeleteFunc(p.sakeeperArgs(t, "--key-dir", keyDir), func(arg string) bool {
		return arg == "--service-account-private-key-file" || arg == p.SigningKeyFile
	}))
	if writes := requests(t, p.ControlPlane, mark, namespace); len(writes) > 0 {
		t.Errorf("written anew: %v", controlplane.Count(writes))
	}
	_, err = p.client.CoreV1().Secrets(namespace).Create(t.Context(), tokenSecret("new", "robot"), metav1.CreateOptions{})
	must(t, err)
	for what, compact := range map[string]string{
		"legacy, from before": old, "bound, from before": bound, "bound, by the signer": request(), "legacy, from the same directory": mustFillToken(t, p, namespace, "new"),
	} {
		if !isAccepted(t.Context(), p, compact) {
			t.Errorf("%s: refused", what)
		}
		if got, want := token.UnverifiedKeyID(compact), token.UnverifiedKeyID(old); got != want {
			t.Errorf("%s: of key %s, want %s", what, got, want)
		}
	}
}

func mustFillToken(t *testing.T, p plane, namespace, name string) string {
	t.Helper()
	var compact string
	eventually(t, "token of secret "+name, func(ctx context.Context) error {
		secret, err := p.client.CoreV1().Secrets(namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if compact = string(secret.Data[corev1.ServiceAccountTokenKey]); compact == "" {
			return errors.New("it has none")
		}
		return nil
	})
	return compact
}
