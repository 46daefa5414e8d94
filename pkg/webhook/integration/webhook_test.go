package integration

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/sakeeper/sakeeper/pkg/servingcert"
	"github.com/sakeeper/sakeeper/pkg/servingcert/pki"
	"github.com/sakeeper/sakeeper/pkg/testkit"
)

const day = 24 * time.Hour

// secretData is what a webhook writes to its Secret at that time.
func secretData(t *testing.T, at, servingAt time.Time) map[string][]byte {
	t.Helper()
	ca, err := pki.NewCA(at)
	must(t, err)
	serving, err := ca.Issue([]string{address}, servingAt)
	must(t, err)
	data := map[string][]byte{}
	data["ca.crt"], data["ca.key"], err = ca.Encode()
	must(t, err)
	data["tls.crt"], data["tls.key"], err = serving.Encode()
	must(t, err)
	return data
}

// expectOneCertificate expects all replicas to serve the certificate in the Secret.
func expectOneCertificate(t *testing.T, s *site, replicas ...*replica) {
	t.Helper()
	secret := s.secret()
	stored, err := pki.ParsePair(secret.Data["tls.crt"], secret.Data["tls.key"])
	must(t, err)
	eventually(t, "one certificate", func(context.Context) error {
		for i, r := range replicas {
			found, err := r.GetCertificate(nil)
			if err != nil {
				return err
			}
			if !found.Leaf.Equal(stored.Cert()) {
				return fmt.Errorf("replica %d serves %x, and %v is stored", i, found.Leaf.SerialNumber, stored)
			}
		}
		return nil
	})
}

func TestReplicasThatStartTogetherEndWithOneCA(t *testing.T) {
	s := newSite(t)
	replicas := make([]*replica, 4)
	var all sync.WaitGroup
	for i := range replicas {
		all.Go(func() { replicas[i] = s.start(clock.RealClock{}) })
	}
	all.Wait()
	if t.Failed() {
		return
	}
	eventually(t, "a CA", func(context.Context) error {
		if len(s.secret().Data["ca.crt"]) == 0 {
			return errors.New("the secret is empty")
		}
		return nil
	})
	if replicas[0].Ready() == nil {
		t.Error("ready without configurations")
	}
	s.configure(replicas[0], replicas[1])
	for _, r := range replicas {
		eventually(t, "ready", r.ready)
	}
	expectOneCertificate(t, s, replicas...)
	if secret := s.secret(); secret.Type != servingcert.SecretType {
		t.Errorf("type %s", secret.Type)
	}
	got, err := s.bundles(t.Context())
	must(t, err)
	want := string(s.secret().Data["ca.crt"])
	if diff := cmp.Diff([2]string{want, want}, got); diff != "" {
		t.Errorf("bundles (-want +got):\n%s", diff)
	}
	eventually(t, "a call", s.call)
	if replicas[0].calls.Load() == 0 || replicas[1].calls.Load() == 0 {
		t.Error("a replica was not called")
	}
	updated := 0
	for _, r := range s.requests() {
		if r.Verb == "create" && r.Object.Resource == "secrets" {
			t.Errorf("created: %s", r.URI)
		}
		if r.Verb == "update" && r.Response.Code < 400 {
			updated++
		}
	}
	if updated != 1 {
		t.Errorf("the secret was written %d times", updated)
	}
}

func TestAWipedBundleComesBack(t *testing.T) {
	s := newSite(t)
	first, second := s.start(clock.RealClock{}), s.start(clock.RealClock{})
	s.configure(first, second)
	eventually(t, "ready", first.ready)
	eventually(t, "ready", second.ready)
	mutatings := shared.Client.AdmissionregistrationV1().MutatingWebhookConfigurations()
	validatings := shared.Client.AdmissionregistrationV1().ValidatingWebhookConfigurations()
	before, err := mutatings.Get(t.Context(), s.name, metav1.GetOptions{})
	must(t, err)
	want, err := s.bundles(t.Context())
	must(t, err)

	for what, bundle := range map[string]string{"wiped": "null", "another CA": fmt.Sprintf("%q", base64.StdEncoding.EncodeToString(testkit.OtherBundle().PEM()))} {
		wipe := fmt.Appendf(nil, `{"webhooks":[{"name":"b.ours.example","clientConfig":{"caBundle":%s}}]}`, bundle)
		spoiled, err := mutatings.Patch(t.Context(), s.name, types.StrategicMergePatchType, wipe, metav1.PatchOptions{})
		must(t, err)
		if bytes.Equal(spoiled.Webhooks[1].ClientConfig.CABundle, before.Webhooks[1].ClientConfig.CABundle) {
			t.Fatal("nothing was spoiled")
		}
		_, err = validatings.Patch(t.Context(), s.name, types.StrategicMergePatchType, wipe, metav1.PatchOptions{})
		must(t, err)
		eventually(t, what, func(ctx context.Context) error {
			got, err := s.bundles(ctx)
			if err == nil && got != want {
				err = errors.New("bundles differ")
			}
			return err
		})
		eventually(t, "ready", first.ready)
		eventually(t, "a call", s.call)
	}
	after, err := mutatings.Get(t.Context(), s.name, metav1.GetOptions{})
	must(t, err)
	if diff := cmp.Diff(before.Webhooks, after.Webhooks); diff != "" {
		t.Errorf("webhooks (-before +after):\n%s", diff)
	}
}

func TestAWebhookOfAnotherOwnerIsNotTouched(t *testing.T) {
	s := newSite(t)
	r := s.start(clock.RealClock{})
	s.configure(r, r)
	eventually(t, "ready", r.ready)
	found, err := shared.Client.AdmissionregistrationV1().MutatingWebhookConfigurations().Get(t.Context(), s.name, metav1.GetOptions{})
	must(t, err)
	if diff := cmp.Diff(string(testkit.Bundle().PEM()), string(found.Webhooks[0].ClientConfig.CABundle)); diff != "" {
		t.Errorf("other webhook (-want +got):\n%s", diff)
	}
}

// TestAnExpiredCertificateIsReplaced begins with a certificate from two years ago and a replica
// whose clock shows that time, so that the API server refuses its certificate.
func TestAnExpiredCertificateIsReplaced(t *testing.T) {
	s := newSite(t)
	then := time.Now().Add(-2 * 365 * day)
	s.put(secretData(t, then, then), servingcert.SecretType)
	past := s.start(clocktesting.NewFakePassiveClock(then))
	s.configure(past, past)
	eventually(t, "published", func(ctx context.Context) error {
		bundles, err := s.bundles(ctx)
		if err == nil && (bundles[0] == "" || bundles[1] == "") {
			err = errors.New("not yet")
		}
		return err
	})
	eventually(t, "a refusal", func(ctx context.Context) error {
		if err := s.call(ctx); err == nil || !strings.Contains(err.Error(), "expired") {
			return fmt.Errorf("called: %w", err)
		}
		return nil
	})
	expired := s.secret()

	now := s.start(clock.RealClock{})
	eventually(t, "ready", now.ready)
	eventually(t, "a call to the replica whose clock is still wrong", s.call)
	expectOneCertificate(t, s, now, past)
	if bytes.Equal(expired.Data["ca.crt"], s.secret().Data["ca.crt"]) || past.calls.Load() == 0 {
		t.Error("the expired CA is still there")
	}
}

func TestGarbageIsRepairedButNotInASecretOfAnotherType(t *testing.T) {
	for what, garbage := range map[string]map[string][]byte{
		"nothing": nil,
		"garbage": {"ca.crt": []byte("garbage"), "tls.key": []byte("garbage"), "next-ca.crt": []byte("garbage"), "old-ca.crt": []byte("garbage")},
		"a CA alone": func() map[string][]byte {
			data := secretData(t, time.Now(), time.Now())
			delete(data, "tls.key")
			return data
		}(),
	} {
		t.Run(what, func(t *testing.T) {
			s := newSite(t)
			s.put(garbage, servingcert.SecretType)
			r := s.start(clock.RealClock{})
			s.configure(r, r)
			eventually(t, "ready", r.ready)
			eventually(t, "a call", s.call)
		})
	}
	t.Run("another type", func(t *testing.T) {
		s := newSite(t)
		s.put(secretData(t, time.Now(), time.Now()), corev1.SecretTypeTLS)
		before := s.secret()
		r := s.start(clock.RealClock{})
		s.configure(r, r)
		eventually(t, "a refusal", func(context.Context) error {
			if err := r.Ready(); err == nil || !strings.Contains(err.Error(), `its type is "kubernetes.io/tls"`) {
				return fmt.Errorf("ready: %w", err)
			}
			return nil
		})
		if events := testkit.Events(r.recorder); len(events) != 1 || !strings.HasPrefix(events[0], "Warning SecretNotOurs ") {
			t.Errorf("events %q", events)
		}
		if diff := cmp.Diff(before, s.secret()); diff != "" {
			t.Errorf("the secret changed (-before +after):\n%s", diff)
		}
	})
}

// TestARotationFailsNoCall has the API server call all the time while the CA changes, and while
// the clock of one replica is set before that of the other.
func TestARotationFailsNoCall(t *testing.T) {
	s := newSite(t)
	began := time.Now()
	s.put(secretData(t, began.Add(-250*day), began), servingcert.SecretType)
	// Each replica has a clock of its own. The API server has the real one.
	clocks := []*clocktesting.FakePassiveClock{clocktesting.NewFakePassiveClock(began), clocktesting.NewFakePassiveClock(began)}
	first, second := s.start(clocks[0]), s.start(clocks[1])
	s.configure(first, second)
	eventually(t, "ready", first.ready)
	eventually(t, "ready", second.ready)
	eventually(t, "a call", s.call)

	ctx, cancel := context.WithCancel(t.Context())
	var made atomic.Int64
	calls := make(chan error, 1)
	go func() {
		var err error
		for ; ctx.Err() == nil && err == nil; made.Add(1) {
			err = s.call(context.WithoutCancel(ctx))
		}
		calls <- err
	}()
	someCalls := func() {
		t.Helper()
		before := made.Load()
		eventually(t, "some calls", func(context.Context) error {
			if n := made.Load() - before; n < 10 {
				return fmt.Errorf("%d calls", n)
			}
			return nil
		})
	}
	eventually(t, "the next CA", func(context.Context) error {
		if len(s.secret().Data["next-ca.crt"]) == 0 {
			return errors.New("there is none")
		}
		return nil
	})
	old, next := s.secret().Data["ca.crt"], s.secret().Data["next-ca.crt"]
	eventually(t, "both CAs", func(ctx context.Context) error {
		bundles, err := s.bundles(ctx)
		for _, b := range bundles {
			if err == nil && (!strings.Contains(b, string(old)) || !strings.Contains(b, string(next))) {
				err = errors.New("one is missing")
			}
		}
		return err
	})
	published, err := s.bundles(t.Context())
	must(t, err)
	expectOneCertificate(t, s, first, second)
	someCalls()
	for i, clk := range clocks {
		clk.SetTime(began.Add(time.Duration(11+i) * time.Minute))
	}
	s.touch() // a new time alone makes no event
	eventually(t, "the switch", func(context.Context) error {
		if !bytes.Equal(s.secret().Data["ca.crt"], next) {
			return errors.New("the old CA signs")
		}
		return nil
	})
	expectOneCertificate(t, s, first, second)
	secret := s.secret()
	serving, err := pki.ParsePair(secret.Data["tls.crt"], secret.Data["tls.key"])
	must(t, err)
	if !serving.TrustedBy(next, address, time.Now()) || serving.TrustedBy(old, address, time.Now()) {
		t.Error("the next CA did not sign what is served")
	}
	if !bytes.Equal(secret.Data["old-ca.crt"], old) || len(secret.Data["next-ca.crt"]) > 0 {
		t.Error("the old CA is not kept")
	}
	got, err := s.bundles(t.Context())
	must(t, err)
	if diff := cmp.Diff(published, got); diff != "" {
		t.Errorf("the switch changed the bundles (-want +got):\n%s", diff)
	}
	someCalls()
	cancel()
	if err := <-calls; err != nil {
		t.Errorf("call %d: %v", made.Load(), err)
	}
	t.Logf("%d calls while the CA changed", made.Load())
}

// touch makes an event of the Secret. Call it once: writes to a Secret that keeps changing
// conflict, and are slowed down.
func (s *site) touch() {
	patch := fmt.Appendf(nil, `{"metadata":{"annotations":{"touched":%q}}}`, time.Now())
	if _, err := shared.Client.CoreV1().Secrets(s.name).Patch(s.t.Context(), s.name, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		s.t.Error(err)
	}
}

func TestWebhooksWorkAfterARestartOfTheAPIServer(t *testing.T) {
	s := newSite(t)
	first, second := s.start(clock.RealClock{}), s.start(clock.RealClock{})
	s.configure(first, second)
	eventually(t, "ready", first.ready)
	eventually(t, "ready", second.ready)
	eventually(t, "a call", s.call)

	s.restarts = true
	must(t, shared.KillServer())
	if err := first.Ready(); err != nil {
		t.Errorf("while the API server is down: %v", err)
	}
	must(t, shared.StartServer(t.Context()))
	eventually(t, "a call", s.call)

	want, err := s.bundles(t.Context())
	must(t, err)
	wipe := []byte(`{"webhooks":[{"name":"b.ours.example","clientConfig":{"caBundle":null}}]}`)
	_, err = shared.Client.AdmissionregistrationV1().ValidatingWebhookConfigurations().Patch(t.Context(), s.name, types.StrategicMergePatchType, wipe, metav1.PatchOptions{})
	must(t, err)
	eventually(t, "the bundle", func(ctx context.Context) error {
		got, err := s.bundles(ctx)
		if err == nil && got != want {
			err = errors.New("bundles differ")
		}
		return err
	})
	s.put(nil, servingcert.SecretType)
	eventually(t, "a new CA", func(ctx context.Context) error {
		got, err := s.bundles(ctx)
		if err == nil && (got[0] == want[0] || got[1] == want[1]) {
			err = errors.New("the old one")
		}
		return err
	})
	eventually(t, "a call", s.call)
	expectOneCertificate(t, s, first, second)
}

// TestReplicasThatStartBeforeTheAPIServer wait for it.
func TestReplicasThatStartBeforeTheAPIServer(t *testing.T) {
	s := newSite(t)
	s.restarts = true
	must(t, shared.KillServer())
	r := s.start(clock.RealClock{})
	if r.Ready() == nil {
		t.Error("ready")
	}
	must(t, shared.StartServer(t.Context()))
	s.configure(r, r)
	eventually(t, "ready", r.ready)
	eventually(t, "a call", s.call)
}
