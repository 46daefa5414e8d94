// Package upgrade tests the way from an older revision of sakeeper to this one, and back: the
// binaries and manifests of both, objects of all kinds, and pods and tokens that are created
// meanwhile. It builds the older revision out of the git history, so `make test-upgrade` runs it,
// and nothing else does. There are no nodes: pods are created, and do not run.
package upgrade

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
)

// patience is the timeout for what should take milliseconds, on a machine that may do much else.
const patience = 2 * time.Minute

// older and newer are the two revisions. TestMain sets them once.
var older, newer revision

func TestMain(m *testing.M) {
	name := os.Getenv("E2E_UPGRADE_FROM")
	if name == "" {
		fmt.Println("e2e/upgrade is skipped: it builds an older revision out of the git history. `make test-upgrade` runs it.")
		return
	}
	code, err := runFrom(name, m.Run)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e/upgrade:", err)
		code = 1
	}
	os.Exit(code)
}

func runFrom(name string, run func() int) (code int, err error) {
	dir, err := os.MkdirTemp("", "sakeeper-upgrade-")
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	root, err := controlplane.RepositoryRoot()
	if err != nil {
		return 1, err
	}
	if newer, err = built(root); err != nil {
		return 1, err
	}
	if older, err = checkOut(root, name, filepath.Join(dir, "older")); err != nil {
		return 1, err
	}
	return run(), nil
}

// plane is a control plane for one test.
type plane struct {
	*controlplane.ControlPlane
	client  kubernetes.Interface
	webhook controlplane.Webhook
}

func newPlane(t *testing.T, opts controlplane.Options) plane {
	t.Helper()
	opts.Dir = filepath.Join(t.TempDir(), "plane")
	must(t, os.Mkdir(opts.Dir, 0o700))
	cp, err := controlplane.Start(opts)
	must(t, err)
	t.Cleanup(func() { must(t, cp.Stop()) })
	webhook, err := controlplane.NewWebhook()
	must(t, err)
	config := rest.CopyConfig(cp.Admin)
	config.WarningHandler = rest.NoWarnings{} // a policy warns of token Secrets
	client, err := kubernetes.NewForConfig(config)
	must(t, err)
	return plane{cp, client, webhook}
}

// start starts a process of a revision, which stops when the test ends.
func (p plane) start(t *testing.T, r revision, args []string) *controlplane.Sakeeper {
	t.Helper()
	s, err := controlplane.StartSakeeper(r.binary, args, nil)
	must(t, err)
	t.Cleanup(func() {
		_ = s.Stop() // most have stopped
		if t.Failed() {
			logs := s.Logs()
			t.Logf("log of %s %s:\n%s", r.name, args[0], logs[max(0, len(logs)-8000):])
		}
	})
	return s
}

func (p plane) startReady(t *testing.T, r revision, args []string) *controlplane.Sakeeper {
	t.Helper()
	s := p.start(t, r, args)
	must(t, s.WaitReady(t.Context()))
	return s
}

// roll replaces a process as a rolling update does: the next one is ready before the last one ends.
func (p plane) roll(t *testing.T, last *controlplane.Sakeeper, next revision, args []string) *controlplane.Sakeeper {
	t.Helper()
	s := p.startReady(t, next, args)
	end(t, last)
	return s
}

// end sends SIGTERM, and waits until the process has ended.
func end(t *testing.T, s *controlplane.Sakeeper) {
	t.Helper()
	must(t, s.Signal(syscall.SIGTERM))
	must(t, s.Wait())
}

// newNamespace creates a namespace with labels.
func (p plane) newNamespace(t *testing.T, name string, labels map[string]string) {
	t.Helper()
	_, err := p.client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}, metav1.CreateOptions{})
	must(t, err)
}

// newAccount creates a ServiceAccount, unless a controller has.
func (p plane) newAccount(t *testing.T, namespace string, account *corev1.ServiceAccount) {
	t.Helper()
	_, err := p.client.CoreV1().ServiceAccounts(namespace).Create(t.Context(), account, metav1.CreateOptions{})
	if !apierrors.IsAlreadyExists(err) {
		must(t, err)
	}
}

// waitAccount waits for the account default of a namespace.
func (p plane) waitAccount(t *testing.T, namespace string) {
	t.Helper()
	eventually(t, "the account of "+namespace, func(ctx context.Context) error {
		_, err := p.client.CoreV1().ServiceAccounts(namespace).Get(ctx, "default", metav1.GetOptions{})
		return err
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually waits until check returns nil, and fails with its last error.
func eventually(t *testing.T, what string, check func(ctx context.Context) error) {
	t.Helper()
	testkit.Await(t, 50*time.Millisecond, patience, what, check)
}
