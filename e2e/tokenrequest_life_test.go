package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/clock"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/cabundle"
	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/controllers"
	"github.com/sakeeper/sakeeper/pkg/controllers/tokenrequest"
	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
)

// startTokenRequests runs the controller in the test process, with that clock and the
// credentials of the binary. It serves all namespaces.
func startTokenRequests(t *testing.T, p controlPlane, clk clock.PassiveClock) (stop func()) {
	t.Helper()
	config, err := p.ServiceAccount(controlplane.Namespace, controlplane.Account)
	must(t, err)
	client, err := kubernetes.NewForConfig(config)
	must(t, err)
	ca, err := cabundle.Parse(p.Admin.CAData)
	must(t, err)
	namespaces, err1 := cache.Namespaces(client)
	secrets, err2 := cache.ManagedSecrets(client)
	accounts, err3 := cache.ServiceAccounts(client)
	must(t, errors.Join(err1, err2, err3))
	c, err := tokenrequest.New(tokenrequest.Config{
		Client: client.CoreV1(), Namespaces: namespaces, Secrets: secrets, ServiceAccounts: accounts, AllNamespaces: true,
		CA: func() cabundle.Bundle { return ca }, Recorder: &record.FakeRecorder{}, Clock: clk, Monotonic: clk,
	})
	must(t, err)
	return testkit.Start(t.Context(), t, c.Run, testkit.Informer(namespaces), testkit.Informer(secrets), testkit.Informer(accounts))
}

// TestManagedTokensAreRenewedWhenTheyAreDue has a clock that is set ahead, because an API
// server grants no less than ten minutes. The API server is down when the controller starts,
// and when the token is due.
func TestManagedTokensAreRenewedWhenTheyAreDue(t *testing.T) {
	p := newControlPlane(t)
	must(t, p.Install(t.Context(), "token-requests"))
	const namespace = metav1.NamespaceDefault
	robot := mustCreateAccount(t, p.client, namespace, "robot")
	mustCreateSecret(t, p.client, namespace, managed("s", map[string]string{"lifetime": "1h"}))
	must(t, p.KillServer())
	clk := &aheadClock{}
	defer startTokenRequests(t, p, clk)()
	must(t, p.StartServer(t.Context()))
	keys := []string{"ca.crt", "namespace", "token"}
	id := expectManaged(t, p, namespace, "s", "", keys...).Annotations[api.CredentialIDAnnotation]

	must(t, p.KillServer())
	clk.ahead.Store(int64(50 * time.Minute))
	must(t, p.StartServer(t.Context()))
	second := expectManaged(t, p, namespace, "s", id, keys...)
	id = second.Annotations[api.CredentialIDAnnotation]
	expectRobot(t, p, namespace, string(second.Data["token"]), robot.UID, id)

	clk.ahead.Store(int64(100 * time.Minute))
	expectManaged(t, p, namespace, "s", id, keys...)
}

// TestManagedTokensThatAreNotValidYet has a clock that is behind, by which the token was issued ahead,
// as after the clock of the control plane was set back.
func TestManagedTokensThatAreNotValidYet(t *testing.T) {
	p := newControlPlane(t)
	must(t, p.Install(t.Context(), "token-requests"))
	const namespace = metav1.NamespaceDefault
	mustCreateAccount(t, p.client, namespace, "robot")
	mustCreateSecret(t, p.client, namespace, managed("s", nil))
	keys := []string{"ca.crt", "namespace", "token"}
	stop := startTokenRequests(t, p, clock.RealClock{})
	id := expectManaged(t, p, namespace, "s", "", keys...).Annotations[api.CredentialIDAnnotation]
	stop()
	behind := &aheadClock{}
	behind.ahead.Store(int64(-48 * time.Hour))

	config, err := p.ServiceAccount(controlplane.Namespace, controlplane.Account)
	must(t, err)
	o := controllers.Options{Config: config, Controllers: []string{tokenrequest.Name}, RootCA: controllers.CAFile(p.CAFile), Clock: behind}
	o.TokenRequest.AllNamespaces = true
	suite, err := controllers.New(o)
	must(t, err)
	stop = testkit.Start(t.Context(), t, suite.Run)
	eventually(t, "readiness", func(context.Context) error { return suite.Ready() })
	stop()
	secret, err := p.client.CoreV1().Secrets(namespace).Get(t.Context(), "s", metav1.GetOptions{})
	must(t, err)
	if secret.Annotations[api.CredentialIDAnnotation] != id {
		t.Error("a token was renewed that is valid by the clock of the API server")
	}

	defer startTokenRequests(t, p, behind)() // which does not know the clock of the API server
	expectManaged(t, p, namespace, "s", id, keys...)
}

// TestNoManagedTokenStaysInMemory searches the reachable heap of a process that has issued,
// written and watched tokens. The test itself must not have read them before.
func TestNoManagedTokenStaysInMemory(t *testing.T) {
	p := newControlPlane(t)
	must(t, p.Install(t.Context(), "token-requests"))
	const namespace = metav1.NamespaceDefault
	mustCreateAccount(t, p.client, namespace, "robot")
	stop := startTokenRequests(t, p, clock.RealClock{})
	const secrets, buffered = 20, 3 // the buffers of connections may have the tokens that were read or written last
	var names []string
	for i := range secrets {
		names = append(names, fmt.Sprint("s", i))
	}
	for _, name := range names {
		mustCreateSecret(t, p.client, namespace, managed(name, nil))
	}
	// This overwrites most of the buffers.
	filler := managed("filler", map[string]string{"lifetime": "1s"})
	filler.Data["filler"] = bytes.Repeat([]byte("x"), 200<<10)
	meta, err := metadata.NewForConfig(p.Admin)
	must(t, err)
	for _, name := range names {
		eventually(t, "token in "+name, func(ctx context.Context) error {
			found, err := meta.Resource(corev1.SchemeGroupVersion.WithResource("secrets")).Namespace(namespace).Get(ctx, name, metav1.GetOptions{})
			if err == nil && found.Annotations[api.CredentialIDAnnotation] == "" {
				err = errors.New("not yet")
			}
			return err
		})
	}
	mustCreateSecret(t, p.client, namespace, filler)
	_, err = p.client.CoreV1().Secrets(namespace).Get(t.Context(), "filler", metav1.GetOptions{})
	must(t, err)
	dump := dumpHeap(t)
	stop()

	if !bytes.Contains(dump, []byte(dumpMark)) {
		t.Fatal("the dump lacks what is there for sure")
	}
	found := 0
	for _, name := range names {
		secret, err := p.client.CoreV1().Secrets(namespace).Get(t.Context(), name, metav1.GetOptions{})
		must(t, err)
		signature := secret.Data["token"][bytes.LastIndexByte(secret.Data["token"], '.')+1:]
		if bytes.Contains(dump, signature) {
			found++
		}
	}
	t.Logf("%d of %d tokens are in memory", found, secrets)
	if found > buffered {
		t.Errorf("%d of %d tokens are in memory, more than buffers hold", found, secrets)
	}
}

// dumpMark is in the heap when it is dumped, and shows that the dump is complete.
var dumpMark = strings.Repeat("marked-for-the-dump ", 2)

// dumpHeap returns a dump of all reachable objects.
func dumpHeap(t *testing.T) []byte {
	t.Helper()
	held := []byte(dumpMark)
	for range 3 { // a sync.Pool is empty after two collections
		runtime.GC()
	}
	file, err := os.Create(filepath.Join(t.TempDir(), "heap"))
	must(t, err)
	debug.WriteHeapDump(file.Fd())
	must(t, file.Close())
	runtime.KeepAlive(held)
	dump, err := os.ReadFile(file.Name())
	must(t, err)
	return dump
}
