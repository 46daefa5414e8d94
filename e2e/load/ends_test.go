package load

import (
	"context"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
)

// expectError checks the error, and prints how long it took.
func expectError(t *testing.T, what string, try func(context.Context) error, is func(error) bool, text string) {
	t.Helper()
	began := time.Now()
	err := try(t.Context())
	t.Logf("%s, after %v: %v", what, time.Since(began).Round(10*time.Millisecond), err)
	if err == nil || !is(err) || !strings.Contains(err.Error(), text) {
		t.Errorf("%s: %v, want an error with %q", what, err, text)
	}
}

func frozen(t *testing.T, s *controlplane.Sakeeper, during func()) {
	t.Helper()
	must(t, s.Signal(syscall.SIGSTOP))
	defer func() { must(t, s.Signal(syscall.SIGCONT)) }()
	during()
}

func killed(t *testing.T, s *controlplane.Sakeeper) {
	t.Helper()
	must(t, s.Signal(syscall.SIGKILL))
	_ = s.Wait()
}

// TestWithoutTheWebhookPodsAreRefused, and nothing else is.
func TestWithoutTheWebhookPodsAreRefused(t *testing.T) {
	p := newPlane(t, controlplane.Options{})
	s, _ := startWebhook(t, p)
	create := func(ctx context.Context) error {
		_, err := p.client.CoreV1().Pods("default").Create(ctx, &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{GenerateName: "pod-"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "i"}}},
		}, metav1.CreateOptions{})
		return err
	}
	others := func() {
		t.Helper()
		_, err := p.client.CoreV1().ConfigMaps("default").Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{GenerateName: "other-"}}, metav1.CreateOptions{})
		must(t, err)
		_, err = p.requestToken(t.Context())
		must(t, err)
	}
	eventually(t, "a pod", create)
	frozen(t, s, func() {
		expectError(t, "a pod while the webhook is frozen", create, apierrors.IsInternalError, "context deadline exceeded")
		others()
	})
	eventually(t, "a pod", create)
	killed(t, s)
	expectError(t, "a pod while there is no webhook", create, apierrors.IsInternalError, "failed calling webhook")
	others()
}

func anyError(error) bool { return true }

// isTimeout returns true for that of the client and of the server, of which either may be first.
func isTimeout(err error) bool {
	return apierrors.IsTimeout(err) || apierrors.IsServerTimeout(err) || strings.Contains(err.Error(), "deadline exceeded") || strings.Contains(err.Error(), "in the time allotted")
}

// TestLongWithoutTheSignerNoTokenIsGranted, and those that there are stay valid. The API server waits for
// a signer until the request ends, here by the client's timeout.
func TestLongWithoutTheSignerNoTokenIsGranted(t *testing.T) {
	keys := newPlane(t, controlplane.Options{})
	s, socket := startSigner(t, keys.SigningKeyFile)
	p := newPlane(t, controlplane.Options{SigningEndpoint: socket})
	granted, err := p.requestToken(t.Context())
	must(t, err)
	use := func(ctx context.Context) error { return usedAs(ctx, p, granted) }
	request := func(ctx context.Context) error {
		return p.client.CoreV1().RESTClient().Post().Namespace("default").Resource("serviceaccounts").Name("default").SubResource("token").
			Timeout(3 * time.Second).Body([]byte(`{"apiVersion":"authentication.k8s.io/v1","kind":"TokenRequest","spec":{}}`)).Do(ctx).Error()
	}
	must(t, use(t.Context()))
	expectNoKeyInTheCluster(t, p)
	frozen(t, s, func() {
		expectError(t, "a token while the signer is frozen", request, isTimeout, "")
		must(t, use(t.Context()))
	})
	eventually(t, "a token", request)
	killed(t, s)
	expectError(t, "a token while there is no signer", request, isTimeout, "")
	must(t, use(t.Context()))
}

// expectNoKeyInTheCluster: what a backup of etcd has of the keys of a signer.
func expectNoKeyInTheCluster(t *testing.T, p plane) {
	t.Helper()
	secrets, err := p.client.CoreV1().Secrets("").List(t.Context(), metav1.ListOptions{})
	must(t, err)
	configMaps, err := p.client.CoreV1().ConfigMaps("").List(t.Context(), metav1.ListOptions{})
	must(t, err)
	var all strings.Builder
	for _, secret := range secrets.Items {
		for _, value := range secret.Data {
			all.Write(value)
		}
	}
	for _, configMap := range configMaps.Items {
		for _, value := range configMap.Data {
			all.WriteString(value)
		}
	}
	if len(configMaps.Items) == 0 || strings.Contains(all.String(), "PRIVATE KEY") {
		t.Errorf("of %d Secrets and %d ConfigMaps, one has a private key, or there is none", len(secrets.Items), len(configMaps.Items))
	}
}

// usedAs returns nil if the API server accepts the token.
func usedAs(ctx context.Context, p plane, bearer string) error {
	config := rest.AnonymousClientConfig(p.Admin)
	config.BearerToken = bearer
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	_, err = client.Discovery().RESTClient().Get().AbsPath("/api").DoRaw(ctx)
	return err
}

// TestWithoutTheAuthenticatorOnlyItsTokensAreRefused by an API server that asks it.
func TestWithoutTheAuthenticatorOnlyItsTokensAreRefused(t *testing.T) {
	_, judged := attacked(t)
	p := newPlane(t, controlplane.Options{})
	i := newIdentity(t)
	s, address := startAuthenticator(t, p, i)
	file := filepath.Join(t.TempDir(), "authenticator.kubeconfig")
	must(t, clientcmd.WriteToFile(clientcmdapi.Config{
		CurrentContext: "a", Contexts: map[string]*clientcmdapi.Context{"a": {Cluster: "a", AuthInfo: "a"}},
		Clusters:  map[string]*clientcmdapi.Cluster{"a": {Server: "https://" + address + "/authenticate", CertificateAuthority: i.certFile}},
		AuthInfos: map[string]*clientcmdapi.AuthInfo{"a": {ClientCertificate: i.certFile, ClientKey: i.keyFile}},
	}, file))
	must(t, p.RestartWith(t.Context(), "--authentication-token-webhook-config-file="+file, "--authentication-token-webhook-version=v1"))
	var ofOther [3]string
	for n := range ofOther {
		ofOther[n] = sign(t, p, otherIssuer)
		time.Sleep(time.Second) // another iat: another token
	}
	eventually(t, "a token of the other issuer is accepted", func(ctx context.Context) error { return usedAs(ctx, p, ofOther[0]) })
	own, err := p.requestToken(t.Context())
	must(t, err)
	unaffected := func() {
		t.Helper()
		began := time.Now()
		must(t, usedAs(t.Context(), p, own))
		fresh, err := p.requestToken(t.Context()) // a certificate
		must(t, err)
		must(t, usedAs(t.Context(), p, fresh))
		t.Logf("an own token, a certificate and a new token took %v", time.Since(began).Round(10*time.Millisecond))
	}
	frozen(t, s, func() {
		waits, is := 3*time.Second, anyError
		if judged { // it is refused after 30 s
			waits, is = patience, apierrors.IsUnauthorized
		}
		expectError(t, "a token of the other issuer while the authenticator is frozen", func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, waits)
			defer cancel()
			return usedAs(ctx, p, ofOther[1])
		}, is, "")
		unaffected()
	})
	eventually(t, "a token of the other issuer is accepted", func(ctx context.Context) error { return usedAs(ctx, p, ofOther[1]) })
	killed(t, s)
	expectError(t, "a token of the other issuer while there is no authenticator",
		func(ctx context.Context) error { return usedAs(ctx, p, ofOther[2]) }, apierrors.IsUnauthorized, "")
	unaffected()
	// The API server keeps an answer for two minutes (--authentication-token-webhook-cache-ttl).
	t.Logf("a token whose answer the API server may have: %v", usedAs(t.Context(), p, ofOther[1]))
}
