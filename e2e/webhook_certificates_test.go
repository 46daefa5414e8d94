package e2e

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sakeeper/sakeeper/pkg/servingcert"
	"github.com/sakeeper/sakeeper/pkg/servingcert/pki"
	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
)

const certificateSecret = "sakeeper-webhook-certificates"

// newTeam creates a namespace with the account "default", because no controller runs.
func newTeam(t *testing.T, p controlPlane, name string) string {
	t.Helper()
	_, err := p.client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	must(t, err)
	mustCreateAccount(t, p.client, name, "default")
	return name
}

func mustAuthority(t *testing.T, now time.Time) pki.Pair {
	t.Helper()
	ca, err := pki.NewCA(now)
	must(t, err)
	return ca
}

// mustServe creates a serving certificate for this machine.
func mustServe(t *testing.T, ca pki.Pair, now time.Time) pki.Pair {
	t.Helper()
	pair, err := ca.Issue([]string{"127.0.0.1"}, now)
	must(t, err)
	return pair
}

func mustEncode(t *testing.T, p pki.Pair) (cert, key []byte) {
	t.Helper()
	cert, key, err := p.Encode()
	must(t, err)
	return cert, key
}

// mustWritePair writes the certificate and key files of the flags.
func mustWritePair(t *testing.T, dir string, p pki.Pair) (certFile, keyFile string) {
	t.Helper()
	cert, key := mustEncode(t, p)
	certFile, keyFile = filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	must(t, os.WriteFile(certFile, cert, 0o600))
	must(t, os.WriteFile(keyFile, key, 0o600))
	return certFile, keyFile
}

// mustTrust sets the caBundle of the configurations, as an admin with an own certificate does.
func mustTrust(t *testing.T, p controlPlane, bundle []byte) {
	t.Helper()
	patch := fmt.Appendf(nil, `[{"op":"add","path":"/webhooks/0/clientConfig/caBundle","value":%q}]`, base64.StdEncoding.EncodeToString(bundle))
	api := p.client.AdmissionregistrationV1()
	_, err := api.MutatingWebhookConfigurations().Patch(t.Context(), "sakeeper-webhook", types.JSONPatchType, patch, metav1.PatchOptions{})
	must(t, err)
	_, err = api.ValidatingWebhookConfigurations().Patch(t.Context(), "sakeeper-webhook", types.JSONPatchType, patch, metav1.PatchOptions{})
	must(t, err)
}

// mustSpoil overwrites the certificates in the Secret of the webhook.
func mustSpoil(t *testing.T, p controlPlane, ca, serving pki.Pair) {
	t.Helper()
	secrets := p.client.CoreV1().Secrets(controlplane.Namespace)
	secret, err := secrets.Get(t.Context(), certificateSecret, metav1.GetOptions{})
	must(t, err)
	secret.Data["ca.crt"], secret.Data["ca.key"] = mustEncode(t, ca)
	secret.Data[corev1.TLSCertKey], secret.Data[corev1.TLSPrivateKeyKey] = mustEncode(t, serving)
	_, err = secrets.Update(t.Context(), secret, metav1.UpdateOptions{})
	must(t, err)
}

// expectRenewed waits until the Secret has another, valid certificate, and returns its CA.
func expectRenewed(t *testing.T, p controlPlane, spoilt pki.Pair) pki.Pair {
	t.Helper()
	var ca pki.Pair
	eventually(t, "another certificate", func(ctx context.Context) error {
		secret, err := p.client.CoreV1().Secrets(controlplane.Namespace).Get(ctx, certificateSecret, metav1.GetOptions{})
		if err != nil {
			return err
		}
		serving, err := pki.ParsePair(secret.Data[corev1.TLSCertKey], secret.Data[corev1.TLSPrivateKeyKey])
		if err != nil {
			return err
		}
		if ca, err = pki.ParsePair(secret.Data["ca.crt"], secret.Data["ca.key"]); err != nil {
			return err
		}
		switch {
		case serving.String() == spoilt.String():
			return errors.New("the Secret still holds the old one")
		case !serving.TrustedBy(pki.Bundle(ca.Cert()), "127.0.0.1", time.Now()):
			return errors.New("its own CA does not vouch for it now")
		case secret.Type != servingcert.SecretType:
			return fmt.Errorf("the Secret is of type %q", secret.Type)
		}
		return nil
	})
	return ca
}

// TestExpiredCertificatesAreReplaced has subtests that build on each other.
func TestExpiredCertificatesAreReplaced(t *testing.T) {
	p := newControlPlane(t)
	namespace := newTeam(t, p, "team")
	w, s := startWebhook(t, p, "-v=10")
	expectToken(t, expectAdmitted(t, p.client, namespace, "first"))
	before := expectRenewed(t, p, pki.Pair{})

	// Only the serving certificate, which expired an hour ago.
	spoilt := mustServe(t, before, time.Now().Add(-pki.ServingLifetime-time.Hour))
	mustSpoil(t, p, before, spoilt)
	if after := expectRenewed(t, p, spoilt); after.String() != before.String() {
		t.Errorf("the CA %s became %s, though it was good", before, after)
	}
	expectToken(t, expectAdmitted(t, p.client, namespace, "after-the-certificate"))

	// Both, while no webhook runs, as after a long stop.
	must(t, s.Stop())
	longAgo := time.Now().Add(-pki.CALifetime - time.Hour)
	ca := mustAuthority(t, longAgo)
	spoilt = mustServe(t, ca, longAgo)
	mustSpoil(t, p, ca, spoilt)
	mustTrust(t, p, pki.Bundle(ca.Cert()))
	startReadySakeeper(t, p.webhookArgs(t, w, "-v=10"))
	if after := expectRenewed(t, p, spoilt); after.String() == ca.String() {
		t.Errorf("the CA %s expired and is still used", ca)
	}
	expectToken(t, expectAdmitted(t, p.client, namespace, "after-the-ca"))
}

// served is the serial number of the serving certificate of a webhook.
func served(ctx context.Context, w controlplane.Webhook, bundle []byte) (string, error) {
	roots, err := poolOf(bundle)
	if err != nil {
		return "", err
	}
	dialer := &tls.Dialer{Config: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}
	conn, err := dialer.DialContext(ctx, "tcp", w.Address)
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close() }()
	shaken, ok := conn.(*tls.Conn)
	if !ok {
		return "", fmt.Errorf("a %T", conn)
	}
	return shaken.ConnectionState().PeerCertificates[0].SerialNumber.String(), nil
}

func TestCertificateFilesAreReadAgain(t *testing.T) {
	p := newControlPlane(t)
	namespace := newTeam(t, p, "team")
	w, err := controlplane.NewWebhook()
	must(t, err)
	must(t, p.InstallWebhook(t.Context(), w))
	first, second := mustAuthority(t, time.Now()), mustAuthority(t, time.Now())
	bundle := pki.Bundle(first.Cert(), second.Cert())
	certFile, keyFile := mustWritePair(t, t.TempDir(), mustServe(t, first, time.Now()))
	mark := mustMark(t, p.ControlPlane)
	mustTrust(t, p, bundle)
	s := startReadySakeeper(t, p.webhookArgs(t, w, "--tls-cert-file", certFile, "--tls-private-key-file", keyFile, "-v=10"))
	expectToken(t, expectAdmitted(t, p.client, namespace, "first"))

	// A certificate without its key changes nothing, and is reported.
	old, err := served(t.Context(), w, bundle)
	must(t, err)
	next := mustServe(t, second, time.Now())
	cert, key := mustEncode(t, next)
	mustReplace(t, certFile, cert)
	eventually(t, "a word on the files", func(context.Context) error { return contains(s.Logs(), "private key does not match public key") })
	expectWebhookEvent(t, p, "ReloadFailed", "The last good certificate stays in use: ")
	if _, metrics, err := s.Get(t.Context(), "/metrics"); err != nil || contains(metrics, `sakeeper_reload_failures_total{source="certificate"} 1`) != nil {
		t.Errorf("half of a swap was not counted, error %v", err)
	}
	if now, err := served(t.Context(), w, bundle); err != nil || now != old {
		t.Errorf("after half of a swap it serves %s, error %v; want %s", now, err, old)
	}
	mustReplace(t, keyFile, key)
	eventually(t, "the new certificate", func(ctx context.Context) error {
		now, err := served(ctx, w, bundle)
		if err == nil && now != next.Cert().SerialNumber.String() {
			err = fmt.Errorf("it serves %s", now)
		}
		return err
	})
	// The API server trusts only the new one, so the webhook must serve it.
	mustTrust(t, p, pki.Bundle(second.Cert()))
	expectToken(t, expectAdmitted(t, p.client, namespace, "second"))

	// With certificate files, the admin sets the caBundle too.
	writes, err := p.Audit.Since(t.Context(), mark, func(r controlplane.Request) bool {
		return r.User.Username == webhookUser && r.Object.Resource != "events" && r.Verb != "get" && r.Verb != "list" && r.Verb != "watch"
	})
	must(t, err)
	if len(writes) > 0 {
		t.Errorf("the webhook wrote: %v", controlplane.Count(writes))
	}
}
