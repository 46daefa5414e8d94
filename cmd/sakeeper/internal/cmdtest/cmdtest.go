// Package cmdtest helps to test the subcommands: files that flags may name, and the config that a
// command line results in.
package cmdtest

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/goleak"
	logsapi "k8s.io/component-base/logs/api/v1"
	"k8s.io/klog/v2"

	"github.com/sakeeper/sakeeper/pkg/servingcert/pki"
	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/testkit/leaks"
)

// NotADomain is what validation says of a name that is not a DNS subdomain.
const NotADomain = `a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')`

// Kubeconfig is a kubeconfig whose API server does not answer.
const Kubeconfig = `apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://127.0.0.1:1"}}]
users: [{name: u, user: {token: t}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
`

// VerifyNoLeaks runs the tests of a package, and fails if a goroutine is left. It sets up logging
// with the defaults, once and for all processes of the package: logging may not be changed while a
// goroutine runs that may log, and client-go does not wait for a list that it gave up.
func VerifyNoLeaks(m *testing.M) {
	logsapi.ReapplyHandling = logsapi.ReapplyHandlingIgnoreUnchanged
	if err := logsapi.ValidateAndApply(logsapi.NewLoggingConfiguration(), nil); err != nil {
		panic(err)
	}
	klog.StopFlushDaemon()
	leaks.Main(m,
		// A work queue starts these when it is made, and ends them only after it was run: a
		// standby leaves them to the end of the process.
		goleak.IgnoreTopFunction("k8s.io/client-go/util/workqueue.(*Typed[...]).updateUnfinishedWorkLoop"),
		goleak.IgnoreTopFunction("k8s.io/client-go/util/workqueue.(*delayingType[...]).waitingLoop"))
}

// MustNil ends the test if there is an error.
func MustNil(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Files is a directory with keys, certificates and garbage that flags may name.
type Files string

// NewFiles makes such a directory.
func NewFiles(t *testing.T) Files {
	t.Helper()
	dir := t.TempDir()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	MustNil(t, err)
	_, edwards, err := ed25519.GenerateKey(rand.Reader)
	MustNil(t, err)
	for name, content := range map[string][]byte{
		"good.key":    pkcs8(t, private),
		"public.key":  public(t, private),
		"two.key":     append(pkcs8(t, private), pkcs8(t, private)...),
		"edwards.key": pkcs8(t, edwards),
		"good.crt":    testkit.Bundle().PEM(),
		"other.crt":   testkit.OtherBundle().PEM(),
		"garbage":     []byte("garbage"),
	} {
		MustNil(t, os.WriteFile(filepath.Join(dir, name), content, 0o600))
	}
	return Files(dir)
}

// Path returns the path of the file of that name.
func (f Files) Path(name string) string { return filepath.Join(string(f), name) }

// Expand replaces % in text by the directory.
func (f Files) Expand(text string) string { return strings.ReplaceAll(text, "%", string(f)) }

// Shorten replaces the directory in text by %.
func (f Files) Shorten(text string) string { return strings.ReplaceAll(text, string(f), "%") }

// WithKubeconfig writes a kubeconfig, and returns args after the flag that names it.
func (f Files) WithKubeconfig(t *testing.T, args []string) []string {
	t.Helper()
	MustNil(t, os.WriteFile(f.Path("kubeconfig"), []byte(Kubeconfig), 0o600))
	return append([]string{"--kubeconfig=%/kubeconfig"}, args...)
}

// WriteServingCertificate writes tls.crt and tls.key for that host.
func (f Files) WriteServingCertificate(t *testing.T, host string) {
	t.Helper()
	ca, err := pki.NewCA(time.Now())
	MustNil(t, err)
	pair, err := ca.Issue([]string{host}, time.Now())
	MustNil(t, err)
	cert, key, err := pair.Encode()
	MustNil(t, err)
	MustNil(t, os.WriteFile(f.Path("tls.crt"), cert, 0o600))
	MustNil(t, os.WriteFile(f.Path("tls.key"), key, 0o600))
}

func pkcs8(t *testing.T, key any) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	MustNil(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

func public(t *testing.T, key *ecdsa.PrivateKey) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	MustNil(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

// ConfigOf executes a command whose start function only takes the config, and returns that, or nil
// if it was not started. % in an argument is the directory.
func ConfigOf[C any](t *testing.T, f Files, command func(string, func(context.Context, *C) error) *cobra.Command, args ...string) (*C, error) {
	t.Helper()
	var cfg *C
	cmd := command("v0", func(_ context.Context, c *C) error {
		cfg = c
		return nil
	})
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	all := []string{} // nil would be the arguments of the test binary
	for _, arg := range args {
		all = append(all, f.Expand(arg))
	}
	cmd.SetArgs(all)
	return cfg, cmd.ExecuteContext(t.Context())
}

// Get asks handler for path.
func Get(handler http.Handler, path string) (code int, body string) {
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	return w.Code, w.Body.String()
}
