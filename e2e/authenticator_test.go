package e2e

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/sakeeper/sakeeper/pkg/authenticator"
	"github.com/sakeeper/sakeeper/pkg/issuer"
	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
	"github.com/sakeeper/sakeeper/pkg/token"
)

// planeIssuer is the issuer of every control plane.
const planeIssuer = "https://kubernetes.default.svc"

// reviewer is a client of a sakeeper authenticator.
type reviewer struct {
	url               string
	client, anonymous *http.Client
}

// startAuthenticator installs and starts one for the shared control plane, and waits until it
// is ready.
func startAuthenticator(t *testing.T, jwksURI string) reviewer {
	t.Helper()
	must(t, shared.cp.InstallAuthenticator(t.Context()))
	identity, err := shared.cp.ServiceAccount(controlplane.Namespace, controlplane.AuthenticatorAccount)
	must(t, err)
	kubeconfig, err := shared.cp.Kubeconfig("authenticator.kubeconfig", identity)
	must(t, err)
	r, _ := startAuthenticatorWith(t, kubeconfig, jwksURI)
	return r
}

// startAuthenticatorWith is startAuthenticator with a kubeconfig; nothing is installed.
func startAuthenticatorWith(t *testing.T, kubeconfig, jwksURI string) (reviewer, *controlplane.Sakeeper) {
	t.Helper()
	certificates := newCertificates(t)
	address, err := controlplane.FreeAddress()
	must(t, err)
	_, port, err := net.SplitHostPort(address)
	must(t, err)
	s := startReadySakeeper(t, []string{
		"authenticator", "--kubeconfig", kubeconfig, "--bind-address=127.0.0.1", "--secure-port", port, "--service-account-key-file", shared.cp.SigningKeyFile,
		"--service-account-issuer", planeIssuer, "--service-account-jwks-uri", jwksURI, "--track-legacy-tokens", "-v=10",
		"--tls-cert-file", certificates.file("server.crt"), "--tls-private-key-file", certificates.file("server.key"), "--client-ca-file", certificates.file("ca.crt"),
	})
	return reviewer{"https://" + address, certificates.client(t, "client"), certificates.client(t, "")}, s
}

// certificates is a directory with a CA and what it has signed.
type certificates string

func (c certificates) file(name string) string { return filepath.Join(string(c), name) }

func newCertificates(t *testing.T) certificates {
	t.Helper()
	c := certificates(t.TempDir())
	template := func(name string, usage ...x509.ExtKeyUsage) *x509.Certificate {
		return &x509.Certificate{
			SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
			KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: usage, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		}
	}
	ca := template("ca")
	ca.IsCA, ca.BasicConstraintsValid, ca.KeyUsage, ca.IPAddresses = true, true, x509.KeyUsageCertSign, nil
	caKey := c.write(t, "ca", ca, ca, nil)
	c.write(t, "server", template("server", x509.ExtKeyUsageServerAuth), ca, caKey)
	c.write(t, "client", template("client", x509.ExtKeyUsageClientAuth), ca, caKey)
	return c
}

// write creates a key and a certificate, which is self-signed without a parent.
func (c certificates) write(t *testing.T, name string, template, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	signer := parentKey
	if signer == nil {
		signer = key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	must(t, err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	must(t, os.WriteFile(c.file(name+".crt"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	must(t, os.WriteFile(c.file(name+".key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), 0o600))
	return key
}

// client returns a client with the certificate name; with none if name is empty.
func (c certificates) client(t *testing.T, name string) *http.Client {
	t.Helper()
	ca, err := os.ReadFile(c.file("ca.crt"))
	must(t, err)
	config := &tls.Config{RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS12}
	config.RootCAs.AppendCertsFromPEM(ca)
	if name != "" {
		pair, err := tls.LoadX509KeyPair(c.file(name+".crt"), c.file(name+".key"))
		must(t, err)
		config.Certificates = []tls.Certificate{pair}
	}
	transport := &http.Transport{TLSClientConfig: config}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func (r reviewer) ask(ctx context.Context, compact string, audiences ...string) (authenticationv1.TokenReviewStatus, error) {
	body, err := json.Marshal(authenticationv1.TokenReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "authentication.k8s.io/v1", Kind: "TokenReview"}, Spec: authenticationv1.TokenReviewSpec{Token: compact, Audiences: audiences},
	})
	if err != nil {
		return authenticationv1.TokenReviewStatus{}, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, r.url+authenticator.ReviewPath, bytes.NewReader(body))
	if err != nil {
		return authenticationv1.TokenReviewStatus{}, err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := r.client.Do(request)
	if err != nil {
		return authenticationv1.TokenReviewStatus{}, err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return authenticationv1.TokenReviewStatus{}, fmt.Errorf("answered %s", response.Status)
	}
	var review authenticationv1.TokenReview
	err = json.NewDecoder(response.Body).Decode(&review)
	return review.Status, err
}

// get returns the response body with the relevant headers.
func (r reviewer) get(t *testing.T, path string) string {
	t.Helper()
	return getDocument(t, r.client, r.url+path)
}

func getDocument(t *testing.T, client *http.Client, url string) string {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	must(t, err)
	response, err := client.Do(request)
	must(t, err)
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	must(t, err)
	return fmt.Sprintf("%d %s %s\n%s", response.StatusCode, response.Header.Get("Content-Type"), response.Header.Get("Cache-Control"), body)
}

// TestAuthenticatorAgreesWithTheAPIServer compares the reviews of real tokens of every kind,
// and the discovery documents byte by byte.
func TestAuthenticatorAgreesWithTheAPIServer(t *testing.T) {
	inTree, err := kubernetes.NewForConfig(shared.cp.Admin)
	must(t, err)
	admin, err := rest.HTTPClientFor(shared.cp.Admin)
	must(t, err)
	config, err := inTree.Discovery().RESTClient().Get().AbsPath(issuer.ConfigPath).DoRaw(t.Context())
	must(t, err)
	var shown struct {
		JWKSURI string `json:"jwks_uri"`
	}
	must(t, json.Unmarshal(config, &shown))
	r := startAuthenticator(t, shown.JWKSURI)

	for _, path := range []string{issuer.ConfigPath, issuer.JWKSPath} {
		if diff := cmp.Diff(getDocument(t, admin, "https://"+strings.Trim(strings.TrimPrefix(shared.cp.Admin.Host, "https://"), "/")+path), r.get(t, path)); diff != "" {
			t.Errorf("%s (-in-tree +sakeeper):\n%s", path, diff)
		}
	}
	tokens := realTokens(t)
	for name, compact := range tokens {
		// The cache of each may lag behind the Secret that was filled, or the account that was created.
		eventually(t, "both accept the token "+name, func(ctx context.Context) error {
			theirs, err1 := askAbout(ctx, controlPlane{shared.cp, inTree}, compact)
			ours, err2 := r.ask(ctx, compact)
			if err := errors.Join(err1, err2); err != nil || theirs.Authenticated && ours.Authenticated {
				return err
			}
			return fmt.Errorf("in-tree: %t, %s; sakeeper: %t, %s", theirs.Authenticated, theirs.Error, ours.Authenticated, ours.Error)
		})
		for _, audiences := range [][]string{nil, {planeIssuer}, {"other"}} {
			review, err := inTree.AuthenticationV1().TokenReviews().Create(t.Context(), &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: compact, Audiences: audiences}}, metav1.CreateOptions{})
			must(t, err)
			got, err := r.ask(t.Context(), compact, audiences...)
			must(t, err)
			if diff := cmp.Diff(review.Status, got, cmpopts.IgnoreFields(authenticationv1.TokenReviewStatus{}, "Error"), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("%s for %q (-in-tree +sakeeper):\n%s", name, audiences, diff)
			}
			if wanted := audiences == nil || audiences[0] == planeIssuer; got.Authenticated != wanted {
				t.Errorf("%s for %q: accepted %t, %s", name, audiences, got.Authenticated, got.Error)
			}
		}
	}
}

// realTokens returns one token of each kind, of one account.
func realTokens(t *testing.T) map[string]string {
	t.Helper()
	namespace := newNamespace(t, shared.client)
	account := mustCreateAccount(t, shared.client, namespace, "robot")
	core := shared.client.CoreV1()
	node, err := core.Nodes().Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{})
	must(t, err)
	onNode := pod("app")
	onNode.Spec.NodeName, onNode.Spec.ServiceAccountName = node.Name, account.Name
	app := mustCreatePod(t, shared.client, namespace, onNode)
	secret, err := core.Secrets(namespace).Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "bound"}}, metav1.CreateOptions{})
	must(t, err)
	_, err = core.Secrets(namespace).Create(t.Context(), tokenSecret("robot-token", "robot"), metav1.CreateOptions{})
	must(t, err)
	request := func(ref *authenticationv1.BoundObjectReference) string {
		t.Helper()
		granted, err := core.ServiceAccounts(namespace).CreateToken(t.Context(), "robot", &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{BoundObjectRef: ref}}, metav1.CreateOptions{})
		must(t, err)
		return granted.Status.Token
	}
	ref := func(kind, name string, uid types.UID) *authenticationv1.BoundObjectReference {
		return &authenticationv1.BoundObjectReference{Kind: kind, APIVersion: "v1", Name: name, UID: uid}
	}
	return map[string]string{
		"legacy": mustFillToken(t, controlPlane{shared.cp, shared.client}, namespace, "robot-token"), "for an account": request(nil), "for a pod": request(ref("Pod", app.Name, app.UID)),
		"for a secret": request(ref("Secret", secret.Name, secret.UID)), "for a node": request(ref("Node", node.Name, node.UID)),
	}
}

// TestAuthenticatorFollowsTheCluster deletes the objects to which tokens are bound, and checks
// the label of the last use.
func TestAuthenticatorFollowsTheCluster(t *testing.T) {
	r := startAuthenticator(t, planeIssuer+issuer.JWKSPath)
	namespace := newNamespace(t, shared.client)
	mustCreateAccount(t, shared.client, namespace, "robot")
	secrets := shared.client.CoreV1().Secrets(namespace)
	_, err := secrets.Create(t.Context(), tokenSecret("robot-token", "robot"), metav1.CreateOptions{})
	must(t, err)
	compact := mustFillToken(t, controlPlane{shared.cp, shared.client}, namespace, "robot-token")
	accepted := func(compact string) func(bool) func(context.Context) error {
		return func(want bool) func(context.Context) error {
			return func(ctx context.Context) error {
				status, err := r.ask(ctx, compact)
				if err == nil && status.Authenticated != want {
					err = fmt.Errorf("accepted: %t, %s", status.Authenticated, status.Error)
				}
				return err
			}
		}
	}
	legacy := accepted(compact)
	eventually(t, "the token is accepted", legacy(true))
	eventually(t, "its use is noted", func(ctx context.Context) error {
		secret, err := secrets.Get(ctx, "robot-token", metav1.GetOptions{})
		if err == nil && !isToday(secret.Labels[token.LastUsedLabel]) {
			err = fmt.Errorf("labels %v", secret.Labels)
		}
		return err
	})
	mark := func(value string) {
		t.Helper()
		_, err := secrets.Patch(t.Context(), "robot-token", types.MergePatchType, []byte(`{"metadata":{"labels":{"`+token.InvalidSinceLabel+`":`+value+`}}}`), metav1.PatchOptions{})
		must(t, err)
	}
	mark(`"2026-01-01"`)
	eventually(t, "a marked token is refused", legacy(false))
	mark("null")
	eventually(t, "and accepted again", legacy(true))
	// The tokens above and these are refused because the object to which they are bound is gone.
	core := shared.client.CoreV1()
	mustCreateAccount(t, shared.client, namespace, "sailor")
	node, err := core.Nodes().Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{})
	must(t, err)
	request := func(account string, ref *authenticationv1.BoundObjectReference) func(bool) func(context.Context) error {
		t.Helper()
		granted, err := core.ServiceAccounts(namespace).CreateToken(t.Context(), account, &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{BoundObjectRef: ref}}, metav1.CreateOptions{})
		must(t, err)
		return accepted(granted.Status.Token)
	}
	ofRobot := request("robot", nil)
	onNode := request("sailor", &authenticationv1.BoundObjectReference{Kind: "Node", APIVersion: "v1", Name: node.Name, UID: node.UID})
	eventually(t, "a token of the account is accepted", ofRobot(true))
	eventually(t, "a token for the node is accepted", onNode(true))
	must(t, core.Nodes().Delete(t.Context(), node.Name, metav1.DeleteOptions{}))
	must(t, core.ServiceAccounts(namespace).Delete(t.Context(), "robot", metav1.DeleteOptions{}))
	eventually(t, "a token for no node is refused", onNode(false))
	eventually(t, "a token of a deleted account is refused", ofRobot(false))
	eventually(t, "and so is the one in the Secret", legacy(false))

	r.client = r.anonymous
	if _, err := r.ask(t.Context(), compact); err == nil || err.Error() != "answered 401 Unauthorized" {
		t.Errorf("a client without a certificate: %v", err)
	}
	if got := r.get(t, issuer.JWKSPath); got[:4] != "200 " {
		t.Errorf("discovery for a client without a certificate: %s", got)
	}
}
