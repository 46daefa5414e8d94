package servingcert

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/utils/clock"

	"github.com/sakeeper/sakeeper/pkg/servingcert/pki"
	"github.com/sakeeper/sakeeper/pkg/testkit"
)

// life is a controller with its informers against a fake API server.
type life struct {
	*Controller
	t      *testing.T
	client *fake.Clientset
}

func (l life) start(ctx context.Context) (stop func()) {
	return testkit.Start(ctx, l.t, l.Run, testkit.Informer(l.cfg.Secrets), testkit.Informer(l.cfg.Mutating), testkit.Informer(l.cfg.Validating))
}

// expectWrites expects these writes since the last call.
func (l life) expectWrites(step string, want ...string) {
	l.t.Helper()
	time.Sleep(5 * time.Second)
	synctest.Wait()
	var got []string
	for _, a := range l.client.Actions() {
		write := a.GetVerb() + " " + a.GetResource().Resource
		switch a.GetVerb() {
		case "get", "list", "watch":
		case "patch":
			// A patch may be sent again before its event; a real API server refuses the second.
			if slices.Contains(got, write) {
				continue
			}
			fallthrough
		default:
			got = append(got, write)
		}
	}
	l.client.ClearActions()
	if diff := cmp.Diff(want, got, cmpopts.SortSlices(func(a, b string) bool { return a < b })); diff != "" {
		l.t.Errorf("%s (-want +got):\n%s", step, diff)
	}
}

// contents are those of the Secret.
func (l life) contents() contents {
	l.t.Helper()
	secret, err := l.client.CoreV1().Secrets(namespace).Get(l.t.Context(), secretName, metav1.GetOptions{})
	if err != nil {
		l.t.Fatal(err)
	}
	return parse(secret.Data)
}

// expectTrust expects that the certificate in the Secret is served, and trusted.
func (l life) expectTrust(step string) {
	l.t.Helper()
	found, err := l.GetCertificate(nil)
	stored := l.contents()
	if err != nil {
		l.t.Fatal(err)
	}
	if !found.Leaf.Equal(stored.serving.Cert()) {
		l.t.Errorf("%s: serves %x, and %v is stored", step, found.Leaf.SerialNumber, stored.serving)
	}
	if err := l.Ready(); err != nil {
		l.t.Errorf("%s: %v", step, err)
	}
	configuration, err := l.client.AdmissionregistrationV1().ValidatingWebhookConfigurations().Get(l.t.Context(), configName, metav1.GetOptions{})
	if err != nil {
		l.t.Fatal(err)
	}
	if diff := cmp.Diff(string(stored.bundle()), string(configuration.Webhooks[0].ClientConfig.CABundle)); diff != "" {
		l.t.Errorf("%s: bundle (-want +got):\n%s", step, diff)
	}
}

func must[T any](t *testing.T) func(T, error) {
	return func(_ T, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := newContext(t)
		l := life{t: t, client: fake.NewClientset()}
		l.Controller, _, _ = newController(t, l.client, clock.RealClock{})
		defer l.start(ctx)()
		secrets := l.client.CoreV1().Secrets(namespace)
		mutatings, validatings := l.client.AdmissionregistrationV1().MutatingWebhookConfigurations(), l.client.AdmissionregistrationV1().ValidatingWebhookConfigurations()
		const secret, mutatingOne, validatingOne = "secrets", "mutatingwebhookconfigurations", "validatingwebhookconfigurations"

		l.expectWrites("there is no secret")
		if err := l.Ready(); err == nil || err.Error() != absent {
			t.Errorf("ready without a secret: %v", err)
		}
		now := func(o metav1.Object) { o.SetCreationTimestamp(metav1.Now()) } // which is long before the fixtures' instant
		install := func() {
			t.Helper()
			must[*corev1.Secret](t)(secrets.Create(ctx, secretOf(t, contents{}, now), metav1.CreateOptions{}))
		}
		install()
		l.expectWrites("the secret came", "create "+secret, "update "+secret)
		if l.Ready() == nil {
			t.Error("ready without configurations")
		}
		must[*admissionregistrationv1.MutatingWebhookConfiguration](t)(mutatings.Create(ctx, mutating(nil), metav1.CreateOptions{}))
		must[*admissionregistrationv1.ValidatingWebhookConfiguration](t)(validatings.Create(ctx, validating(nil), metav1.CreateOptions{}))
		l.expectWrites("configurations came", "create "+mutatingOne, "create "+validatingOne, "patch "+mutatingOne, "patch "+validatingOne)
		l.expectTrust("configurations came")

		must[*admissionregistrationv1.ValidatingWebhookConfiguration](t)(validatings.Update(ctx, validating(nil), metav1.UpdateOptions{}))
		l.expectWrites("a bundle was wiped", "update "+validatingOne, "patch "+validatingOne)
		l.expectTrust("a bundle was wiped")

		time.Sleep(10 * time.Minute) // so many writes would be delayed
		must[any](t)(nil, secrets.Delete(ctx, secretName, metav1.DeleteOptions{}))
		l.expectWrites("the secret was deleted", "delete "+secret)
		if err := l.Ready(); err != nil {
			t.Errorf("without the secret, the served certificate is trusted, but %v", err)
		}
		install()
		l.expectWrites("the secret came back", "create "+secret, "update "+secret, "patch "+mutatingOne, "patch "+validatingOne)
		l.expectTrust("the secret came back")

		time.Sleep(10 * time.Minute)
		garbage := secretOf(t, contents{}, testkit.WithData(keyCA, "garbage"), now)
		must[*corev1.Secret](t)(secrets.Update(ctx, garbage, metav1.UpdateOptions{}))
		l.expectWrites("the secret was spoiled", "update "+secret, "update "+secret, "patch "+mutatingOne, "patch "+validatingOne)
		l.expectTrust("the secret was spoiled")

		time.Sleep(10 * time.Minute)
		due := made(t, time.Now().Add(-250*day))
		due.serving = mustIssue(t, due.ca, time.Now(), host)
		must[*corev1.Secret](t)(secrets.Update(ctx, secretOf(t, due, now), metav1.UpdateOptions{}))
		l.expectWrites("the CA is due", "update "+secret, "update "+secret, "patch "+mutatingOne, "patch "+validatingOne)
		l.expectTrust("the CA is due")
		staged := l.contents()
		if staged.ca.String() != due.ca.String() || staged.serving.String() != due.serving.String() || !staged.next.IsCA() {
			t.Errorf("staged %v", staged)
		}
		time.Sleep(publishFor - 15*time.Second) // syncs that are due at the same second come in any order
		l.expectWrites("the next CA is being published")
		time.Sleep(resyncInterval)
		l.expectWrites("the next CA takes over", "update "+secret)
		l.expectTrust("the next CA takes over")
		if c := l.contents(); c.ca.String() != staged.next.String() || len(c.old) != 1 || !c.old[0].Equal(due.ca.Cert()) {
			t.Errorf("promoted %v", c)
		}

		must[any](t)(nil, mutatings.Delete(ctx, configName, metav1.DeleteOptions{}))
		l.expectWrites("a configuration went", "delete "+mutatingOne)
		l.expectTrust("a configuration went")
		time.Sleep(day)
		l.expectWrites("a day went by")
	})
}

// settable is a clock that can be set.
type settable struct{ ahead atomic.Int64 }

func (s *settable) Now() time.Time                  { return time.Now().Add(time.Duration(s.ahead.Load())) }
func (s *settable) Since(t time.Time) time.Duration { return time.Since(t) }

// TestAClockThatIsSet causes a sync within seconds.
func TestAClockThatIsSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, clock := life{t: t, client: fake.NewClientset(
			secretOf(t, contents{}, func(o metav1.Object) { o.SetCreationTimestamp(metav1.Now()) }), mutating(nil), validating(nil),
		)}, &settable{}
		l.Controller, _, _ = newController(t, l.client, clock)
		defer l.start(newContext(t))()
		time.Sleep(time.Minute)
		l.client.ClearActions()
		l.expectTrust("at first")

		clock.ahead.Store(int64(pki.ServingLifetime + day)) // as after a sleep of the machine
		time.Sleep(10 * time.Second)
		l.expectWrites("the certificate expired meanwhile", "update secrets")
		l.expectTrust("the certificate expired meanwhile")

		clock.ahead.Store(-int64(365 * day)) // as after a reset of its clock
		time.Sleep(10 * time.Second)
		l.expectWrites("a clock that is behind makes nothing")
		if l.Ready() == nil {
			t.Error("ready, with a certificate that is not valid yet")
		}
		clock.ahead.Store(int64(pki.ServingLifetime + 2*day))
		time.Sleep(10 * time.Second)
		l.expectWrites("a clock that is right again")
		l.expectTrust("a clock that is right again")
	})
}

// TestAClockFarAheadReplacesNothing: the response to a read sets the clock before anything is
// replaced.
func TestAClockFarAheadReplacesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, clock := life{t: t, client: fake.NewClientset(
			secretOf(t, contents{}, func(o metav1.Object) { o.SetCreationTimestamp(metav1.Now()) }), mutating(nil), validating(nil),
		)}, &settable{}
		l.Controller, _, _ = newController(t, l.client, clock)
		defer l.start(newContext(t))()
		time.Sleep(time.Minute)
		l.client.ClearActions()
		l.expectTrust("at first")
		before := l.contents().serving.String()

		l.client.PrependReactor("get", "secrets", func(clienttesting.Action) (bool, runtime.Object, error) {
			clock.ahead.Store(0) // as the header Date of a response does
			return false, nil, nil
		})
		for _, ahead := range []time.Duration{pki.ServingLifetime, pki.ServingLifetime + day, 300 * day, 400 * day, 4000 * day} {
			clock.ahead.Store(int64(ahead))
			time.Sleep(10 * time.Second)
			l.expectWrites("a clock that is ahead by " + ahead.String())
			l.expectTrust("a clock that is ahead by " + ahead.String())
		}
		if got := l.contents().serving.String(); got != before {
			t.Errorf("serving %s, and before %s", got, before)
		}
	})
}

// TestOnlyOneObjectIsFetched of each kind: RBAC by name allows no other request.
func TestOnlyOneObjectIsFetched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := life{t: t, client: fake.NewClientset()}
		l.Controller, _, _ = newController(t, l.client, clock.RealClock{})
		stop := l.start(newContext(t))
		time.Sleep(time.Second)
		stop()
		seen := map[string]bool{}
		for _, action := range l.client.Actions() {
			var selector string
			switch a := action.(type) {
			case interface{ GetListOptions() metav1.ListOptions }:
				selector = a.GetListOptions().FieldSelector
			case interface{ GetWatchOptions() metav1.ListOptions }:
				selector = a.GetWatchOptions().FieldSelector
			default:
				continue
			}
			seen[action.GetVerb()+" "+action.GetResource().Resource+" in "+action.GetNamespace()+" "+selector] = true
		}
		want := map[string]bool{}
		for resource, name := range map[string]string{
			"secrets in " + namespace: secretName, "mutatingwebhookconfigurations in ": configName, "validatingwebhookconfigurations in ": configName,
		} {
			want["list "+resource+" metadata.name="+name] = true
			want["watch "+resource+" metadata.name="+name] = true
		}
		if diff := cmp.Diff(want, seen); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
	})
}

func TestNothingIsWrittenBeforeAllCachesAreSynced(t *testing.T) {
	cases := map[string]func(*Controller) []toolscache.SharedIndexInformer{
		"without the secret": func(c *Controller) []toolscache.SharedIndexInformer {
			return []toolscache.SharedIndexInformer{c.cfg.Mutating, c.cfg.Validating}
		},
		"without the mutating": func(c *Controller) []toolscache.SharedIndexInformer {
			return []toolscache.SharedIndexInformer{c.cfg.Secrets, c.cfg.Validating}
		},
		"without the validating": func(c *Controller) []toolscache.SharedIndexInformer {
			return []toolscache.SharedIndexInformer{c.cfg.Secrets, c.cfg.Mutating}
		},
	}
	client := fake.NewClientset()
	for name, informers := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := life{t: t, client: client}
				l.Controller, _, _ = newController(t, l.client, clock.RealClock{})
				run := []func(context.Context) error{l.Run}
				for _, informer := range informers(l.Controller) {
					run = append(run, testkit.Informer(informer))
				}
				defer testkit.Start(newContext(t), t, run...)()
				l.expectWrites("nothing")
			})
		})
	}
}
