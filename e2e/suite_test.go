// Package e2e tests sakeeper as users run it: the built binary, with the ServiceAccount and the
// roles of manifests/, against a real kube-apiserver. Requests are counted in the API server's
// audit log.
//
// By default, tests share one control plane and one process of sakeeper controllers, and each
// has a namespace of its own. `make e2e` runs all of them; `go test ./e2e -skip TestLong` skips
// those that take minutes. Checks that also run on clusters with nodes are in behaviour, and
// tests that need nodes in kind.
package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
)

// patience is the timeout for what should take milliseconds, on a machine that may do much else.
const patience = 2 * time.Minute

// suite is shared by the tests of this package.
type suite struct {
	binary   string
	cp       *controlplane.ControlPlane
	sakeeper *controlplane.Sakeeper
	client   kubernetes.Interface
}

// shared is set once, by TestMain.
var shared suite

func TestMain(m *testing.M) {
	code, err := runSuite(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		code = 1
	}
	os.Exit(code)
}

func runSuite(m *testing.M) (code int, err error) {
	dir, err := os.MkdirTemp("", "sakeeper-e2e-")
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if shared.binary, err = buildBinary(dir); err != nil {
		return 1, err
	}
	if shared.cp, err = startControlPlane(controlplane.Options{Dir: filepath.Join(dir, "shared")}); err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, shared.cp.Stop(), rights.note(shared.cp), rights.check()) }()
	// Namespaces are deleted by the namespace controller only. Without a signing key, the
	// token controller of kube-controller-manager is disabled.
	stop, err := shared.cp.StartControllerManager(controlplane.ControllerManager{
		Controllers: []string{"namespace-controller", "garbage-collector-controller"},
	})
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	if shared.client, err = kubernetes.NewForConfig(shared.cp.Admin); err != nil {
		return 1, err
	}
	args, err := shared.cp.ControllersArgs()
	if err != nil {
		return 1, err
	}
	shared.sakeeper, err = controlplane.StartSakeeper(shared.binary, append(args, "-v=10"), nil)
	if err != nil {
		return 1, err
	}
	defer func() {
		err = errors.Join(err, shared.sakeeper.Stop(), checkLogs(shared.sakeeper.Logs()))
		if code != 0 || err != nil {
			fmt.Fprintf(os.Stderr, "log of sakeeper:\n%s\n", tail(shared.sakeeper.Logs(), 20000))
		}
	}()
	if err := shared.sakeeper.WaitReady(context.Background()); err != nil {
		return 1, err
	}
	return m.Run(), errors.Join(checkRequests(), checkMetricsAndEvents())
}

// isWatchFromNow returns true for the watch of the changes of Opaque Secrets, which begins with none
// of them, and for the list before it, which is for the version alone (pkg/controllers/opaquesecret).
func isWatchFromNow(r controlplane.Request) bool {
	if r.Object.Resource != "secrets" || strings.Contains(r.URI, "sendInitialEvents") {
		return false
	}
	return r.URI == "/api/v1/secrets?limit=1" ||
		r.Verb == "watch" && strings.Contains(r.URI, "fieldSelector=type%3DOpaque&") && strings.Contains(r.URI, "&resourceVersion=")
}

// checkRequests checks all requests of sakeeper during the tests: lists and watches of Secrets
// and ConfigMaps must have a selector, and no request may be forbidden in the end.
func checkRequests() error {
	all, err := shared.cp.Audit.Since(context.Background(), 0, func(r controlplane.Request) bool {
		return r.User.Username == controlplane.Username
	})
	if err == nil && len(all) == 0 {
		err = errors.New("the audit log has no request of sakeeper")
	}
	selectors := map[string]string{
		"secrets":    "fieldSelector=type%3Dkubernetes.io%2Fservice-account-token",
		"configmaps": "fieldSelector=metadata.name%3Dkube-root-ca.crt",
	}
	forbidden := map[string]string{}
	for _, r := range all {
		if selector, ok := selectors[r.Object.Resource]; ok && (r.Verb == "list" || r.Verb == "watch") && !strings.Contains(r.URI, selector) && !isWatchFromNow(r) {
			err = errors.Join(err, fmt.Errorf("%s fetches objects of others", r.URI))
		}
		// Creates in terminating namespaces are refused with this code too. A new API server
		// does not have all roles at once.
		request := strings.Join([]string{r.Verb, r.Object.Resource, r.Object.Subresource, r.Object.Namespace, r.Object.Name}, " ")
		if r.Response.Code != http.StatusForbidden {
			delete(forbidden, request)
		} else if r.Verb != "create" {
			forbidden[request] = r.URI
		}
	}
	for request, uri := range forbidden {
		err = errors.Join(err, fmt.Errorf("forbidden to the end: %s: %s", request, uri))
	}
	return err
}

// checkMetricsAndEvents fails when metrics or events have a token or a key.
func checkMetricsAndEvents() error {
	_, metrics, err := shared.sakeeper.Get(context.Background(), "/metrics")
	if err != nil {
		return err
	}
	events, err := shared.client.CoreV1().Events("").List(context.Background(), metav1.ListOptions{})
	if err != nil {
		return err
	}
	return errors.Join(checkSecrecy("metrics", metrics), checkSecrecy("events", fmt.Sprint(events.Items)))
}

// buildBinary builds sakeeper with the race detector, to find races in it too.
func buildBinary(dir string) (string, error) {
	root, err := controlplane.RepositoryRoot()
	if err != nil {
		return "", err
	}
	binary := filepath.Join(dir, "sakeeper")
	cmd := exec.Command("go", "build", "-race", "-o", binary, "./cmd/sakeeper")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build sakeeper: %w: %s", err, out)
	}
	return binary, nil
}

func startControlPlane(opts controlplane.Options) (*controlplane.ControlPlane, error) {
	if err := os.Mkdir(opts.Dir, 0o700); err != nil {
		return nil, err
	}
	cp, err := controlplane.Start(opts)
	if err != nil {
		return nil, err
	}
	if err := cp.Install(context.Background()); err != nil {
		return nil, errors.Join(err, cp.Stop())
	}
	return cp, nil
}

// checkLogs fails on data races, and on log lines with a token or a key.
func checkLogs(logs string) error {
	if i := strings.Index(logs, "WARNING: DATA RACE"); i >= 0 {
		return errors.New(logs[i:min(len(logs), i+4000)])
	}
	return checkSecrecy("log", logs)
}

// checkSecrecy fails when text has a token or a key, in plain text or in base64.
func checkSecrecy(what, text string) error {
	for _, secret := range []string{"eyJhbGciOi", "ZXlKaGJHY2lPa", "PRIVATE KEY", "UFJJVkFURSBLRVk"} {
		if i := strings.Index(text, secret); i >= 0 {
			return fmt.Errorf("%s of sakeeper has %q: %s", what, secret, text[max(0, i-200):min(len(text), i+200)])
		}
	}
	return nil
}

func tail(text string, n int) string { return text[max(0, len(text)-n):] }

// control plane is a control plane for one test alone.
type controlPlane struct {
	*controlplane.ControlPlane
	client kubernetes.Interface
}

func newControlPlane(t *testing.T) controlPlane {
	t.Helper()
	return newControlPlaneWith(t, controlplane.Options{})
}

// newPlaneWith is newPlane with options, except the directory.
func newControlPlaneWith(t *testing.T, opts controlplane.Options) controlPlane {
	t.Helper()
	opts.Dir = filepath.Join(t.TempDir(), "plane")
	cp, err := startControlPlane(opts)
	must(t, err)
	t.Cleanup(func() {
		if err := errors.Join(cp.Stop(), rights.note(cp)); err != nil {
			t.Errorf("stop control plane: %v", err)
		}
	})
	return controlPlane{cp, mustClient(t, cp.Admin)}
}

// sakeeperArgs are the arguments of sakeeper controllers for this control plane, followed by
// more.
func (p controlPlane) sakeeperArgs(t *testing.T, more ...string) []string {
	t.Helper()
	args, err := p.ControllersArgs()
	must(t, err)
	return append(args, more...)
}

// startSakeeper starts the binary and stops it when the test ends. Data races and secrets in
// its log fail the test.
func startSakeeper(t *testing.T, args []string) *controlplane.Sakeeper {
	t.Helper()
	s, err := controlplane.StartSakeeper(shared.binary, args, nil)
	must(t, err)
	t.Cleanup(func() {
		_ = s.Stop() // tests that check how it ends have stopped it
		if err := checkLogs(s.Logs()); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("log of sakeeper:\n%s", tail(s.Logs(), 8000))
		}
	})
	return s
}

func startReadySakeeper(t *testing.T, args []string) *controlplane.Sakeeper {
	t.Helper()
	s := startSakeeper(t, args)
	must(t, s.WaitReady(t.Context()))
	return s
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func mustClient(t *testing.T, config *rest.Config) kubernetes.Interface {
	t.Helper()
	client, err := kubernetes.NewForConfig(config)
	must(t, err)
	return client
}

// eventually waits until check returns nil, and fails with its last error.
func eventually(t *testing.T, what string, check func(ctx context.Context) error) {
	t.Helper()
	testkit.Await(t, 10*time.Millisecond, patience, what, check)
}

// newNamespace creates a namespace and waits for its ServiceAccount and root CA, so that the
// requests for them are not counted among those of a test.
func newNamespace(t *testing.T, client kubernetes.Interface) string {
	t.Helper()
	name := "t-" + rand.String(8)
	_, err := client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	must(t, err)
	expectAccount(t, client, name, "default")
	eventually(t, "root CA of "+name, func(ctx context.Context) error {
		_, err := client.CoreV1().ConfigMaps(name).Get(ctx, api.RootCAConfigMap, metav1.GetOptions{})
		return err
	})
	return name
}

func expectAccount(t *testing.T, client kubernetes.Interface, namespace, name string) *corev1.ServiceAccount {
	t.Helper()
	var account *corev1.ServiceAccount
	eventually(t, "service account "+namespace+"/"+name, func(ctx context.Context) (err error) {
		account, err = client.CoreV1().ServiceAccounts(namespace).Get(ctx, name, metav1.GetOptions{})
		return err
	})
	return account
}

// requests are those of sakeeper in namespace since mark; if namespace is empty, all except
// those for leader election and events, and those that found their write made ([outdated]).
func requests(t *testing.T, cp *controlplane.ControlPlane, mark controlplane.Mark, namespace string) []controlplane.Request {
	t.Helper()
	found, err := cp.Audit.Since(t.Context(), mark, func(r controlplane.Request) bool {
		return r.User.Username == controlplane.Username &&
			(namespace == "" || r.Object.Namespace == namespace) &&
			r.Object.Resource != "leases" && r.Object.Resource != "events" && r.Verb != "watch" && !outdated(r)
	})
	must(t, err)
	return found
}

// outdated returns true for a write that a precondition refused. On a busy machine the event of an
// earlier change may come between a write and its own event, and the controller then decides by a
// cache without the write.
func outdated(r controlplane.Request) bool {
	switch r.Verb {
	case "update", "patch":
		return r.Response.Code == http.StatusConflict
	case "delete":
		return r.Response.Code == http.StatusNotFound || r.Response.Code == http.StatusConflict
	default:
		return false
	}
}

func mustMark(t *testing.T, cp *controlplane.ControlPlane) controlplane.Mark {
	t.Helper()
	mark, err := cp.Audit.Mark(t.Context())
	must(t, err)
	return mark
}
