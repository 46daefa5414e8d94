package e2e

import (
	"context"
	"fmt"
	"os"
	"syscall"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"

	"github.com/sakeeper/sakeeper/e2e/behaviour"
)

// TestAnUpdateOnASharedPort replaces the process of a shared port five times, while 20 pods a
// second are created: at most 1 % of them are refused on a machine that is not busy.
func TestAnUpdateOnASharedPort(t *testing.T) {
	p := newControlPlane(t)
	namespace := newTeam(t, p, "team")
	const share = "--permit-port-sharing"
	w, running := startWebhook(t, p, share)
	expectToken(t, expectAdmitted(t, p.client, namespace, "first"))
	load := behaviour.StartLoad(t.Context(), p.client, namespace, 20)
	wait := func(pods int) {
		least := load.Count() + pods
		eventually(t, "more pods", func(context.Context) error {
			if n := load.Count(); n < least {
				return fmt.Errorf("%d of %d", n, least)
			}
			return nil
		})
	}
	for range 5 {
		next := startReadySakeeper(t, p.webhookArgs(t, w, share))
		wait(20)
		must(t, running.Signal(syscall.SIGTERM))
		must(t, running.Wait())
		wait(20)
		running = next
	}
	expectFewRefused(t, load.Stop(), 0.01)
}

// expectFewRefused prints the refused share of the pods, fails at ten times the promised one, and
// checks that all others have a token.
func expectFewRefused(t *testing.T, r behaviour.Result, promised float64) {
	t.Helper()
	t.Logf("%d pods were created and %d refused, %.2f %%, %d requests were not answered; the longest time without a pod was %v",
		r.Created, len(r.Refused), 100*r.RefusedShare(), len(r.Unreachable), r.LongestGap.Round(time.Millisecond))
	if r.RefusedShare() > 10*promised || r.WithoutToken > 0 || r.Created == 0 {
		t.Errorf("at most %.0f %% are promised to be refused, and %d pods have no token. Refused: %v", 100*promised, r.WithoutToken, r.Reasons())
	}
}

// TestLongReplacedConfigurations: a client replaces both configurations by ones without a caBundle
// every 3 s, for a minute or E2E_REPLACED, while 10 pods a second are created: fewer than 5 % are
// refused on a machine that is not busy.
func TestLongReplacedConfigurations(t *testing.T) {
	duration := time.Minute
	if text := os.Getenv("E2E_REPLACED"); text != "" {
		var err error
		duration, err = time.ParseDuration(text)
		must(t, err)
	}
	p := newControlPlane(t)
	namespace := newTeam(t, p, "team")
	startWebhook(t, p)
	expectToken(t, expectAdmitted(t, p.client, namespace, "first"))
	load := behaviour.StartLoad(t.Context(), p.client, namespace, 10)
	ticker := time.NewTicker(3 * time.Second)
	defer ticker.Stop()
	for end := time.Now().Add(duration); time.Now().Before(end); <-ticker.C {
		replaceConfigurations(t, p)
	}
	expectFewRefused(t, load.Stop(), 0.05)
}

// replaceConfigurations puts both configurations back without a caBundle, as a client does that
// applies manifests by PUT.
func replaceConfigurations(t *testing.T, p controlPlane) {
	t.Helper()
	mutating, validating := p.client.AdmissionregistrationV1().MutatingWebhookConfigurations(), p.client.AdmissionregistrationV1().ValidatingWebhookConfigurations()
	must(t, retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		c, err := mutating.Get(t.Context(), "sakeeper-webhook", metav1.GetOptions{})
		if err != nil {
			return err
		}
		c.Webhooks[0].ClientConfig.CABundle = nil
		_, err = mutating.Update(t.Context(), c, metav1.UpdateOptions{})
		return err
	}))
	must(t, retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		c, err := validating.Get(t.Context(), "sakeeper-webhook", metav1.GetOptions{})
		if err != nil {
			return err
		}
		c.Webhooks[0].ClientConfig.CABundle = nil
		_, err = validating.Update(t.Context(), c, metav1.UpdateOptions{})
		return err
	}))
}
