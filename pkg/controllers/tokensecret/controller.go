package tokensecret

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	typedauthenticationv1 "k8s.io/client-go/kubernetes/typed/authentication/v1"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/metadata"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
	"k8s.io/utils/lru"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/cabundle"
	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/internal/tokenreview"
	"github.com/sakeeper/sakeeper/pkg/internal/workqueue"
	"github.com/sakeeper/sakeeper/pkg/internal/writebackoff"
	"github.com/sakeeper/sakeeper/pkg/keys"
	"github.com/sakeeper/sakeeper/pkg/kube"
	"github.com/sakeeper/sakeeper/pkg/token"
)

// Name is kube-controller-manager's name of this controller; the queue of
// references has a name of its own.
const (
	Name           = "serviceaccount-token-controller"
	referencesName = "serviceaccount-token-references"
)

const (
	// remembered bounds how many UIDs are kept of ServiceAccounts that went and of
	// Secrets that were filled. A forgotten account costs a GET per Secret.
	remembered = 10000
	// unseenAgain is when to look again at a Secret whose account the cache does not
	// have: one that comes and goes while the watch is broken has no event.
	unseenAgain = 10 * time.Second
	// repairsPerSecond and repairsAtOnce pace what nobody waits for, most of all a new
	// CA in every Secret: a thousand at once, and 10,000 in 45 s.
	repairsPerSecond = 200
	repairsAtOnce    = 1000
	// examsPerSecond and examsAtOnce pace reviews, each of which may cost the API server
	// a write of its own.
	examsPerSecond = 20
	examsAtOnce    = 100
)

// Tokens makes legacy tokens and decides whether they may be written; see
// [canary.Gate.Write].
type Tokens interface {
	Write(ctx context.Context, claims token.LegacyClaims, wake func(), write func(ctx context.Context, compact string) error) error
}

// Client is what the controller reads and writes live.
type Client interface {
	typedcorev1.SecretsGetter
	typedcorev1.ServiceAccountsGetter
}

// Config is what the controller needs; all but Resign, ResignQPS, Workers and the
// last three is required.
type Config struct {
	Client Client
	// Metadata asks whether a Secret exists without fetching its data.
	Metadata        metadata.Interface
	Namespaces      toolscache.TypedSharedIndexInformer[*corev1.Namespace]
	Secrets         toolscache.TypedSharedIndexInformer[*cache.TokenSecret]
	ServiceAccounts toolscache.TypedSharedIndexInformer[*corev1.ServiceAccount]
	Tokens          Tokens
	// Keys returns the keys of this moment.
	Keys func() *keys.Set
	// CA returns the bundle that Secrets should have at this moment.
	CA func() cabundle.Bundle
	// TokenReviews asks the API server about tokens that look dead.
	TokenReviews typedauthenticationv1.TokenReviewInterface
	Recorder     record.EventRecorder
	Clock        clock.PassiveClock
	// Resign says which tokens are signed anew. Empty: none.
	Resign Resign
	// ResignQPS is how many are in a second. Zero: 10.
	ResignQPS float64
	// Workers is how many Secrets are handled at a time. Zero: one.
	Workers int
	// Registerer gets the metrics. Nil: they are not exported.
	Registerer prometheus.Registerer
}

// Controller fills, repairs and deletes token Secrets and drops references to
// those that went.
type Controller struct {
	cfg        Config
	reviewer   tokenReviewer
	secrets    *workqueue.Queue[toolscache.ObjectName]
	references *workqueue.Queue[toolscache.ObjectName]
	synced     []toolscache.DoneChecker
	owners     owners
	exams      *exams
	rests      rests
	departed   *goneSecrets
	dangling   *dangling
}

// rests is what keeps writes few: slots for those that can wait, and truces with
// whoever undoes them.
type rests struct {
	repairs, resigns, exams, looks  *workqueue.KeyedLimiter[toolscache.ObjectName]
	contents, deletions, references *writebackoff.Tracker[contested]
	// notes are apart: who removes them must not keep tokens from being written.
	notes *writebackoff.Tracker[contested]
}

// forget gives back the slots of a Secret to which none of these is to be done.
func (r rests) forget(secret toolscache.ObjectName, wanted ...action) {
	for pace, uses := range map[*workqueue.KeyedLimiter[toolscache.ObjectName]][]action{
		r.repairs: {repair}, r.resigns: {resign}, r.exams: {examine, identify, noteReview},
	} {
		if !slices.ContainsFunc(uses, func(use action) bool { return slices.Contains(wanted, use) }) {
			pace.Forget(secret)
		}
	}
}

// contested is an object over which somebody may disagree. One that is created again
// is another one where what is contested is its content.
type contested struct{ namespace, name, uid string }

// New checks cfg and registers with the informers, which the caller starts.
func New(cfg Config) (*Controller, error) {
	switch {
	case cfg.Client == nil, cfg.Metadata == nil, cfg.Namespaces == nil, cfg.Secrets == nil, cfg.ServiceAccounts == nil:
		return nil, fmt.Errorf("%s: Client, Metadata, Namespaces, Secrets and ServiceAccounts are required", Name)
	case cfg.Tokens == nil, cfg.Keys == nil, cfg.CA == nil, cfg.TokenReviews == nil, cfg.Recorder == nil, cfg.Clock == nil:
		return nil, fmt.Errorf("%s: Tokens, Keys, CA, TokenReviews, Recorder and Clock are required", Name)
	}
	if cfg.ResignQPS == 0 {
		cfg.ResignQPS = 10
	}
	c := &Controller{
		cfg:      cfg,
		reviewer: tokenreview.New(cfg.TokenReviews, "repair", cfg.Registerer),
		owners:   owners{gone: lru.New(remembered), namedHere: lru.New(remembered)},
		exams:    newExams(),
		departed: newGoneSecrets(),
		dangling: newDangling(),
		rests: rests{
			repairs:    workqueue.NewKeyedLimiter[toolscache.ObjectName](cfg.Clock, repairsPerSecond, repairsAtOnce),
			resigns:    workqueue.NewKeyedLimiter[toolscache.ObjectName](cfg.Clock, cfg.ResignQPS, 1),
			exams:      workqueue.NewKeyedLimiter[toolscache.ObjectName](cfg.Clock, examsPerSecond, examsAtOnce),
			looks:      workqueue.NewKeyedLimiter[toolscache.ObjectName](cfg.Clock, repairsPerSecond, repairsAtOnce),
			contents:   writebackoff.New[contested]("secrets", cfg.Clock, cfg.Registerer),
			deletions:  writebackoff.New[contested]("secret deletions", cfg.Clock, cfg.Registerer),
			references: writebackoff.New[contested]("references", cfg.Clock, cfg.Registerer),
			notes:      writebackoff.New[contested]("review notes", cfg.Clock, cfg.Registerer),
		},
	}
	var errSecrets, errReferences error
	c.secrets, errSecrets = workqueue.New(workqueue.Config[toolscache.ObjectName]{
		Name: Name, Sync: c.syncSecret, Workers: cfg.Workers, Registerer: cfg.Registerer,
	})
	c.references, errReferences = workqueue.New(workqueue.Config[toolscache.ObjectName]{
		Name: referencesName, Sync: c.syncReferences, Workers: cfg.Workers, Registerer: cfg.Registerer,
	})
	if err := errors.Join(errSecrets, errReferences, c.register(cfg.Registerer)); err != nil {
		return nil, err
	}
	return c, c.watch()
}

func (c *Controller) watch() error {
	secrets, errSecrets := workqueue.Watch(c.cfg.Secrets, workqueue.Events[*cache.TokenSecret]{
		Changed: c.enqueueSecret, Deleted: c.secretDeleted,
	})
	accounts, errAccounts := workqueue.Watch(c.cfg.ServiceAccounts, workqueue.Events[*corev1.ServiceAccount]{
		Listed: c.enqueueReferences, Changed: c.enqueueReferencesLater, Deleted: c.accountDeleted, Vanished: c.accountVanished,
	})
	// Namespaces are read for their settings, which nobody waits for.
	c.synced = []toolscache.DoneChecker{secrets, accounts, c.cfg.Namespaces.HasSyncedChecker()}
	return errors.Join(errSecrets, errAccounts)
}

// Run works until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	done := make(chan error, 1)
	go func() { done <- c.references.Run(ctx, c.synced...) }()
	err := c.secrets.Run(ctx, c.synced...)
	return errors.Join(err, <-done)
}

// Ready tells whether every Secret and ServiceAccount that existed at the start
// was handled once.
func (c *Controller) Ready() bool { return c.secrets.Ready() && c.references.Ready() }

// EnqueueAll looks at every Secret again; call it when the CA or the keys changed.
// Writes are paced.
func (c *Controller) EnqueueAll() {
	for _, key := range c.cfg.Secrets.GetStore().ListKeys() {
		if name, err := toolscache.ParseObjectName(key); err == nil { // the cache made the key
			c.secrets.Add(name)
		}
	}
}

func (c *Controller) syncSecret(ctx context.Context, key toolscache.ObjectName) (time.Duration, error) {
	ca := c.cfg.CA()
	s, err := c.gatherState(ctx, key, ca)
	if err != nil {
		return 0, err
	}
	if s.secret == nil {
		c.exams.forget(key)
	}
	wait, err := c.settle(ctx, key, s, ca)
	if err == nil && s.owner.unseen && (wait == 0 || wait > unseenAgain) {
		wait = unseenAgain
	}
	return wait, err
}

// settle does what there is to do for a Secret.
func (c *Controller) settle(ctx context.Context, key toolscache.ObjectName, s state, ca cabundle.Bundle) (time.Duration, error) {
	act, reason := decide(s)
	if act != repair {
		c.rests.forget(key, act)
		return c.do(ctx, s, ca, act, reason)
	}
	// A token that is dead must not wait for a CA that somebody disagrees about, or that
	// has no room.
	behind := s
	behind.repairWaits = true
	actBehind, reasonBehind := decide(behind)
	c.rests.forget(key, act, actBehind)
	wait, err := c.turnToRepair(ctx, s.secret, ca)
	if wait == 0 {
		if wait, err = c.repair(ctx, s.secret, s.owner.account, ca, reason); !kube.IsPermanent(err) {
			return wait, err
		}
	}
	waitBehind, errBehind := c.do(ctx, behind, ca, actBehind, reasonBehind)
	return both(wait, err, waitBehind, errBehind)
}

// both is what came of two things that were done for one key: it failed if one of them
// did, and is put off if one of them is.
func both(waitA time.Duration, errA error, waitB time.Duration, errB error) (time.Duration, error) {
	wait := min(waitA, waitB)
	if waitA == 0 || waitB == 0 {
		wait = max(waitA, waitB)
	}
	putOff := func(err error) bool { return err == nil || errors.Is(err, workqueue.ErrRequeueLater) }
	switch {
	case putOff(errA):
		return wait, cmp.Or(errB, errA)
	case putOff(errB):
		return wait, errA
	default:
		return wait, errors.Join(errA, errB)
	}
}

// do does anything but repair.
func (c *Controller) do(ctx context.Context, s state, ca cabundle.Bundle, act action, reason string) (time.Duration, error) {
	switch act {
	case fill:
		return c.fill(ctx, s.secret, s.owner.account, ca)
	case resign:
		return c.resign(ctx, s.secret, s.owner.account, ca, reason)
	case noteReview:
		return c.noteReview(ctx, s, reason)
	case examine:
		return c.examine(ctx, s.secret, s.owner.account)
	case identify:
		return c.identify(ctx, s.secret)
	case release:
		return c.release(ctx, s.secret, reason)
	case remove:
		return c.remove(ctx, s.secret, reason)
	default:
		klog.FromContext(ctx).V(4).Info("Skipped token secret", "reason", reason)
		return 0, nil
	}
}

func (c *Controller) gatherState(ctx context.Context, key toolscache.ObjectName, ca cabundle.Bundle) (state, error) {
	s := state{caSum: ca.Sum(), resign: c.cfg.Resign}
	secret, ok := cache.Get(c.cfg.Secrets, key.String())
	if !ok {
		return s, nil
	}
	var err error
	if s.owner, err = c.ownerOf(ctx, secret); err != nil {
		return s, err
	}
	set := c.cfg.Keys()
	found := c.evidenceOf(secret, s.owner.account, set)
	s.secret, s.token, s.note = secret, found.standing(set.Signing().PublicKey().ID()), found.exam.note()
	s.untried = found.verifiedBy == "" && !found.exam.tried && secret.Token.TriedWith != set.ID()
	s.settledToken, _ = cache.Setting(api.ResignAnnotation, secret.Annotations, c.settingsOf(secret.Namespace))
	return s, nil
}

func (c *Controller) settingsOf(namespace string) map[string]string {
	if ns, ok := cache.Get(c.cfg.Namespaces, namespace); ok {
		return ns.Annotations
	}
	return nil
}

func (c *Controller) enqueueSecret(secret *cache.TokenSecret) {
	c.secrets.Add(toolscache.MetaObjectToName(secret))
}

func (c *Controller) secretDeleted(secret *cache.TokenSecret) {
	c.enqueueSecret(secret) // for what is remembered of it
	c.references.AddAfter(secret.AccountName(), c.departed.add(secret, c.cfg.Clock.Now()))
}

func (c *Controller) accountDeleted(account *corev1.ServiceAccount) {
	c.accountGone(account, account.ResourceVersion)
}

// accountVanished is for an account of which it is not known when it went.
func (c *Controller) accountVanished(account *corev1.ServiceAccount) { c.accountGone(account, "") }

// accountGone queues the Secrets of the account. Those that belong to another account
// of the same name find it when they are synced.
func (c *Controller) accountGone(account *corev1.ServiceAccount, version string) {
	c.owners.gone.Add(account.UID, version)
	c.references.Add(toolscache.MetaObjectToName(account)) // for what is remembered of them
	secrets, err := c.cfg.Secrets.GetTypedIndexer().ByTypedIndex(cache.ByAccount, toolscache.MetaObjectToName(account).String())
	if err != nil {
		panic("tokensecret: internal error: " + err.Error()) // there is no such index
	}
	for _, secret := range secrets {
		c.enqueueSecret(secret)
	}
}

func (c *Controller) enqueueReferences(account *corev1.ServiceAccount) {
	if len(account.Secrets) > 0 {
		c.references.Add(toolscache.MetaObjectToName(account))
	}
}

// enqueueReferencesLater gives whoever wrote the account the time to write its
// Secrets too.
func (c *Controller) enqueueReferencesLater(account *corev1.ServiceAccount) {
	key := toolscache.MetaObjectToName(account)
	if len(account.Secrets) > 0 || c.dangling.of(key) > 0 {
		c.references.AddAfter(key, grace)
	}
}
