package agent

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"github.com/sakeeper/sakeeper/pkg/internal/stopwatch"
	"github.com/sakeeper/sakeeper/pkg/internal/workqueue"
	"github.com/sakeeper/sakeeper/pkg/kube"
	"github.com/sakeeper/sakeeper/pkg/token"
)

// The names of the queues in logs and metrics.
const (
	queueName        = "token-agent"
	hooksQueueName   = "token-agent-hooks"
	reviewsQueueName = "token-agent-reviews"
)

const (
	// minDelay is the delay before the first retry, and maxDelay the maximum.
	minDelay = time.Second
	maxDelay = time.Minute
	// requestTimeout bounds a TokenRequest.
	requestTimeout = 30 * time.Second
	// fileCheckInterval is how often the agent checks whether a file was removed, which makes
	// it request a new token.
	fileCheckInterval = 10 * time.Second
)

// Token describes the token in a file.
type Token struct {
	// File is the path of the file.
	File string
	// Audiences are those of the token. None: the audiences of the API server.
	Audiences []string
}

// Writer replaces the content of a file atomically. Its methods may be called concurrently for
// different files.
type Writer interface {
	// Check returns an error if the file cannot be written, as far as that can be known.
	Check(file string) error
	// Write replaces the content. If it returns an error, the file has its old content.
	Write(file string, content []byte) error
}

// Hook runs after a token was written, in parallel with other hooks.
type Hook interface {
	Run(ctx context.Context) error
}

// Config is the configuration of an [Agent]. Client, Namespace, ServiceAccount, Tokens,
// Lifetime, Writer and Clock are required.
type Config struct {
	// Client requests the tokens.
	Client typedcorev1.ServiceAccountsGetter
	// Namespace and ServiceAccount name the ServiceAccount.
	Namespace, ServiceAccount string
	// Tokens are the files, each with its own token. No file may occur twice.
	Tokens []Token
	// Lifetime is the lifetime that is requested. The API server may grant another.
	Lifetime time.Duration
	// Bound is the object that the tokens are bound to: if it is deleted, they become invalid.
	// Nil: none.
	Bound *authenticationv1.BoundObjectReference
	// Review is asked for every token after it was written and then every ReviewInterval, and a token
	// that it refused twice after it accepted it is renewed: its ServiceAccount, or the object that
	// it is bound to, was replaced by another one of the same name. A token that it refuses the first
	// time is for other audiences, and not reviewed again. Nil: tokens are not reviewed.
	Review Reviewer
	// ReviewInterval is the longest time between two reviews of a token; jitter makes it up to 20 %
	// shorter. Zero: two minutes.
	ReviewInterval time.Duration
	// Writer writes the files: a [RenameWriter] or a [SymlinkWriter].
	Writer Writer
	// Hooks run after a file was written.
	Hooks []Hook
	// OwnCredential is the file of Tokens whose token Client authenticates with, for the metrics; such
	// an agent cannot renew anything once that token has expired. Empty: none.
	OwnCredential string
	// Clock is the clock of the API server, such as a [kube.ServerClock] that follows the Date of
	// the responses to Client.
	Clock clock.PassiveClock
	// Local is the clock of this machine, which measures the age of tokens. Nil: Clock, which must
	// follow no response then.
	Local clock.PassiveClock
	// Seed spreads the renewals of many agents; the path of the file is added to it.
	Seed string
	// Registerer gets the metrics. Nil: no metrics are exported.
	Registerer prometheus.Registerer
}

// Agent keeps tokens in files. Either Run or Once may be called, and only once. Ready may be
// called concurrently.
type Agent struct {
	cfg       Config
	stopwatch *stopwatch.Stopwatch
	tokens    map[string]Token
	// files, reviews and hooks are made by Run; the key of a hook is its index in the config.
	files, reviews *workqueue.Queue[string]
	hooks          *workqueue.Queue[int]

	mu sync.Mutex
	// states has the tokens that this process has written, by file.
	states map[string]tokenState
}

type tokenState struct {
	validity token.Validity
	// requestedAt is when the token was requested, by the stopwatch of the agent.
	requestedAt time.Duration
	// accepted: the API server has accepted the token in a review. refusals counts those in a row
	// since then.
	accepted bool
	refusals int
	// notReviewable: the API server refused the token in its first review.
	notReviewable bool
}

// New returns an agent, or an error for an invalid config. It makes no request.
func New(cfg Config) (*Agent, error) {
	switch {
	case cfg.Client == nil, cfg.Namespace == "", cfg.ServiceAccount == "", cfg.Lifetime <= 0, cfg.Writer == nil, cfg.Clock == nil:
		return nil, errors.New("agent: Client, Namespace, ServiceAccount, Lifetime, Writer and Clock are required")
	case len(cfg.Tokens) == 0:
		return nil, errors.New("agent: Tokens are required")
	}
	if cfg.Local == nil {
		cfg.Local = cfg.Clock
	}
	if cfg.ReviewInterval <= 0 {
		cfg.ReviewInterval = defaultReviewInterval
	}
	a := &Agent{cfg: cfg, stopwatch: stopwatch.New(cfg.Local, cfg.Local), tokens: map[string]Token{}, states: map[string]tokenState{}}
	for _, t := range cfg.Tokens {
		if _, twice := a.tokens[t.File]; twice {
			return nil, fmt.Errorf("agent: more than one token for file %s", t.File)
		}
		a.tokens[t.File] = t
	}
	return a, a.register(cfg.Registerer)
}

// Run keeps the tokens in the files until ctx ends, and returns nil.
func (a *Agent) Run(ctx context.Context) error {
	var errFiles, errHooks, errReviews error
	a.files, errFiles = workqueue.New(workqueue.Config[string]{Name: queueName, Sync: a.sync, BaseDelay: minDelay, MaxDelay: maxDelay, Registerer: a.cfg.Registerer})
	// With a worker per hook, a hook that hangs does not block another one.
	a.hooks, errHooks = workqueue.New(workqueue.Config[int]{
		Name: hooksQueueName, Sync: a.runHook, Workers: len(a.cfg.Hooks), BaseDelay: minDelay, MaxDelay: maxDelay, Registerer: a.cfg.Registerer,
	})
	// With a worker per file, a review that is not answered delays no other.
	a.reviews, errReviews = workqueue.New(workqueue.Config[string]{Name: reviewsQueueName, Sync: a.review, Workers: len(a.tokens), Registerer: a.cfg.Registerer})
	if err := errors.Join(errFiles, errHooks, errReviews); err != nil {
		return err
	}
	a.enqueueAll()
	var others sync.WaitGroup
	defer others.Wait()
	others.Go(func() { a.stopwatch.WatchClocks(ctx, a.enqueueAll) })
	others.Go(func() { _ = a.hooks.Run(ctx) }) // it has no error to return
	others.Go(func() { _ = a.reviews.Run(ctx) })
	return a.files.Run(ctx)
}

func (a *Agent) enqueueAll() {
	for file := range a.tokens {
		a.files.Add(file)
	}
}

// Once writes every file once and then runs the hooks. It retries temporary errors, such as an
// API server that cannot be reached, until ctx ends, and returns the first other error.
func (a *Agent) Once(ctx context.Context) error {
	for _, t := range a.cfg.Tokens {
		if err := a.renewWithRetry(ctx, t); err != nil {
			return err
		}
	}
	var errs []error
	for _, hook := range a.cfg.Hooks {
		errs = append(errs, hook.Run(ctx))
	}
	return errors.Join(errs...)
}

func (a *Agent) renewWithRetry(ctx context.Context, t Token) error {
	for delay := time.Second; ; delay = min(2*delay, maxDelay) {
		err := a.renew(ctx, t)
		if err == nil || !isTemporary(err) {
			return err
		}
		klog.FromContext(ctx).Error(err, "Failed to fetch a token, it will be retried", "file", t.File, "delay", delay)
		select {
		case <-ctx.Done():
			return err
		case <-time.After(delay):
		}
	}
}

// Ready returns nil if this process has written a token to every file and all are valid. The
// error names the files for which that is not true.
func (a *Agent) Ready() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	var errs []error
	for _, t := range a.cfg.Tokens {
		h, ok := a.states[t.File]
		switch {
		case !ok:
			errs = append(errs, fmt.Errorf("%s: there is no token yet", t.File))
		case a.stopwatch.Elapsed()-h.requestedAt >= h.validity.Lifetime():
			errs = append(errs, fmt.Errorf("%s: the token has expired", t.File))
		case h.refusals >= refusalsToRenew:
			errs = append(errs, fmt.Errorf("%s: the API server refuses the token", t.File))
		case h.validity.NotYetValid(a.cfg.Clock.Now()):
			errs = append(errs, fmt.Errorf("%s: the token is not valid before %s: the clock of the API server was set back", t.File, h.validity.Issued.UTC().Format(time.RFC3339)))
		}
	}
	return errors.Join(errs...)
}

func (a *Agent) sync(ctx context.Context, key string) (again time.Duration, err error) {
	if h, ok := a.state(key); ok && exists(key) && h.refusals < refusalsToRenew {
		if dueIn := a.renewIn(h, key); dueIn > 0 {
			return min(h.validity.RequeueAfter(dueIn), fileCheckInterval), nil
		}
	}
	if err := a.renew(ctx, a.tokens[key]); err != nil {
		return 0, err
	}
	for i := range a.cfg.Hooks {
		a.hooks.Add(i)
	}
	if a.cfg.Review != nil {
		a.reviews.Add(key)
	}
	return fileCheckInterval, nil
}

func (a *Agent) renewIn(h tokenState, file string) time.Duration {
	return h.validity.RenewInWithAge(a.stopwatch.Elapsed()-h.requestedAt, a.cfg.Clock.Now(), a.cfg.Seed+file)
}

func (a *Agent) state(file string) (tokenState, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	h, ok := a.states[file]
	return h, ok
}

func exists(file string) bool {
	_, err := os.Stat(file)
	return !errors.Is(err, fs.ErrNotExist)
}

// renew fetches a token and writes it.
func (a *Agent) renew(ctx context.Context, t Token) error {
	if err := a.cfg.Writer.Check(t.File); err != nil {
		return fmt.Errorf("write a token: %w", err) // before a token is requested
	}
	asked := a.stopwatch.Elapsed()
	limited, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	answer, err := a.cfg.Client.ServiceAccounts(a.cfg.Namespace).CreateToken(limited, a.cfg.ServiceAccount, &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{
			Audiences: t.Audiences, ExpirationSeconds: new(int64(a.cfg.Lifetime.Seconds())), BoundObjectRef: a.cfg.Bound,
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("request a token of service account %s/%s: %w", a.cfg.Namespace, a.cfg.ServiceAccount, kube.Redact(err))
	}
	claims, err := token.UnverifiedGranted(answer.Status.Token, answer.Status.ExpirationTimestamp.Time)
	if err != nil {
		return fmt.Errorf("request a token of service account %s/%s: the answer cannot be used: %w", a.cfg.Namespace, a.cfg.ServiceAccount, err)
	}
	if err := a.cfg.Writer.Write(t.File, []byte(answer.Status.Token)); err != nil {
		return fmt.Errorf("write a token: %w", err)
	}
	a.mu.Lock()
	a.states[t.File] = tokenState{validity: claims.Validity, requestedAt: asked}
	a.mu.Unlock()
	klog.FromContext(ctx).Info("Wrote a token", "file", t.File, "serviceAccount", klog.KRef(a.cfg.Namespace, a.cfg.ServiceAccount),
		"credentialID", "JTI="+claims.ID, "expires", claims.Validity.Expires.UTC().Format(time.RFC3339))
	return nil
}

func (a *Agent) runHook(ctx context.Context, i int) (again time.Duration, err error) {
	return 0, a.cfg.Hooks[i].Run(ctx)
}

// isTemporary returns true if the same request may succeed soon.
func isTemporary(err error) bool {
	var path *fs.PathError
	var link *os.LinkError
	var certificate *tls.CertificateVerificationError
	var status apierrors.APIStatus
	switch {
	case errors.As(err, &path), errors.As(err, &link), errors.As(err, &certificate), errors.Is(err, token.ErrNoClaims), errors.Is(err, token.ErrNoValidity):
		return false
	case errors.As(err, &status):
		code := status.Status().Code
		return code == 429 || code >= 500
	default:
		return true
	}
}
