package servingcert

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/internal/workqueue"
	"github.com/sakeeper/sakeeper/pkg/kube"
)

const (
	// warningInterval is the shortest time between two equal warnings.
	warningInterval = time.Hour
	// urgentInterval is the shortest time between two writes to a configuration that trusts only
	// another certificate. Such writes are not delayed for longer, because all calls fail meanwhile.
	urgentInterval = 100 * time.Millisecond
	// cacheLag is how long a cache may take to show what was read from the API server.
	cacheLag = time.Second
)

// writeSecret changes the Secret as decided. If it returns neither a duration nor an error, the
// Secret was written, and the caches are stale.
func (c *Controller) writeSecret(ctx context.Context, s state, p plan) (time.Duration, error) {
	next, err := s.contents.change(p.act, p.hosts, s.now)
	if err != nil {
		return 0, err
	}
	data, err := next.data()
	if err != nil {
		return 0, err
	}
	err = c.update(ctx, s.found, data)
	switch {
	case err == nil:
		c.backoff.Record(c.secretLabel(), "")
		c.metrics.secretWrites.WithLabelValues(string(p.act)).Inc()
		klog.FromContext(ctx).Info("Changed the certificates", "action", p.act, "reason", p.reason, "ca", next.ca.String(), "next", next.next.String(), "serving", next.serving.String())
		c.cfg.Recorder.Eventf(c.reference(), corev1.EventTypeNormal, api.ReasonChangedCertificates, "%s, because %s", describe(p.act), p.reason)
		return 0, nil
	case apierrors.IsConflict(err), apierrors.IsNotFound(err):
		c.backoff.Record(c.secretLabel(), "") // a client that reverts writes may cause conflicts only
		return cacheLag, nil                  // most likely another replica was faster, and its write is an event
	}
	return 0, c.handleAPIError(ctx, fmt.Errorf("write secret %s: %w", c.cfg.SecretName, err))
}

func (c *Controller) update(ctx context.Context, found *Secret, data map[string][]byte) error {
	secret := found.DeepCopy()
	if secret.Data == nil {
		secret.Data = map[string][]byte{}
	}
	setData(secret, data)
	_, err := c.cfg.Client.Secrets(secret.Namespace).Update(ctx, secret, metav1.UpdateOptions{})
	return err
}

func setData(secret *corev1.Secret, data map[string][]byte) {
	for key, value := range data {
		if len(value) == 0 {
			delete(secret.Data, key)
		} else {
			secret.Data[key] = value
		}
	}
}

// writeBundles writes to every configuration what it needs.
func (c *Controller) writeBundles(ctx context.Context, s state, p plan) (time.Duration, error) {
	var requeueAfter time.Duration
	var now []repair
	for _, r := range p.repairs {
		if wait := c.repairDelay(ctx, s, r, p.bundle); wait > 0 {
			requeueAfter = shortest(wait, requeueAfter)
		} else {
			now = append(now, r)
		}
	}
	if len(now) == 0 {
		return requeueAfter, nil
	}
	// The resourceVersion of a configuration does not guard against a stale Secret: another
	// replica may just have written a new CA to both.
	live, err := c.cfg.Client.Secrets(s.found.Namespace).Get(ctx, s.found.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return cacheLag, nil
	case err != nil:
		return 0, fmt.Errorf("get secret %s: %w", c.cfg.SecretName, redact(err))
	case live.UID != s.found.UID, live.ResourceVersion != s.found.ResourceVersion:
		return cacheLag, nil
	}
	var errs error
	for _, r := range now {
		wait, err := c.writeBundle(ctx, s, r, p.bundle)
		if wait > 0 {
			requeueAfter = shortest(wait, requeueAfter)
		}
		errs = errors.Join(errs, err)
	}
	return requeueAfter, errs
}

func (c *Controller) writeBundle(ctx context.Context, s state, r repair, bundle []byte) (time.Duration, error) {
	kind, patch, err := r.patch(bundle)
	if err != nil {
		return 0, err
	}
	name := r.configuration.Name
	if r.configuration.Kind == kindMutating {
		_, err = c.cfg.Configurations.MutatingWebhookConfigurations().Patch(ctx, name, kind, patch, metav1.PatchOptions{})
	} else {
		_, err = c.cfg.Configurations.ValidatingWebhookConfigurations().Patch(ctx, name, kind, patch, metav1.PatchOptions{})
	}
	switch {
	case err == nil:
		c.recordRepair(s, r, bundle)
		c.metrics.bundleWrites.WithLabelValues(r.configuration.Kind).Inc()
		klog.FromContext(ctx).Info("Published the CA bundle", "kind", r.configuration.Kind, "configuration", name, "webhooks", r.webhooks, "filledIn", len(r.list))
		if r.list != nil {
			c.cfg.Recorder.Eventf(c.reference(), corev1.EventTypeNormal, api.ReasonFilledInWebhooks, "Filled in the webhooks of %s, which is called from now on", r.configuration)
		} else {
			c.cfg.Recorder.Eventf(c.reference(), corev1.EventTypeNormal, api.ReasonPublishedCABundle, "Set the caBundle of %s in %s", strings.Join(r.webhooks, ", "), r.configuration)
		}
		return 0, nil
	case apierrors.IsConflict(err):
		c.recordRepair(s, r, bundle)
		return cacheLag, nil // it changed, but a conflict is not always followed by an event
	case apierrors.IsNotFound(err):
		return 0, nil // it was deleted, which is an event
	}
	return 0, c.handleAPIError(ctx, fmt.Errorf("patch %s: %w", r.configuration, err))
}

// patch returns the patch that makes the repair, and its type.
func (r repair) patch(bundle []byte) (types.PatchType, []byte, error) {
	metadata := map[string]any{"uid": r.configuration.UID, "resourceVersion": r.configuration.ResourceVersion}
	if r.list != nil {
		metadata["annotations"] = map[string]any{api.FilledWebhooksAnnotation: r.configuration.listHash()}
		patch, err := json.Marshal(map[string]any{"metadata": metadata, "webhooks": r.list})
		return types.MergePatchType, patch, err // replaces the list
	}
	var webhooks []any
	for _, name := range r.webhooks {
		webhooks = append(webhooks, map[string]any{"name": name, "clientConfig": map[string]any{"caBundle": bundle}})
	}
	patch, err := json.Marshal(map[string]any{"metadata": metadata, "webhooks": webhooks})
	// It merges the list of webhooks by name, so that fields which this build does not know are kept.
	return types.StrategicMergePatchType, patch, err
}

// content identifies what the repair writes.
func (r repair) content(bundle []byte) string {
	sum := sha256.Sum256(bundle)
	content := hex.EncodeToString(sum[:])
	if r.list != nil {
		content += r.configuration.listHash()
	}
	return content
}

// recordRepair notes that r was written.
func (c *Controller) recordRepair(s state, r repair, bundle []byte) {
	c.backoff.Record(r.configuration.String(), r.content(bundle))
	c.repairedAt[r.configuration.String()] = s.now
}

// repairDelay returns how long r must not be written.
func (c *Controller) repairDelay(ctx context.Context, s state, r repair, bundle []byte) time.Duration {
	name := r.configuration.String()
	wait := c.writeDelay(ctx, s, name, r.content(bundle))
	if !r.urgent {
		return wait
	}
	if ago := s.now.Sub(c.repairedAt[name]); ago >= 0 && ago < urgentInterval { // the clock may have been set back
		return urgentInterval - ago
	}
	return 0
}

// writeDelay returns how long content must not be written to the object, because another client
// keeps reverting it, and records a warning about that.
func (c *Controller) writeDelay(ctx context.Context, s state, object, content string) time.Duration {
	decision := c.backoff.Allow(object, content)
	if decision.Warn {
		c.recordWarning(ctx, s, api.ReasonWritesUndone, "Another client keeps reverting "+object+", such as a tool with another caBundle, or a replica whose clock is wrong. It is written again ever more slowly; at most 10 times a second while calls of the webhook fail")
	}
	return decision.Wait
}

// recordWarnings records what only a user can correct.
func (c *Controller) recordWarnings(ctx context.Context, s state, p plan) {
	switch {
	case s.found == nil:
		c.recordWarning(ctx, s, api.ReasonSecretMissing, "The webhook cannot keep its certificates: "+missing(s))
	case p.act == refuse:
		c.recordWarning(ctx, s, api.ReasonSecretNotOurs, "The webhook cannot keep its certificates in this secret: "+p.reason+". Delete it and apply the manifests of the webhook again, or name another one")
	case p.act == keep && p.reason == reasonClockBehind:
		c.recordWarning(ctx, s, api.ReasonClockBehind, "A replica of the webhook makes no certificates: "+p.reason)
	}
	for _, problem := range p.badLists {
		c.recordWarning(ctx, s, api.ReasonInvalidWebhooks, "The list of webhooks is not filled in: "+problem)
	}
}

// recordWarning records an event, once an hour for the same text.
func (c *Controller) recordWarning(ctx context.Context, s state, reason, text string) {
	maps.DeleteFunc(c.warnings, func(_ string, last time.Time) bool { return s.now.Sub(last).Abs() >= warningInterval })
	if _, ok := c.warnings[text]; ok {
		return
	}
	c.warnings[text] = s.now
	klog.FromContext(ctx).Info("Recorded a warning", "reason", reason, "warning", text)
	c.cfg.Recorder.Eventf(c.reference(), corev1.EventTypeWarning, reason, "%s", text)
}

// handleAPIError returns err without key material, and records an event if only a user can
// correct its cause.
func (c *Controller) handleAPIError(ctx context.Context, err error) error {
	err = redact(err)
	if (apierrors.IsInvalid(err) || apierrors.IsForbidden(err)) && workqueue.Report(ctx) {
		c.cfg.Recorder.Eventf(c.reference(), corev1.EventTypeWarning, api.ReasonFailedWrite, "The API server refuses to %v", err)
	}
	return err
}

// redact replaces an error that quotes PEM, which may be a private key: the message of an
// admission policy may contain the object.
func redact(err error) error {
	const encoded = "LS0tLS1CRUdJTi" // "-----BEGIN " in base64
	if text := err.Error(); !strings.Contains(text, "-----BEGIN") && !strings.Contains(text, encoded) {
		return err
	}
	return fmt.Errorf("write refused as %s, with a message that is not shown because it quotes a certificate or key", apierrors.ReasonForError(err))
}

func describe(act action) string {
	switch act {
	case begin:
		return "Made a new CA and a serving certificate"
	case issue:
		return "Made a serving certificate"
	case stage:
		return "Made the next CA, which signs nothing yet"
	case promote:
		return "Made a serving certificate with the next CA"
	case prune:
		return "Dropped old CAs"
	default:
		return string(act)
	}
}

func (c *Controller) secretLabel() string { return "secret " + c.cfg.SecretName.String() }

func nameOf(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Name: name} }

// reference is the object of all events. It has no UID, because the Secret may not exist.
func (c *Controller) reference() *corev1.ObjectReference {
	return kube.Reference("Secret", &metav1.ObjectMeta{Namespace: c.cfg.SecretName.Namespace, Name: c.cfg.SecretName.Name})
}
