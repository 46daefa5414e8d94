package e2e

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// keyWaits are the flags with short waits of a rotation, in which also a busy API server reads the keys
// anew.
func keyWaits() []string {
	return []string{"--publish-for=10s", "--refresh-hint=1s", "--discovery-max-age=1s", "--max-token-expiration=1h"}
}

// TestLongKeyRotation runs a whole rotation (publish, promote, retire, remove) with an API
// server that uses sakeeper signer, and a hundred clients that use and renew bound tokens.
// None is refused, even when the signer is killed in every phase.
func TestLongKeyRotation(t *testing.T) {
	for name, kill := range map[string]bool{"with a signer that runs": false, "with a signer that is killed in every phase": true} {
		t.Run(name, func(t *testing.T) { rotateWithoutRefusal(t, kill) })
	}
}

func rotateWithoutRefusal(t *testing.T, kill bool) {
	p := newSignedPlane(t)
	namespace := newNamespace(t, p.client)
	mustCreateAccount(t, p.client, namespace, "robot")
	const legacy = 10
	for i := range legacy {
		_, err := p.client.CoreV1().Secrets(namespace).Create(t.Context(), tokenSecret(robotSecret(i), "robot"), metav1.CreateOptions{})
		must(t, err)
	}
	old := p.signing(t)
	expectMetric(t, p.controllers, secretsOfKey(old[0], legacy))
	expectJWKS(t, p, old)

	clients := startBound(t, p.controlPlane, namespace, 100, kill)
	oldToken := clients.sample(t, old)
	stopKeeping := clients.keep(t)
	phase := func(name string) {
		t.Helper()
		if kill {
			p.restartSigner(t)
		}
		clients.expectProgress(t, name)
	}

	p.keys(t, "rotate", "key <id>: published")
	phase("published")
	expectJWKS(t, p, append(slices.Clone(old), p.published(t)...))
	p.keysWith(t, []string{"rotate", "--publish-for=1h"}, "nothing to do before")
	eventually(t, "the key was published long enough", func(context.Context) error { return p.tryKeys("rotate", "signs now") })
	phase("promoted and retired")
	current := p.signing(t)
	if current[0].ID() == old[0].ID() {
		t.Fatal("the old key signs")
	}
	clients.expectAll(t, current)
	expectMetric(t, p.controllers, secretsOfKey(current[0], legacy))
	if kill {
		p.restartSigner(t)
	}
	p.keysWith(t, []string{"prune", "--kubeconfig", p.admin}, "stays until")
	expectAccepted(t, p.controlPlane, oldToken)

	stopKeeping()
	if clients.kept.Load() < 100 {
		t.Errorf("only %d requests were made with tokens of the old key", clients.kept.Load())
	}
	p.pruneLater(t, 2*time.Hour)
	phase("removed")
	expectJWKS(t, p, current)
	eventually(t, "a token of the removed key is refused", func(ctx context.Context) error {
		if isAccepted(ctx, p.controlPlane, oldToken) {
			return errors.New("it is accepted")
		}
		return nil
	})
	clients.expectProgress(t, "at last")
	clients.stop()
	uses, renewals, refused, failed := clients.uses.Load(), clients.renewals.Load(), clients.refused.Load(), clients.failed.Load()
	t.Logf("%d requests with %d tokens, %d of them with old ones: %d refused; %d TokenRequests failed", uses, renewals, clients.kept.Load(), refused, failed)
	if refused > 0 {
		t.Errorf("%d of %d requests were refused: %v", refused, uses, clients.errors)
	}
	if failed > 0 && !kill {
		t.Errorf("%d TokenRequests failed with a signer that ran", failed)
	}
}
