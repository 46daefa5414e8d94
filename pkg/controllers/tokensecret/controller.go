package tokensecret

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	typedauthenticationv1 "k8s.io/client-go/kubernetes/typed/authentication/v1"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/cabundle"
	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/internal/tokenreview"
	"github.com/sakeeper/sakeeper/pkg/internal/workqueue"
	"github.com/sakeeper/sakeeper/pkg/keys"
	"github.com/sakeeper/sakeeper/pkg/token"
)

// Name is kube-controller-manager's name of this controller.
const Name = "serviceaccount-token-controller"

const (
	// requeueNotCached is when a Secret is synced again whose account the cache does not have: an
	// account that is created and deleted while the watch is broken has no event.
	requeueNotCached = 10 * time.Second
	// accountGrace is how long the account of a Secret that names no UID may be missing: clients
	// create or apply both in any order.
	accountGrace = 5 * time.Second
)

// Tokens makes legacy tokens that may be written, and knows the keys of those that exist; see
// [signingkey.Check].
type Tokens interface {
	Sign(ctx context.Context, claims token.LegacyClaims) (compact string, requeueAfter time.Duration, err error)
	Known() (set *keys.Set, complete bool)
	Refresh()
}

// Client is what the controller reads and writes live.
type Client interface {
	typedcorev1.NamespacesGetter
	typedcorev1.SecretsGetter
	typedcorev1.ServiceAccountsGetter
}

// Config is what the controller needs. All but Resign, ResignQPS, Workers and Registerer is
// required.
type Config struct {
	Client Client
	// Namespaces have settings in annotations. The caller starts this informer and the next two.
	Namespaces      toolscache.TypedSharedIndexInformer[*corev1.Namespace]
	Secrets         toolscache.TypedSharedIndexInformer[*cache.TokenSecret]
	ServiceAccounts toolscache.TypedSharedIndexInformer[*corev1.ServiceAccount]
	// ConfirmLive is for informers of Namespaces and ServiceAccounts that may be filtered or trimmed by their
	// owner: before a Secret is deleted or a token is
	// replaced, the API server is asked for its account and its namespace.
	ConfirmLive bool
	Tokens      Tokens
	// CA returns the bundle that Secrets should have now.
	CA func() cabundle.Bundle
	// TokenReviews asks the API server about tokens that may be dead.
	TokenReviews typedauthenticationv1.TokenReviewInterface
	Recorder     record.EventRecorder
	Clock        clock.PassiveClock
	// Resign says which tokens are signed anew. Empty: none.
	Resign Resign
	// ResignQPS is how many tokens are signed anew in a second. Zero: 10.
	ResignQPS float64
	// Workers is how many Secrets are handled at a time. Zero: one.
	Workers int
	// Registerer gets the metrics. Nil: they are not exported.
	Registerer prometheus.Registerer
}

// Controller fills, repairs and deletes token Secrets.
type Controller struct {
	cfg      Config
	reviewer tokenReviewer
	queue    *workqueue.Queue[toolscache.ObjectName]
	synced   []toolscache.DoneChecker
	owners   owners
	missing  *missingAccounts
	doubts   *doubts
	told     *told
	deleted  *deletionEvents
	checks   *tokenChecks
	limiters limiters
}

// New checks cfg and registers with the informers.
func New(cfg Config) (*Controller, error) {
	switch {
	case cfg.Client == nil, cfg.Namespaces == nil, cfg.Secrets == nil, cfg.ServiceAccounts == nil:
		return nil, fmt.Errorf("%s: Client, Namespaces, Secrets and ServiceAccounts are required", Name)
	case cfg.Tokens == nil, cfg.CA == nil, cfg.TokenReviews == nil, cfg.Recorder == nil, cfg.Clock == nil:
		return nil, fmt.Errorf("%s: Tokens, CA, TokenReviews, Recorder and Clock are required", Name)
	}
	cfg.ResignQPS = cmp.Or(cfg.ResignQPS, defaultResignQPS)
	c := &Controller{
		cfg:      cfg,
		reviewer: tokenreview.New(cfg.TokenReviews, cfg.Registerer),
		owners:   newOwners(),
		missing:  newMissingAccounts(),
		doubts:   newDoubts(),
		told:     newTold(),
		deleted:  newDeletionEvents(cfg),
		checks:   newTokenChecks(),
		limiters: newLimiters(cfg),
	}
	var err error
	if c.queue, err = workqueue.New(workqueue.Config[toolscache.ObjectName]{
		Name: Name, Sync: c.sync, Workers: cfg.Workers, Registerer: cfg.Registerer,
	}); err != nil {
		return nil, err
	}
	if err := c.register(cfg.Registerer); err != nil {
		return nil, err
	}
	secrets, errSecrets := workqueue.Watch(cfg.Secrets, workqueue.Events[*cache.TokenSecret]{
		Listed: c.secretListed, Changed: c.enqueue, Deleted: c.enqueue, // sync forgets what is remembered about a deleted Secret
	})
	accounts, errAccounts := workqueue.Watch(cfg.ServiceAccounts, workqueue.Events[*corev1.ServiceAccount]{
		Changed: c.accountChanged, Deleted: c.accountDeleted, Vanished: c.accountVanished,
	})
	// Changes of namespaces' settings take effect with the next event of a Secret.
	c.synced = []toolscache.DoneChecker{secrets, accounts, cfg.Namespaces.HasSyncedChecker()}
	return c, errors.Join(errSecrets, errAccounts)
}

// Run works until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	var events sync.WaitGroup
	events.Go(func() { c.deleted.run(ctx) })
	err := c.queue.Run(ctx, c.synced...)
	events.Wait()
	c.deleted.flush()
	return err
}

// Ready returns true if every Secret that existed at the start was handled once.
func (c *Controller) Ready() bool { return c.queue.Ready() }

// EnqueueAll syncs every Secret again, those without a token at once and many others over some time.
// Call it when the CA or the keys changed, or when tokens may be written again.
func (c *Controller) EnqueueAll() {
	workqueue.EnqueueAll(c.cfg.Secrets, func(secret *cache.TokenSecret, delay time.Duration) {
		if secret.Unfilled != nil {
			delay = 0
		}
		c.queue.AddAfter(toolscache.MetaObjectToName(secret), delay)
	})
}

func (c *Controller) sync(ctx context.Context, key toolscache.ObjectName) (requeueAfter time.Duration, err error) {
	if wait := c.countOrphans(ctx, key); wait > 0 {
		return wait, nil
	}
	ca := c.cfg.CA()
	s, err := c.gatherState(ctx, key, ca)
	if err != nil {
		return 0, err
	}
	act, reason := decide(s)
	c.forget(key, s, act)
	requeueAfter, err = c.apply(ctx, s, ca, act, reason)
	if s.repairWait > 0 && err == nil {
		err = workqueue.ErrRequeueLater // what was done does not make the Secret right
	}
	return earlier(requeueAfter, s.requeueAfter(act)), err
}

// forget drops what is remembered about a Secret for other actions than act. After a repair there is
// another decision.
func (c *Controller) forget(key toolscache.ObjectName, s state, act action) {
	if s.secret == nil {
		c.checks.forget(key)
		c.missing.forget(key)
		c.doubts.forget(key)
	}
	if act == repair {
		return
	}
	if act != leaveAlone {
		c.told.forget(key)
	}
	c.limiters.forgetUnless(key, act)
}

func (c *Controller) apply(ctx context.Context, s state, ca cabundle.Bundle, act action, reason string) (requeueAfter time.Duration, err error) {
	switch act {
	case fill:
		return c.fill(ctx, s.secret, s.owner.account, ca)
	case repair:
		return c.repair(ctx, s.secret, s.owner.account, ca, reason)
	case resign:
		return c.resign(ctx, s.secret, s.owner.account, ca, reason)
	case noteReview:
		return c.noteReview(ctx, s, reason)
	case reviewToken:
		return c.reviewToken(ctx, s.secret, s.owner.account)
	case findKey:
		return c.findKey(ctx, s.secret)
	case undoFill:
		return c.undoFill(ctx, s.secret, reason)
	case remove:
		return c.remove(ctx, s, reason)
	case leaveAlone:
		c.leaveAlone(ctx, s, reason)
	case awaitAccount, none:
		klog.FromContext(ctx).V(4).Info("Skipped token secret", "reason", reason)
	}
	return 0, nil
}

// known returns the keys of the controllers and those that the API server publishes.
func (c *Controller) known() *keys.Set {
	set, _ := c.cfg.Tokens.Known()
	return set
}

func (c *Controller) gatherState(ctx context.Context, key toolscache.ObjectName, ca cabundle.Bundle) (state, error) {
	s := state{caSum: ca.Sum(), resign: c.cfg.Resign}
	secret, ok := cache.Get(c.cfg.Secrets, key.String())
	if !ok {
		return s, nil
	}
	var err error
	s.doubted = c.doubts.includes(secret)
	if s.owner, err = c.ownerOf(ctx, secret, s.doubted); err != nil {
		return s, err
	}
	if s.owner.account != "" {
		c.missing.forget(key)
		c.doubts.forget(key)
	}
	set, complete := c.cfg.Tokens.Known()
	s.keysIncomplete = !complete
	info := c.infoOf(secret, s.owner.account, set)
	s.secret, s.token, s.note = secret, info.status(set.Signing().PublicKey().ID()), info.check.note()
	s.newKeys = (secret.Token.Own || secret.Token.Other) && info.verifiedBy == "" && !info.check.tried && secret.Token.TriedWith != set.ID()
	if s.owner.account != "" && secret.Unfilled == nil && (secret.CASum != s.caSum || !secret.NamespaceRight) {
		s.repairWait = c.repairWait(ctx, secret, ca)
	}
	annotations, err := c.annotationsOf(ctx, secret.Namespace, s.token)
	s.resignAnnotation, _ = cache.Setting(api.ResignAnnotation, secret.Annotations, annotations)
	return s, err
}

// annotationsOf returns those of a namespace. Only for a token that may be replaced must they be
// those of the API server.
func (c *Controller) annotationsOf(ctx context.Context, namespace string, status tokenStatus) (map[string]string, error) {
	if c.cfg.ConfirmLive && status != accepted && status != current {
		live, err := c.cfg.Client.Namespaces().Get(ctx, namespace, metav1.GetOptions{})
		if err != nil {
			return nil, fmt.Errorf("get namespace %s: %w", namespace, err)
		}
		return live.Annotations, nil
	}
	if ns, ok := cache.Get(c.cfg.Namespaces, namespace); ok {
		return ns.Annotations, nil
	}
	return map[string]string{}, nil
}

// countOrphans doubts the Secrets that a list left without their account, if they are too many, and
// returns how long the sync of a Secret must wait for the rest of a list.
func (c *Controller) countOrphans(ctx context.Context, key toolscache.ObjectName) time.Duration {
	total := func() int { return len(c.cfg.Secrets.GetStore().ListKeys()) }
	doubted, wait := c.doubts.count(key, c.cfg.Clock.Now(), total, func(name toolscache.ObjectName, uid types.UID) bool {
		secret, ok := cache.Get(c.cfg.Secrets, name.String())
		if !ok || secret.UID != uid || !possibleAccount(secret.Account) {
			return false
		}
		account, ok := cache.Get(c.cfg.ServiceAccounts, secret.AccountName().String())
		return !ok || !belongs(secret, account.UID)
	})
	if doubted > 0 {
		klog.FromContext(ctx).Info("A list left many token secrets without their service accounts, they are deleted only if these are missing for long enough", "secrets", doubted, "for", doubtedFor)
	}
	return wait
}

func (c *Controller) secretListed(secret *cache.TokenSecret) {
	c.doubts.addListed(secret)
	c.enqueue(secret)
}

func (c *Controller) enqueue(secret *cache.TokenSecret) {
	c.queue.Add(toolscache.MetaObjectToName(secret))
}

// accountChanged queues the Secrets that wait for this account.
func (c *Controller) accountChanged(account *corev1.ServiceAccount) {
	if c.missing.empty() {
		return
	}
	for _, secret := range c.secretsOf(account) {
		if c.missing.includes(toolscache.MetaObjectToName(secret)) {
			c.enqueue(secret)
		}
	}
}

func (c *Controller) accountDeleted(account *corev1.ServiceAccount) {
	c.enqueueSecretsOf(account, account.ResourceVersion)
}

// accountVanished handles a deletion that the watch missed, so that its resourceVersion is not known.
func (c *Controller) accountVanished(account *corev1.ServiceAccount) {
	for _, secret := range c.secretsOf(account) {
		if belongs(secret, account.UID) {
			c.doubts.addOrphaned(secret, c.cfg.Clock.Now())
		}
	}
	c.enqueueSecretsOf(account, "")
}

// enqueueSecretsOf remembers the deletion of account, at that version, and queues its Secrets.
// Among them may be Secrets of another account of that name, which sync leaves alone.
func (c *Controller) enqueueSecretsOf(account *corev1.ServiceAccount, version string) {
	c.owners.deleted.Add(account.UID, version)
	for _, secret := range c.secretsOf(account) {
		c.enqueue(secret)
	}
}

// secretsOf returns the cached Secrets that name account.
func (c *Controller) secretsOf(account *corev1.ServiceAccount) []*cache.TokenSecret {
	secrets, err := c.cfg.Secrets.GetTypedIndexer().ByTypedIndex(cache.ByAccount, toolscache.MetaObjectToName(account).String())
	if err != nil {
		panic("tokensecret: internal error: " + err.Error()) // there is no such index
	}
	return secrets
}
