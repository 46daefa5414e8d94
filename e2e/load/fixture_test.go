package load

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/sakeeper/sakeeper/pkg/keys"
	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
	"github.com/sakeeper/sakeeper/pkg/token"
)

// patience is a guard.
const patience = 3 * time.Minute

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func eventually(t *testing.T, what string, check func(context.Context) error) {
	t.Helper()
	testkit.Await(t, 20*time.Millisecond, patience, what, check)
}

// attacked is how long a server is attacked: E2E_LOAD, in which case the latencies are judged.
func attacked(t *testing.T) (lasts time.Duration, judged bool) {
	t.Helper()
	value := os.Getenv("E2E_LOAD")
	if value == "" {
		return 6 * time.Second, false
	}
	lasts, err := time.ParseDuration(value)
	must(t, err)
	return lasts, true
}

// plane is a control plane with an account "default" in the namespace default.
type plane struct {
	*controlplane.ControlPlane

	client  kubernetes.Interface
	account *corev1.ServiceAccount
}

func newPlane(t *testing.T, opts controlplane.Options) plane {
	t.Helper()
	opts.Dir = t.TempDir()
	cp, err := controlplane.Start(opts)
	must(t, err)
	t.Cleanup(func() {
		if err := cp.Stop(); err != nil {
			t.Error(err)
		}
	})
	must(t, cp.Install(t.Context()))
	unlimited := rest.CopyConfig(cp.Admin)
	unlimited.QPS = -1
	client, err := kubernetes.NewForConfig(unlimited)
	must(t, err)
	account, err := client.CoreV1().ServiceAccounts("default").Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}, metav1.CreateOptions{})
	must(t, err)
	return plane{cp, client, account}
}

// start starts bin/sakeeper, and waits until it is ready.
func start(t *testing.T, args ...string) *controlplane.Sakeeper {
	t.Helper()
	root, err := controlplane.RepositoryRoot()
	must(t, err)
	s, err := controlplane.StartSakeeper(filepath.Join(root, "bin/sakeeper"), args, nil)
	must(t, err) // make build
	t.Cleanup(func() {
		_ = s.Stop()
		if t.Failed() {
			logs := s.Logs()
			t.Logf("log of sakeeper:\n%s", logs[max(0, len(logs)-4000):])
		}
	})
	must(t, s.WaitReady(t.Context()))
	return s
}

// startWebhook also returns the address.
func startWebhook(t *testing.T, p plane) (*controlplane.Sakeeper, string) {
	t.Helper()
	w, err := controlplane.NewWebhook()
	must(t, err)
	must(t, p.InstallWebhook(t.Context(), w))
	args, err := p.WebhookArgs(w)
	must(t, err)
	return start(t, append(args, "--shutdown-delay-duration=0s")...), w.Address
}

// identity is a certificate of this machine, for servers and clients, which is its own CA.
type identity struct {
	certFile, keyFile string
	pair              tls.Certificate
}

func newIdentity(t *testing.T) identity {
	t.Helper()
	dir := t.TempDir()
	i := identity{certFile: filepath.Join(dir, "tls.crt"), keyFile: filepath.Join(dir, "tls.key")}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "load"}, NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(t, err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	must(t, os.WriteFile(i.certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	must(t, os.WriteFile(i.keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), 0o600))
	i.pair, err = tls.LoadX509KeyPair(i.certFile, i.keyFile)
	must(t, err)
	return i
}

// client is the TLS configuration of a client that trusts it and shows it.
func (i identity) client(t *testing.T) *tls.Config {
	t.Helper()
	content, err := os.ReadFile(i.certFile)
	must(t, err)
	config := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: x509.NewCertPool(), Certificates: []tls.Certificate{i.pair}}
	config.RootCAs.AppendCertsFromPEM(content)
	return config
}

const (
	planeIssuer = "https://kubernetes.default.svc"
	otherIssuer = "https://other.example.com"
)

// startAuthenticator starts one for tokens of otherIssuer, which the signing key of the control plane
// signs, and returns its address.
func startAuthenticator(t *testing.T, p plane, i identity, more ...string) (*controlplane.Sakeeper, string) {
	t.Helper()
	must(t, p.InstallAuthenticator(t.Context()))
	user, err := p.ServiceAccount(controlplane.Namespace, controlplane.AuthenticatorAccount)
	must(t, err)
	kubeconfig, err := p.Kubeconfig("authenticator.kubeconfig", user)
	must(t, err)
	address, err := controlplane.FreeAddress()
	must(t, err)
	_, port, err := net.SplitHostPort(address)
	must(t, err)
	return start(t, append([]string{
		"authenticator", "--kubeconfig", kubeconfig, "--bind-address=127.0.0.1", "--secure-port", port, "--service-account-key-file", p.SigningKeyFile,
		"--service-account-issuer", otherIssuer, "--service-account-jwks-uri", otherIssuer + "/jwks", "--api-audiences", planeIssuer,
		"--tls-cert-file", i.certFile, "--tls-private-key-file", i.keyFile, "--client-ca-file", i.certFile,
	}, more...)...), address
}

// sign returns a token of the account, of that issuer.
func sign(t *testing.T, p plane, issuer string) string {
	t.Helper()
	loader, err := keys.Files{PrivateKeyFile: p.SigningKeyFile}.Open()
	must(t, err)
	now := time.Now().Unix()
	payload := base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil,
		`{"aud":[%q],"exp":%d,"iat":%[3]d,"iss":%[4]q,"kubernetes.io":{"namespace":"default","serviceaccount":{"name":"default","uid":%[5]q}},"nbf":%[3]d,"sub":"system:serviceaccount:default:default"}`,
		planeIssuer, now+86400, now, issuer, p.account.UID))
	segments, err := token.NewSigner(loader.Get).Sign(payload)
	must(t, err)
	return segments.Header + "." + payload + "." + segments.Signature
}

// peakMemory is VmHWM of the process, in MiB.
func peakMemory(t *testing.T, s *controlplane.Sakeeper) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.PID()))
	must(t, err)
	_, after, _ := strings.Cut(string(status), "VmHWM:")
	var kib int
	_, err = fmt.Sscan(after, &kib)
	must(t, err)
	return kib >> 10
}

// goroutines reads go_goroutines.
func goroutines(ctx context.Context, s *controlplane.Sakeeper) (n int, err error) {
	_, metrics, err := s.Get(ctx, "/metrics")
	if err != nil {
		return 0, err
	}
	_, after, _ := strings.Cut(metrics, "\ngo_goroutines ")
	_, err = fmt.Sscan(after, &n)
	return n, err
}
