package servingcert

import (
	"context"
	"crypto/x509"
	"maps"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/ktesting"
	"k8s.io/utils/clock"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/sakeeper/sakeeper/pkg/servingcert/pki"
	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/testkit/leaks"
)

func TestMain(m *testing.M) { leaks.Main(m) }

const (
	namespace  = "sakeeper-system"
	secretName = "sakeeper-webhook-certificates"
	configName = "sakeeper-webhook"
	host       = "sakeeper-webhook.sakeeper-system.svc"
	day        = 24 * time.Hour
)

// pairs compares by certificate.
var pairs = cmp.Options{
	cmp.Comparer(func(a, b pki.Pair) bool { return a.String() == b.String() }),
	cmp.Comparer((*x509.Certificate).Equal),
	cmp.AllowUnexported(contents{}),
}

func mustCA(t testing.TB, at time.Time) pki.Pair {
	t.Helper()
	ca, err := pki.NewCA(at)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func mustIssue(t testing.TB, ca pki.Pair, at time.Time, hosts ...string) pki.Pair {
	t.Helper()
	pair, err := ca.Issue(hosts, at)
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

// made are the contents after a first start at that time.
func made(t testing.TB, at time.Time) contents {
	t.Helper()
	ca := mustCA(t, at)
	return contents{ca: ca, serving: mustIssue(t, ca, at, host)}
}

func mustData(t testing.TB, c contents) map[string][]byte {
	t.Helper()
	data, err := c.data()
	if err != nil {
		t.Fatal(err)
	}
	maps.DeleteFunc(data, func(_ string, value []byte) bool { return len(value) == 0 })
	return data
}

// secretOf is the Secret with those contents.
func secretOf(t testing.TB, c contents, opts ...testkit.Option) *corev1.Secret {
	t.Helper()
	secret := testkit.Secret(namespace+"/"+secretName, opts...)
	secret.Type = SecretType
	if secret.Data == nil {
		secret.Data = map[string][]byte{}
	}
	maps.Copy(secret.Data, mustData(t, c))
	return secret
}

// meta is the metadata of a configuration.
func meta() metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: configName, UID: testkit.OtherUID, ResourceVersion: testkit.ResourceVersion}
}

func service() admissionregistrationv1.WebhookClientConfig {
	return admissionregistrationv1.WebhookClientConfig{
		Service: &admissionregistrationv1.ServiceReference{Namespace: namespace, Name: "sakeeper-webhook", Path: new("/mutate/pods")},
	}
}

// mutating has a webhook that calls host for each bundle.
func mutating(bundles ...[]byte) *admissionregistrationv1.MutatingWebhookConfiguration {
	c := &admissionregistrationv1.MutatingWebhookConfiguration{ObjectMeta: meta()}
	for i, bundle := range bundles {
		w := admissionregistrationv1.MutatingWebhook{Name: string('a'+rune(i)) + ".sakeeper.io", ClientConfig: service()}
		w.ClientConfig.CABundle = bundle
		c.Webhooks = append(c.Webhooks, w)
	}
	return c
}

func validating(bundles ...[]byte) *admissionregistrationv1.ValidatingWebhookConfiguration {
	c := &admissionregistrationv1.ValidatingWebhookConfiguration{ObjectMeta: meta()}
	for i, bundle := range bundles {
		w := admissionregistrationv1.ValidatingWebhook{Name: string('a'+rune(i)) + ".sakeeper.io", ClientConfig: service()}
		w.ClientConfig.CABundle = bundle
		c.Webhooks = append(c.Webhooks, w)
	}
	return c
}

// fixture is a controller whose caches are filled by hand.
type fixture struct {
	*Controller
	client   *fake.Clientset
	recorder *record.FakeRecorder
	registry *prometheus.Registry
	clock    *clocktesting.FakePassiveClock
}

// newFixture answers every write with answer, and every read with the Secret in
// cached.
func newFixture(t *testing.T, answer error, cached ...metav1.Object) fixture {
	t.Helper()
	f := fixture{client: &fake.Clientset{}, clock: clocktesting.NewFakePassiveClock(testkit.Instant())}
	f.Controller, f.recorder, f.registry = newController(t, f.client, f.clock)
	f.recorder.IncludeObject = true
	var live *corev1.Secret
	for _, obj := range cached {
		var err error
		switch o := obj.(type) {
		case *corev1.Secret:
			live = o
			err = f.cfg.Secrets.GetStore().Add(newSecret(o.DeepCopy()))
		case *admissionregistrationv1.MutatingWebhookConfiguration:
			err = f.cfg.Mutating.GetStore().Add(reduceMutating(o))
		case *admissionregistrationv1.ValidatingWebhookConfiguration:
			err = f.cfg.Validating.GetStore().Add(reduceValidating(o))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	f.client.AddReactor("get", "secrets", func(clienttesting.Action) (bool, runtime.Object, error) {
		if live == nil {
			return true, nil, testkit.NotFound()
		}
		return true, live, nil
	})
	f.client.AddReactor("*", "*", func(action clienttesting.Action) (bool, runtime.Object, error) {
		switch action.GetResource().Resource {
		case "secrets":
			return true, &corev1.Secret{}, answer
		case "mutatingwebhookconfigurations":
			return true, &admissionregistrationv1.MutatingWebhookConfiguration{}, answer
		default:
			return true, &admissionregistrationv1.ValidatingWebhookConfiguration{}, answer
		}
	})
	return f
}

func newController(t *testing.T, client *fake.Clientset, clk clock.PassiveClock) (*Controller, *record.FakeRecorder, *prometheus.Registry) {
	t.Helper()
	recorder, registry := record.NewFakeRecorder(100), prometheus.NewRegistry()
	c, err := New(newConfig(t, client, clk, recorder, registry))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // shuts the queue down if no test ran it
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = c.Run(ctx)
	})
	return c, recorder, registry
}

func newConfig(t *testing.T, client *fake.Clientset, clk clock.PassiveClock, recorder record.EventRecorder, registry prometheus.Registerer) Config {
	t.Helper()
	cfg := Config{
		Client: client.CoreV1(), Configurations: client.AdmissionregistrationV1(),
		SecretName:   toolscache.ObjectName{Namespace: namespace, Name: secretName},
		MutatingName: configName, ValidatingName: configName,
		Hosts: []string{host}, Recorder: recorder, Clock: clk, Registerer: registry,
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var err error
	cfg.Secrets, err = Secrets(client, cfg.SecretName)
	must(err)
	cfg.Mutating, err = Mutating(client, configName)
	must(err)
	cfg.Validating, err = Validating(client, configName)
	must(err)
	return cfg
}

func newContext(t *testing.T) context.Context {
	t.Helper()
	return klog.NewContext(t.Context(), ktesting.NewLogger(t, ktesting.NewConfig(ktesting.Verbosity(10))))
}
