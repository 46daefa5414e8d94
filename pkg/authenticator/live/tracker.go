package live

import (
	"context"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"github.com/sakeeper/sakeeper/pkg/authenticator"
	"github.com/sakeeper/sakeeper/pkg/kube"
	"github.com/sakeeper/sakeeper/pkg/token"
)

// Tracker records the day of the last use of legacy tokens in a label of their Secrets
// (KEP-2799), once a day for each. Token reviews never wait for it.
type Tracker struct {
	secrets typedcorev1.SecretsGetter
	clock   clock.PassiveClock
	used    chan authenticator.Secret
}

// NewTracker returns a tracker that writes nothing before Run.
func NewTracker(secrets typedcorev1.SecretsGetter, clock clock.PassiveClock) *Tracker {
	return &Tracker{secrets: secrets, clock: clock, used: make(chan authenticator.Secret, 1000)}
}

// Used is for [authenticator.Config.Used]. A use that does not fit in the queue of 1000 is dropped:
// the next use of that token records the day as well. It is safe for concurrent use.
func (t *Tracker) Used(secret authenticator.Secret) {
	if !t.due(secret) {
		return
	}
	select {
	case t.used <- secret:
	default:
	}
}

const dayLayout = "2006-01-02"

// due returns true if the label holds neither today nor tomorrow: the clock of another writer may
// be ahead.
func (t *Tracker) due(secret authenticator.Secret) bool {
	now := t.clock.Now().UTC()
	last := secret.GetLabels()[token.LastUsedLabel]
	return last != now.Format(dayLayout) && last != now.AddDate(0, 0, 1).Format(dayLayout)
}

// Run writes until ctx ends, and returns nil. Call it once.
func (t *Tracker) Run(ctx context.Context) error {
	recorded := map[types.UID]string{} // the caches may not show a label yet
	for {
		select {
		case <-ctx.Done():
			return nil
		case secret := <-t.used:
			today := t.clock.Now().UTC().Format(dayLayout)
			if recorded[secret.GetUID()] == today {
				continue
			}
			if len(recorded) > 10000 {
				clear(recorded)
			}
			if t.record(ctx, secret, today) {
				recorded[secret.GetUID()] = today
			}
		}
	}
}

func (t *Tracker) record(ctx context.Context, secret authenticator.Secret, today string) bool {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	logger := klog.FromContext(ctx)
	patch, err := kube.MergePatch(secret, map[string]any{"metadata": map[string]any{"labels": map[string]string{token.LastUsedLabel: today}}})
	if err == nil {
		_, err = t.secrets.Secrets(secret.GetNamespace()).Patch(ctx, secret.GetName(), types.MergePatchType, patch, metav1.PatchOptions{})
	}
	switch {
	case apierrors.IsConflict(err), apierrors.IsNotFound(err): // the next use reads the Secret anew
		return false
	case err != nil:
		logger.Error(kube.Redact(err), "Failed to record the use of a token", "secret", klog.KObj(secret))
		return false
	}
	logger.V(2).Info("Recorded the use of a token", "secret", klog.KObj(secret), "day", today)
	return true
}
