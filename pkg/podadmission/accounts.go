package podadmission

import (
	"context"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/internal/workqueue"
	"github.com/sakeeper/sakeeper/pkg/podadmission/rules"
)

const (
	// maxWait is how long a pod waits for its account at most.
	maxWait = 2 * time.Second
	// reserve is what is left of the time of a request for its answer.
	reserve = 500 * time.Millisecond
)

// accounts looks ServiceAccounts up.
type accounts struct {
	cached  toolscache.TypedSharedIndexInformer[*Account]
	synced  func() bool
	client  typedcorev1.ServiceAccountsGetter
	awaited map[string]bool

	mu      sync.Mutex
	waiting map[toolscache.ObjectName]map[*waiter]struct{}
}

// waiter is one request that waits for an account. changed holds a value when the
// account was seen since the last look.
type waiter struct{ changed chan struct{} }

func newAccounts(cfg Config) (*accounts, error) {
	a := &accounts{
		cached:  cfg.Accounts,
		client:  cfg.Client,
		awaited: map[string]bool{api.DefaultServiceAccount: true},
		waiting: map[toolscache.ObjectName]map[*waiter]struct{}{},
	}
	for _, name := range cfg.Awaited {
		a.awaited[name] = true
	}
	registration, err := workqueue.Watch(cfg.Accounts, workqueue.Events[*Account]{Changed: a.wake})
	if err != nil {
		return nil, err
	}
	a.synced = func() bool { return toolscache.IsDone(registration) }
	return a, nil
}

func (a *accounts) ready() bool { return a.synced() }

// get looks into the cache, then live, and then waits for those that a controller is
// about to make. The result must not be changed.
func (a *accounts) get(ctx context.Context, name toolscache.ObjectName) (*corev1.ServiceAccount, error) {
	if account := a.known(name); account != nil {
		return account, nil
	}
	account, err := a.read(ctx, name)
	switch {
	case err == nil:
		return account, nil
	case !apierrors.IsNotFound(err):
		return nil, err
	case a.awaited[name.Name]:
		return a.await(ctx, name)
	default:
		return nil, rules.AccountNotFound(name.Name)
	}
}

func (a *accounts) known(name toolscache.ObjectName) *corev1.ServiceAccount {
	account, ok := cache.Get(a.cached, name.String())
	if !ok {
		return nil
	}
	return &account.ServiceAccount
}

func (a *accounts) read(ctx context.Context, name toolscache.ObjectName) (*corev1.ServiceAccount, error) {
	ctx, cancel := withReserve(ctx)
	defer cancel()
	return a.client.ServiceAccounts(name.Namespace).Get(ctx, name.Name, metav1.GetOptions{})
}

// withReserve is for reading live: it ends so early that there is time for an answer.
func withReserve(ctx context.Context) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return ctx, func() {}
	}
	left := time.Until(deadline)
	return context.WithTimeout(ctx, left-min(reserve, left/2))
}

// await waits until the account is in the cache.
func (a *accounts) await(ctx context.Context, name toolscache.ObjectName) (*corev1.ServiceAccount, error) {
	wait := maxWait
	if deadline, ok := ctx.Deadline(); ok {
		wait = min(wait, time.Until(deadline)-reserve)
	}
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	w := a.join(name)
	defer a.leave(name, w)
	for {
		// After joining, so that no event is missed.
		if account := a.known(name); account != nil {
			klog.FromContext(ctx).V(4).Info("Waited for service account", "serviceAccount", klog.KRef(name.Namespace, name.Name), "waited", time.Since(began))
			return account, nil
		}
		select {
		case <-w.changed:
		case <-ctx.Done():
			return nil, rules.AccountNotFound(name.Name)
		}
	}
}

func (a *accounts) join(name toolscache.ObjectName) *waiter {
	w := &waiter{changed: make(chan struct{}, 1)}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.waiting[name] == nil {
		a.waiting[name] = map[*waiter]struct{}{}
	}
	a.waiting[name][w] = struct{}{}
	return w
}

func (a *accounts) leave(name toolscache.ObjectName, w *waiter) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.waiting[name], w)
	if len(a.waiting[name]) == 0 {
		delete(a.waiting, name)
	}
}

// wake tells those who wait for account, which is in the cache now.
func (a *accounts) wake(account *Account) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.waiting) == 0 { // nearly always
		return
	}
	for w := range a.waiting[toolscache.MetaObjectToName(account)] {
		select {
		case w.changed <- struct{}{}:
		default: // it is told already
		}
	}
}
