package controllers

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/record"

	"github.com/sakeeper/sakeeper/pkg/keys"
	"github.com/sakeeper/sakeeper/pkg/signer"
	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/token"
)

func mustNew(t *testing.T, o Options) *Suite {
	t.Helper()
	suite, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return suite
}

func TestRunReturnsAllBadFilesTogetherBeforeItStartsAnything(t *testing.T) {
	dir := t.TempDir()
	o := complete()
	o.Keys = KeyFiles(keys.Files{PrivateKeyFile: filepath.Join(dir, "missing.key"), KeyFiles: []string{filepath.Join(dir, "missing.pub")}})
	o.RootCA = CAFile(filepath.Join(dir, "missing.crt"))
	err := mustNew(t, o).Run(t.Context())
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"missing.key", "missing.pub", "missing.crt"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not named in %v", want, err)
		}
	}
}

func TestOtherSourcesThatCannotBeUsed(t *testing.T) {
	cases := map[string]struct {
		in   func(*Options)
		want string
	}{
		"a signer that does not run":         {in: func(o *Options) { o.Keys = Signer(filepath.Join(t.TempDir(), "none.sock")) }, want: "none.sock"},
		"a directory that does not exist":    {in: func(o *Options) { o.Keys = KeyDirectory("/does/not/exist") }, want: "/does/not/exist"},
		"no set of keys":                     {in: func(o *Options) { o.Keys = KeySet(nil) }, want: "set of keys is nil"},
		"no certificate":                     {in: func(o *Options) { o.RootCA = CABytes([]byte("garbage")) }, want: "holds no usable certificate"},
		"a connection that has no CA either": {in: func(o *Options) { o.RootCA, o.Controllers = nil, []string{"token-request-controller"} }, want: "names none"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			o := complete()
			tc.in(&o)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if err := mustNew(t, o).Run(ctx); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q in it", err, tc.want)
			}
		})
	}
}

func TestASuiteRunsOnce(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	suite := mustNew(t, complete())
	if err := suite.Run(ctx); err != nil {
		t.Errorf("a context that has ended: %v", err)
	}
	if err := suite.Run(ctx); err == nil {
		t.Error("it runs twice")
	}
}

func TestReadyNamesWhatIsMissing(t *testing.T) {
	suite := mustNew(t, complete())
	if err := suite.Ready(); !errors.Is(err, errNotStarted) {
		t.Errorf("before Run: %v", err)
	}
	suite.parts, suite.work = &parts{controllers: map[string]runnable{
		"serviceaccount-controller": handled(true), "root-ca-certificate-publisher-controller": handled(false),
	}}, true
	if err := suite.Ready(); !errors.Is(err, errStarting) || !strings.Contains(err.Error(), "root-ca-certificate-publisher-controller") {
		t.Errorf("while one controller starts: %v", err)
	}
	suite.parts.controllers["root-ca-certificate-publisher-controller"] = handled(true)
	if err := suite.Ready(); err != nil {
		t.Errorf("all is handled: %v", err)
	}
}

// handled is a controller that does nothing, and has handled its first objects or not.
type handled bool

func (handled) Run(context.Context) error { return nil }
func (h handled) Ready() bool             { return bool(h) }

func TestControllersTogetherAreReadyWhenAllAre(t *testing.T) {
	if (together{handled(true), handled(false)}).Ready() || !(together{handled(true), handled(true)}).Ready() {
		t.Error("one controller stands for all")
	}
}

func TestASuiteWithoutAnElectionNeedsThatOfItsManager(t *testing.T) {
	o := complete()
	if !mustNew(t, o).NeedLeaderElection() {
		t.Error("it works in every replica")
	}
	o.Elect = func(ctx context.Context, lead func(context.Context) error) error { return lead(ctx) }
	if mustNew(t, o).NeedLeaderElection() {
		t.Error("it waits for two elections")
	}
}

func TestAFileThatTurnsBadIsCountedAndReported(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ca.crt")
	mustWrite(t, file, testkit.Bundle().PEM())
	recorder := record.NewFakeRecorder(10)
	recorder.IncludeObject = true
	registry := prometheus.NewRegistry()
	o := complete()
	o.RootCA, o.Recorder, o.Registerer = CAFile(file), recorder, registry
	suite := mustNew(t, o)
	if err := suite.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	mustWrite(t, file, []byte("garbage"))
	stop := testkit.Start(t.Context(), t, suite.Run) // follows files while it waits for the API server
	event := <-recorder.Events
	stop()

	if want := "Warning ReloadFailed The last good value stays in use: --root-ca-file: " + file; !strings.HasPrefix(event, want) {
		t.Errorf("event %q, want %q", event, want)
	}
	if err := testutil.GatherAndCompare(registry, strings.NewReader(`
# HELP sakeeper_reload_failures_total Changed files that could not be used, by source (keys, ca); the last good ones stay in use.
# TYPE sakeeper_reload_failures_total counter
sakeeper_reload_failures_total{source="ca"} 1
sakeeper_reload_failures_total{source="keys"} 0
`), "sakeeper_reload_failures_total"); err != nil {
		t.Error(err)
	}
	if n, err := testutil.GatherAndCount(registry, "sakeeper_key_info"); n != 1 || err != nil {
		t.Errorf("%d keys in the metrics, %v", n, err)
	}
}

func mustWrite(t *testing.T, file string, content []byte) {
	t.Helper()
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestKeysInASecretAreFollowed(t *testing.T) {
	first, second := testkit.Keys("p256").Signing(), testkit.Keys("rsa2048").Signing()
	secret := keySecret(t, first)
	client := fake.NewClientset(secret)
	source, err := KeySecret("sakeeper-system", "keys").open(t.Context(), client)
	if err != nil {
		t.Fatal(err)
	}
	if got := source.Get().Signing().PublicKey().ID(); got != first.PublicKey().ID() {
		t.Fatalf("signs with %s", got)
	}
	changed, failed := make(chan struct{}, 10), make(chan error, 10)
	source.OnChange(func() { changed <- struct{}{} })
	source.OnError(func(err error) { failed <- err })
	defer testkit.Start(t.Context(), t, source.Run)()

	update := func(s *corev1.Secret) {
		t.Helper()
		if _, err := client.CoreV1().Secrets(s.Namespace).Update(t.Context(), s, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	update(keySecret(t, second))
	<-changed
	if got := source.Get().Signing().PublicKey().ID(); got != second.PublicKey().ID() {
		t.Errorf("after the change, it signs with %s", got)
	}
	bad := keySecret(t, second)
	bad.Data["20260102T030405Z.signing.0123456789abcdef.key"] = []byte("garbage")
	update(bad)
	if err := <-failed; !strings.Contains(err.Error(), "sakeeper-system/keys") {
		t.Errorf("a Secret that cannot be used: %v", err)
	}
	if got := source.Get().Signing().PublicKey().ID(); got != second.PublicKey().ID() {
		t.Errorf("after a bad change, it signs with %s", got)
	}
}

func TestASecretWithoutKeys(t *testing.T) {
	empty := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "sakeeper-system", Name: "keys"}}
	for name, client := range map[string]*fake.Clientset{"it does not exist": fake.NewClientset(), "it is empty": fake.NewClientset(empty)} {
		t.Run(name, func(t *testing.T) {
			if _, err := KeySecret("sakeeper-system", "keys").open(t.Context(), client); err == nil || !strings.Contains(err.Error(), "sakeeper-system/keys") {
				t.Errorf("got %v", err)
			}
		})
	}
}

func keySecret(t *testing.T, signing keys.PrivateKey) *corev1.Secret {
	t.Helper()
	entry := keys.Entry{State: keys.StateSigning, Since: testkit.Instant(), Private: signing}
	data, err := entry.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: "sakeeper-system", Name: "keys"},
		Data:       map[string][]byte{entry.FileName(): data},
	}
}

// TestASignerGivesKeysAndSignatures: the suite has no private key then.
func TestASignerGivesKeysAndSignatures(t *testing.T) {
	set := testkit.Keys("p256")
	server, err := signer.New(signer.Config{
		Keys: func() *keys.Set { return set }, ReadAt: time.Now, RefreshHint: time.Minute, MaxExpiration: signer.MinExpiration,
	})
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(t.TempDir(), "s")
	listener, err := signer.Socket{Flag: "--legacy-socket", Path: socket, Mode: 0o600, Group: -1}.Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer testkit.Start(t.Context(), t, func(ctx context.Context) error { return server.ServeLegacy(ctx, listener) })()

	source, err := Signer(socket).open(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = closeSource(source) }()
	if !source.Get().Equal(keys.NewSet(set.Signing())) || source.Get().Signing().CanSign() {
		t.Errorf("the keys are %v", source.Get().Verification())
	}
	compact, err := signerOf(source).SignLegacy(t.Context(), token.LegacyClaims{Namespace: "a", SecretName: "b", ServiceAccountName: "c", ServiceAccountUID: "d"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := token.NewVerifier(func() *keys.Set { return set }).VerifyLegacy(compact); err != nil {
		t.Error(err)
	}
}
