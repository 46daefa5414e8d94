package signingkey

import (
	"context"
	"errors"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"

	"github.com/sakeeper/sakeeper/pkg/api"
)

// report sets the metric, and logs and records what is new. Only read calls it.
func (c *Check) report(ctx context.Context, keyID string, last answer) {
	problem, notServed := refusal(keyID, last), errors.Is(last.err, errNotServed)
	result := "published"
	switch {
	case notServed:
		result = "not_served"
	case problem != nil && last.err == nil:
		result = "not_published"
	case problem != nil:
		result = "no_answer"
	}
	for _, other := range []string{"published", "not_published", "not_served", "no_answer"} {
		value := 0.0
		if other == result {
			value = 1
		}
		c.result.WithLabelValues(other).Set(value)
	}
	said := result + " " + keyID
	if said == c.reported {
		return
	}
	c.reported = said
	logger := klog.FromContext(ctx)
	switch {
	case notServed:
		logger.Error(last.err, "Could not check the signing key", "keyID", keyID)
		if !c.reportedNotServed {
			c.reportedNotServed = true
			c.cfg.Recorder.Event(c.cfg.Process, corev1.EventTypeWarning, api.ReasonSigningKeyUnchecked,
				"The API server does not serve its keys at "+path+": whether it knows the signing key could not be checked, and tokens are written all the same")
		}
	case problem == nil:
		logger.Info("The API server publishes the signing key", "keyID", keyID)
	case last.err != nil:
		logger.Error(problem, "The signing key is not checked yet")
	default:
		logger.Error(problem, "The API server does not publish the signing key", "unverified", c.cfg.Unverified)
		if !c.cfg.Unverified {
			c.cfg.Recorder.Eventf(c.cfg.Process, corev1.EventTypeWarning, api.ReasonSigningKeyNotPublished,
				"No tokens are written: %v. Add the key to --service-account-key-file of the API server, give the controllers a key that is there, or use --signing-key-unverified if the API server accepts it", problem)
		}
	}
}
