package tokensecret

import (
	"context"
	"slices"
	"time"

	toolscache "k8s.io/client-go/tools/cache"

	"github.com/sakeeper/sakeeper/pkg/cabundle"
	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/internal/workqueue"
	"github.com/sakeeper/sakeeper/pkg/internal/writebackoff"
	"github.com/sakeeper/sakeeper/pkg/kube"
)

const (
	// checksPerSecond and checksAtOnce limit reviews of tokens, each of which may cost the API
	// server a write of its own.
	checksPerSecond = 20
	checksAtOnce    = 100
	// defaultResignQPS is how many tokens are signed anew in a second.
	defaultResignQPS = 10
)

// limiters keep writes few: rate limiters for those that can wait, and write backoffs for those that
// another client keeps undoing.
type limiters struct {
	resigns, checks, doubted *workqueue.KeyedLimiter[toolscache.ObjectName]

	contents, deletions *writebackoff.Tracker[objectKey]
	// notes are apart, so that a client that removes them does not keep tokens from being written.
	notes *writebackoff.Tracker[objectKey]
	// refusals are repairs that the API server refused until a user changes something.
	refusals *writebackoff.Tracker[objectKey]
}

func newLimiters(cfg Config) limiters {
	return limiters{
		resigns:   workqueue.NewKeyedLimiter[toolscache.ObjectName](cfg.Clock, cfg.ResignQPS, 1),
		checks:    workqueue.NewKeyedLimiter[toolscache.ObjectName](cfg.Clock, checksPerSecond, checksAtOnce),
		doubted:   workqueue.NewKeyedLimiter[toolscache.ObjectName](cfg.Clock, doubtedDeletionsPerSecond, 1),
		contents:  writebackoff.New[objectKey]("secrets", cfg.Clock, cfg.Registerer),
		deletions: writebackoff.New[objectKey]("secret deletions", cfg.Clock, cfg.Registerer),
		notes:     writebackoff.New[objectKey]("review notes", cfg.Clock, cfg.Registerer),
		refusals:  writebackoff.New[objectKey]("", cfg.Clock, nil), // no other client is involved, which the metric is about
	}
}

// forgetUnless gives back the slots of a Secret in each rate limiter that act does not use.
func (l limiters) forgetUnless(secret toolscache.ObjectName, act action) {
	for limiter, uses := range map[*workqueue.KeyedLimiter[toolscache.ObjectName]][]action{
		l.resigns: {resign}, l.checks: {reviewToken, findKey, noteReview}, l.doubted: {remove},
	} {
		if !slices.Contains(uses, act) {
			limiter.Forget(secret)
		}
	}
}

// objectKey identifies a Secret for a write backoff. With the UID of the Secret, a Secret that is
// created again is another one.
type objectKey struct{ namespace, name, uid string }

func secretKey(secret *cache.TokenSecret) objectKey {
	return objectKey{namespace: secret.Namespace, name: secret.Name, uid: string(secret.UID)}
}

// deletionKey identifies a Secret by its name and the account that does not exist: a Secret that a
// client keeps creating again has another UID each time. A Secret of another account is another
// one, and so is one in a namespace that was created again.
func (c *Controller) deletionKey(secret *cache.TokenSecret) objectKey {
	key := objectKey{namespace: secret.Namespace, name: secret.Name, uid: string(secret.AccountUID)}
	if ns, ok := cache.Get(c.cfg.Namespaces, secret.Namespace); ok {
		key.uid += "/" + string(ns.UID)
	}
	return key
}

// writeBackoff returns how long content must not be written to the Secret. It records an event when
// that begins.
func (c *Controller) writeBackoff(ctx context.Context, tracker *writebackoff.Tracker[objectKey], key objectKey, content string, secret *cache.TokenSecret) time.Duration {
	allowed := tracker.Allow(key, content)
	writebackoff.Report(ctx, c.cfg.Recorder, kube.Reference("Secret", secret), allowed)
	return allowed.Wait
}

// repairWait returns how long ca.crt and namespace must not be written.
func (c *Controller) repairWait(ctx context.Context, secret *cache.TokenSecret, ca cabundle.Bundle) time.Duration {
	key := secretKey(secret)
	return max(c.writeBackoff(ctx, c.limiters.contents, key, contentOfCA(ca), secret), c.limiters.refusals.Allow(key, contentOfRefusal(secret, ca)).Wait)
}

// contentOfToken identifies what a new token is for a write backoff, without the token.
func (c *Controller) contentOfToken() string {
	return "token of key " + c.known().Signing().PublicKey().ID()
}

func contentOfCA(ca cabundle.Bundle) string { return "ca.crt " + ca.Fingerprint() }

// contentOfRefusal is another one when the Secret changes, which may be what makes a repair possible.
func contentOfRefusal(secret *cache.TokenSecret, ca cabundle.Bundle) string {
	return contentOfCA(ca) + " to version " + secret.ResourceVersion
}

// contentOfDeletion is the only content of deletions.
const contentOfDeletion = "gone"
