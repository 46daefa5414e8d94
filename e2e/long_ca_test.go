package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
)

// TestLongCAChangeInManyNamespaces has subtests that build on each other.
func TestLongCAChangeInManyNamespaces(t *testing.T) {
	// inFlight is the number of workers of both controllers, each of which may have a request
	// in flight.
	const namespaces, secrets, inFlight = 2000, 1000, 20
	p := newControlPlane(t)
	args := p.sakeeperArgs(t, "--leader-elect=false")
	s := startReadySakeeper(t, args)
	populate(t, p, 0, namespaces, secrets)
	before := withoutCA(t, tokenSecrets(t, p))
	if len(before) != secrets {
		t.Fatalf("%d token secrets, want %d", len(before), secrets)
	}
	objects := namespaces + namespacesAtFirst + secrets
	bundle := slices.Clone(p.Admin.CAData)

	t.Run("everything gets it with one request each", func(t *testing.T) {
		bundle = append(bundle, mustCACertificate(t, "second")...)
		mark, began := mustMark(t, p.ControlPlane), time.Now()
		mustReplace(t, p.CAFile, bundle)
		expectEverywhere(t, p, bundle)
		t.Logf("%d objects got the new CA within %v", objects, time.Since(began).Round(time.Millisecond))

		expectRest(t, p)
		asked := changes(t, p, mark)
		for object, n := range asked {
			if n != 1 {
				t.Errorf("%d requests to change %s", n, object)
			}
		}
		if len(asked) != objects {
			t.Errorf("%d objects were changed, want %d", len(asked), objects)
		}
	})

	t.Run("a process that is killed half way leaves the rest to the next", func(t *testing.T) {
		bundle = append(bundle, mustCACertificate(t, "third")...)
		mark := mustMark(t, p.ControlPlane)
		mustReplace(t, p.CAFile, bundle)
		eventuallyIn(t, patience, "a third of the changes", func(context.Context) error {
			if n := len(changes(t, p, mark)); n < objects/3 {
				return fmt.Errorf("%d of %d", n, objects)
			}
			return nil
		})
		must(t, s.Signal(syscall.SIGKILL))
		_ = s.Wait() // it was killed
		first := len(changes(t, p, mark))
		if first >= objects-objects/10 {
			t.Fatalf("%d of %d objects were changed before the kill: the test did not test a resumption", first, objects)
		}

		startReadySakeeper(t, args)
		expectEverywhere(t, p, bundle)
		expectRest(t, p)
		total := 0
		asked := changes(t, p, mark)
		for object, n := range asked {
			total += n
			if n > 2 {
				t.Errorf("%d requests to change %s", n, object)
			}
		}
		t.Logf("%d of %d objects were changed before the kill, %d were asked for twice", first, objects, total-objects)
		if len(asked) != objects || total > objects+inFlight {
			t.Errorf("%d requests changed %d objects, want %d, and no more twice than were under way", total, len(asked), objects)
		}
	})

	if diff := cmp.Diff(before, withoutCA(t, tokenSecrets(t, p))); diff != "" {
		t.Errorf("more than ca.crt changed (-want +got):\n%s", tail(diff, 2000))
	}
}

// namespacesAtFirst is the number of namespaces of a new control plane: those that the API
// server creates, and that of sakeeper.
const namespacesAtFirst = 5

func populated(i int) string { return fmt.Sprintf("n%04d", i) }

// populate creates namespaces with the numbers from and up, and a token Secret in each of the
// first ones, and waits until the controllers have handled them.
func populate(t *testing.T, p controlPlane, from, namespaces, secrets int) {
	t.Helper()
	core := p.client.CoreV1()
	forEach(t, namespaces, func(ctx context.Context, i int) error {
		_, err := core.Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: populated(from + i)}}, metav1.CreateOptions{})
		return err
	})
	eventuallyIn(t, 2*time.Minute, "default accounts and config maps", func(ctx context.Context) error {
		accounts, err := core.ServiceAccounts("").List(ctx, metav1.ListOptions{FieldSelector: "metadata.name=default"})
		if err != nil {
			return err
		}
		configMaps, err := core.ConfigMaps("").List(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + api.RootCAConfigMap})
		if want := from + namespaces + namespacesAtFirst; err == nil && (len(accounts.Items) < want || len(configMaps.Items) < want) {
			return fmt.Errorf("%d accounts and %d config maps, want %d", len(accounts.Items), len(configMaps.Items), want)
		}
		return err
	})
	forEach(t, secrets, func(ctx context.Context, i int) error {
		_, err := core.Secrets(populated(from+i)).Create(ctx, tokenSecret("token", "default"), metav1.CreateOptions{})
		return err
	})
	eventuallyIn(t, 2*time.Minute, "filled secrets", func(context.Context) error {
		for name, secret := range tokenSecrets(t, p) {
			if len(secret.Data[corev1.ServiceAccountTokenKey]) == 0 {
				return fmt.Errorf("%s has no token", name)
			}
		}
		return nil
	})
}

// eventuallyIn is eventually with a timeout of its own and a longer interval, for expensive
// checks.
func eventuallyIn(t *testing.T, d time.Duration, what string, check func(ctx context.Context) error) {
	t.Helper()
	testkit.Await(t, 200*time.Millisecond, d, what, check)
}

// tokenSecrets are all token Secrets by namespace and name.
func tokenSecrets(t *testing.T, p controlPlane) map[string]corev1.Secret {
	t.Helper()
	list, err := p.client.CoreV1().Secrets("").List(t.Context(), metav1.ListOptions{FieldSelector: "type=" + string(corev1.SecretTypeServiceAccountToken)})
	must(t, err)
	secrets := map[string]corev1.Secret{}
	for _, secret := range list.Items {
		secrets[secret.Namespace+"/"+secret.Name] = secret
	}
	return secrets
}

// withoutCA removes from secrets ca.crt and the fields that every write changes.
func withoutCA(t *testing.T, secrets map[string]corev1.Secret) map[string]corev1.Secret {
	t.Helper()
	for name, secret := range secrets {
		secret.ResourceVersion, secret.ManagedFields = "", nil
		delete(secret.Data, corev1.ServiceAccountRootCAKey)
		secrets[name] = secret
	}
	return secrets
}

// expectEverywhere waits until every root CA config map and token Secret has ca.
func expectEverywhere(t *testing.T, p controlPlane, ca []byte) {
	t.Helper()
	eventuallyIn(t, 2*time.Minute, "CA everywhere", func(ctx context.Context) error {
		configMaps, err := p.client.CoreV1().ConfigMaps("").List(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + api.RootCAConfigMap})
		if err != nil {
			return err
		}
		for _, cm := range configMaps.Items {
			if cm.Data[corev1.ServiceAccountRootCAKey] != string(ca) {
				return fmt.Errorf("config map of %s has another", cm.Namespace)
			}
		}
		for name, secret := range tokenSecrets(t, p) {
			if string(secret.Data[corev1.ServiceAccountRootCAKey]) != string(ca) {
				return fmt.Errorf("secret %s has another", name)
			}
		}
		return nil
	})
}

const restNamespacePrefix = "t-" // that of newNamespace

// expectRest waits until sakeeper has handled the watch events of its own writes. For that it
// creates a namespace, which changes ignores, and waits until sakeeper has handled it.
func expectRest(t *testing.T, p controlPlane) {
	t.Helper()
	newNamespace(t, p.client)
}

// changes counts the attempts of sakeeper since mark to change root CA ConfigMaps and token
// Secrets, by object.
func changes(t *testing.T, p controlPlane, mark controlplane.Mark) map[string]int {
	t.Helper()
	counts := map[string]int{}
	for _, r := range requests(t, p.ControlPlane, mark, "") {
		reads := r.Verb == "get" || r.Verb == "list" || r.Object.Resource == "tokenreviews"
		if !reads && !strings.HasPrefix(r.Object.Namespace, restNamespacePrefix) {
			counts[r.Object.Resource+" "+r.Object.Namespace+"/"+r.Object.Name]++
		}
	}
	return counts
}

// mustCACertificate returns a new CA certificate.
func mustCACertificate(t *testing.T, name string) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}
