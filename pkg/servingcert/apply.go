package servingcert

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/internal/workqueue"
)

const (
	// rewarn is how often people are told of what goes on.
	rewarn = time.Hour
	// limit writes to one object within window are taken for a quarrel: from then on there
	// is one in each interval.
	limit    = 5
	window   = 10 * time.Minute
	interval = time.Minute
	// lag is how long a cache is given to show what was read live.
	lag = time.Second
)

// writeSecret does to the Secret what was decided. Where it returns neither a duration
// nor an error, the Secret is not what is in the cache any more.
func (c *Controller) writeSecret(ctx context.Context, s state, p plan) (time.Duration, error) {
	if wait := c.paced(ctx, s, c.secretLabel()); wait > 0 {
		return wait, nil
	}
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
		c.writes.wrote(c.secretLabel(), s.now)
		c.metrics.secretWrites.WithLabelValues(string(p.act)).Inc()
		klog.FromContext(ctx).Info("Changed the certificates", "action", p.act, "reason", p.reason, "ca", next.ca.String(), "next", next.next.String(), "serving", next.serving.String())
		c.cfg.Recorder.Eventf(c.reference(), corev1.EventTypeNormal, api.ReasonChangedCertificates, "%s, because %s", did(p.act), p.reason)
		return 0, nil
	case apierrors.IsConflict(err), apierrors.IsNotFound(err):
		c.writes.wrote(c.secretLabel(), s.now) // a quarrel may be made of conflicts
		return lag, nil                        // most likely another replica was faster: what it wrote will be seen
	}
	return 0, c.refused(ctx, fmt.Errorf("write secret %s: %w", c.cfg.SecretName, err))
}

func (c *Controller) update(ctx context.Context, found *Secret, data map[string][]byte) error {
	secret := found.DeepCopy()
	if secret.Data == nil {
		secret.Data = map[string][]byte{}
	}
	set(secret, data)
	_, err := c.cfg.Client.Secrets(secret.Namespace).Update(ctx, secret, metav1.UpdateOptions{})
	return err
}

func set(secret *corev1.Secret, data map[string][]byte) {
	for key, value := range data {
		if len(value) == 0 {
			delete(secret.Data, key)
		} else {
			secret.Data[key] = value
		}
	}
}

// writeBundles gives every configuration that lacks it the bundle.
func (c *Controller) writeBundles(ctx context.Context, s state, p plan) (time.Duration, error) {
	var again time.Duration
	var now []repair
	for _, r := range p.repairs {
		if wait := c.paced(ctx, s, r.configuration.String()); wait > 0 {
			again = soonest(wait, again)
		} else {
			now = append(now, r)
		}
	}
	if len(now) == 0 {
		return again, nil
	}
	// The version of a configuration does not tell whether the Secret that the bundle
	// comes from is still the one: another replica may just have put a CA in both.
	live, err := c.cfg.Client.Secrets(s.found.Namespace).Get(ctx, s.found.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return lag, nil
	case err != nil:
		return 0, fmt.Errorf("get secret %s: %w", c.cfg.SecretName, withhold(err))
	case live.UID != s.found.UID, live.ResourceVersion != s.found.ResourceVersion:
		return lag, nil
	}
	var errs error
	for _, r := range now {
		wait, err := c.writeBundle(ctx, s, r, p.bundle)
		if wait > 0 {
			again = soonest(wait, again)
		}
		errs = errors.Join(errs, err)
	}
	return again, errs
}

func (c *Controller) writeBundle(ctx context.Context, s state, r repair, bundle []byte) (time.Duration, error) {
	patch, err := bundlePatch(r, bundle)
	if err != nil {
		return 0, err
	}
	// Strategic: the list of webhooks is merged by name, and what this build does not
	// know of them stays.
	name := r.configuration.Name
	if r.configuration.Kind == kindMutating {
		_, err = c.cfg.Configurations.MutatingWebhookConfigurations().Patch(ctx, name, types.StrategicMergePatchType, patch, metav1.PatchOptions{})
	} else {
		_, err = c.cfg.Configurations.ValidatingWebhookConfigurations().Patch(ctx, name, types.StrategicMergePatchType, patch, metav1.PatchOptions{})
	}
	switch {
	case err == nil:
		c.writes.wrote(r.configuration.String(), s.now)
		c.metrics.bundleWrites.WithLabelValues(r.configuration.Kind).Inc()
		klog.FromContext(ctx).Info("Published the CA bundle", "kind", r.configuration.Kind, "configuration", name, "webhooks", r.webhooks)
		c.cfg.Recorder.Eventf(c.reference(), corev1.EventTypeNormal, api.ReasonPublishedCABundle, "Set the caBundle of %s in %s", strings.Join(r.webhooks, ", "), r.configuration)
		return 0, nil
	case apierrors.IsConflict(err):
		c.writes.wrote(r.configuration.String(), s.now)
		return lag, nil // it changed; but not every conflict has an event behind it
	case apierrors.IsNotFound(err):
		return 0, nil // it went: its event decides anew
	}
	return 0, c.refused(ctx, fmt.Errorf("patch %s: %w", r.configuration, err))
}

func bundlePatch(r repair, bundle []byte) ([]byte, error) {
	var webhooks []any
	for _, name := range r.webhooks {
		webhooks = append(webhooks, map[string]any{"name": name, "clientConfig": map[string]any{"caBundle": bundle}})
	}
	return json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": r.configuration.UID, "resourceVersion": r.configuration.ResourceVersion},
		"webhooks": webhooks,
	})
}

// paced returns how long a write must wait because there were too many, and tells
// people of that.
func (c *Controller) paced(ctx context.Context, s state, what string) time.Duration {
	wait := c.writes.wait(what, s.now)
	if wait > 0 {
		c.warn(ctx, s, api.ReasonWritesUndone, "Somebody keeps undoing what is written to "+what+", such as a tool that knows another caBundle, or a replica whose clock is wrong. It is written once a minute")
	}
	return wait
}

// brake remembers when objects were written, and slows down where it is too often.
type brake map[string][]time.Time

// wait is how long what must not be written.
func (b brake) wait(what string, now time.Time) time.Duration {
	var recent []time.Time
	for _, at := range b[what] {
		if ago := now.Sub(at); ago >= 0 && ago < window { // the clock may have been set back
			recent = append(recent, at)
		}
	}
	b[what] = recent
	if len(recent) < limit {
		return 0
	}
	return max(0, interval-now.Sub(recent[len(recent)-1]))
}

func (b brake) wrote(what string, now time.Time) { b[what] = append(b[what], now) }

// complain tells people what only they can mend.
func (c *Controller) complain(ctx context.Context, s state, p plan) {
	switch {
	case s.found == nil:
		c.warn(ctx, s, api.ReasonSecretMissing, "The webhook cannot keep its certificates: "+missing(s))
	case p.act == refuse:
		c.warn(ctx, s, api.ReasonSecretNotOurs, "The webhook cannot keep its certificates in this secret: "+p.reason+". Delete it and apply the manifests of the webhook again, or name another one")
	case p.act == keep && p.reason == reasonClockBehind:
		c.warn(ctx, s, api.ReasonClockBehind, "A replica of the webhook makes no certificates: "+p.reason)
	}
}

func (c *Controller) warn(ctx context.Context, s state, reason, text string) {
	if last, ok := c.warnings[text]; ok && s.now.Sub(last).Abs() < rewarn {
		return
	}
	c.warnings[text] = s.now
	klog.FromContext(ctx).Info("Warned of the certificates", "reason", reason, "warning", text)
	c.cfg.Recorder.Eventf(c.reference(), corev1.EventTypeWarning, reason, "%s", text)
}

// refused tells people of a refusal that only they can lift, and returns err.
func (c *Controller) refused(ctx context.Context, err error) error {
	err = withhold(err)
	if (apierrors.IsInvalid(err) || apierrors.IsForbidden(err)) && workqueue.Report(ctx) {
		c.cfg.Recorder.Eventf(c.reference(), corev1.EventTypeWarning, api.ReasonFailedWrite, "The API server refuses to %v", err)
	}
	return err
}

// withhold replaces an error that quotes PEM, which may be a private key: policies may
// put what they were shown into their words.
func withhold(err error) error {
	const encoded = "LS0tLS1CRUdJTi" // "-----BEGIN " in base64
	if text := err.Error(); !strings.Contains(text, "-----BEGIN") && !strings.Contains(text, encoded) {
		return err
	}
	return fmt.Errorf("write refused as %s, in words that are withheld because they quote a certificate or key", apierrors.ReasonForError(err))
}

func did(act action) string {
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

func (c *Controller) reference() *corev1.ObjectReference {
	return &corev1.ObjectReference{Kind: "Secret", APIVersion: "v1", Namespace: c.cfg.SecretName.Namespace, Name: c.cfg.SecretName.Name}
}
