package servingcert

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"sigs.k8s.io/yaml"

	"github.com/sakeeper/sakeeper/pkg/api"
)

const (
	// fillDelay is how long this process must have been ready before it fills in a list of
	// webhooks: kubelets, endpoint slices and proxies learn of a ready pod with a delay, and
	// until then calls would fail.
	fillDelay = 10 * time.Second
	// servingInterval is the time between syncs while a list waits until this process is ready.
	servingInterval = time.Second
)

// mustFill returns true if the list of webhooks is empty, or was filled in from another value of
// the annotation. A list that a user wrote is kept, and so are a user's changes to a list.
func (c *Configuration) mustFill() bool {
	return c.List != "" && (len(c.Webhooks) == 0 || c.FilledFrom != "" && c.FilledFrom != c.listHash())
}

// listHash is the value of [api.FilledWebhooksAnnotation] for this list.
func (c *Configuration) listHash() string {
	sum := sha256.Sum256([]byte(c.List))
	return hex.EncodeToString(sum[:8])
}

// parseList returns the webhooks in the annotation, with the bundle. They are not typed, so that
// fields which this build does not know are kept. All of them must call one of hosts.
func (c *Configuration) parseList(hosts []string, bundle []byte) ([]map[string]any, error) {
	var webhooks []map[string]any
	if err := yaml.Unmarshal([]byte(c.List), &webhooks); err != nil {
		return nil, fmt.Errorf("it is not a list of webhooks: %w", err)
	}
	if len(webhooks) == 0 {
		return nil, errors.New("the list is empty")
	}
	for _, w := range webhooks {
		var client admissionregistrationv1.WebhookClientConfig
		encoded, err := json.Marshal(w["clientConfig"])
		if err == nil {
			err = json.Unmarshal(encoded, &client)
		}
		config, ok := w["clientConfig"].(map[string]any)
		if err != nil || !ok || !slices.Contains(hosts, hostOf(&client)) {
			return nil, fmt.Errorf("webhook %v does not call %s", w["name"], strings.Join(hosts, ", "))
		}
		config["caBundle"] = bundle
	}
	return webhooks, nil
}

// checkLists returns what is wrong with the annotations of lists that are to be filled in, and which
// configurations have no list at all.
func checkLists(s state) []string {
	var problems []string
	for _, c := range s.configurations {
		if c.List == "" && len(c.Webhooks) == 0 {
			problems = append(problems, fmt.Sprintf("%s: it has no webhooks and no annotation %s, so that API servers do not call this webhook; apply its manifests again", c, api.WebhooksAnnotation))
		}
		if !c.mustFill() {
			continue
		}
		if _, err := c.parseList(s.hosts, nil); err != nil {
			problems = append(problems, fmt.Sprintf("%s: its annotation %s cannot be used: %v", c, api.WebhooksAnnotation, err))
		}
	}
	return problems
}

// fillDelayed returns how long a list must wait to be filled in; zero: there is none that waits.
func fillDelayed(s state) time.Duration {
	if !slices.ContainsFunc(s.configurations, (*Configuration).mustFill) {
		return 0
	}
	return fillWait(s)
}

// fillWait returns how long this process must go on being ready before it fills in a list.
func fillWait(s state) time.Duration {
	if s.readySince.IsZero() {
		return servingInterval
	}
	return max(0, fillDelay-s.now.Sub(s.readySince))
}

// observeReady returns since when this process has been ready; zero: it is not.
func (c *Controller) observeReady(now time.Time) time.Time {
	switch {
	case c.Ready() != nil, c.cfg.Serving != nil && !c.cfg.Serving():
		c.readySince = time.Time{}
	case c.readySince.IsZero(), now.Before(c.readySince): // the clock may have been set back
		c.readySince = now
	}
	return c.readySince
}
