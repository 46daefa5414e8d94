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
	"github.com/sakeeper/sakeeper/pkg/internal/workqueue"
	"github.com/sakeeper/sakeeper/pkg/podadmission/rules"
)

const (
	// maxWait is how long a request waits for a ServiceAccount at most.
	maxWait = 2 * time.Second
	// reserve is the part of a request's time that is left to answer it.
	reserve = 500 * time.Millisecond
)

// accounts finds ServiceAccounts.
type accounts struct {
	informer toolscache.SharedIndexInformer // of *Account or *corev1.ServiceAccount
	synced   toolscache.DoneChecker
	client   typedcorev1.ServiceAccountsGetter
	awaited  map[string]bool

	mu      sync.Mutex
	waiting map[toolscache.ObjectName]map[*waiter]struct{}
}

// waiter is a request that waits for a ServiceAccount. changed receives a value when that was
// added or updated.
type waiter struct{ changed chan struct{} }

func newAccounts(cfg Config) (*accounts, error) {
	a := &accounts{
		client:  cfg.Client,
		awaited: map[string]bool{api.DefaultServiceAccount: true},
		waiting: map[toolscache.ObjectName]map[*waiter]struct{}{},
	}
	for _, name := range cfg.Awaited {
		a.awaited[name] = true
	}
	var err error
	if cfg.Accounts != nil {
		a.informer = cfg.Accounts
		a.synced, err = workqueue.Watch(cfg.Accounts, workqueue.Events[*Account]{Changed: func(account *Account) { a.wake(account) }})
	} else {
		a.informer = cfg.ServiceAccounts
		typed := toolscache.NewTypedSharedIndexInformer[*corev1.ServiceAccount](cfg.ServiceAccounts)
		a.synced, err = workqueue.Watch(typed, workqueue.Events[*corev1.ServiceAccount]{Changed: func(account *corev1.ServiceAccount) { a.wake(account) }})
	}
	return a, err
}

func (a *accounts) ready() bool { return toolscache.IsDone(a.synced) }

// get reads the cache, then the API server, and then waits for a ServiceAccount that a
// controller is about to create. The result must not be changed.
func (a *accounts) get(ctx context.Context, name toolscache.ObjectName) (*corev1.ServiceAccount, error) {
	if account := a.cached(name); account != nil {
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

func (a *accounts) cached(name toolscache.ObjectName) *corev1.ServiceAccount {
	found, _, err := a.informer.GetStore().GetByKey(name.String())
	if err != nil {
		panic("podadmission: internal error: " + err.Error()) // the store of an informer returns none
	}
	switch account := found.(type) {
	case *Account:
		return &account.ServiceAccount
	case *corev1.ServiceAccount:
		return account
	default:
		return nil
	}
}

func (a *accounts) read(ctx context.Context, name toolscache.ObjectName) (*corev1.ServiceAccount, error) {
	ctx, cancel := withReserve(ctx)
	defer cancel()
	return a.client.ServiceAccounts(name.Namespace).Get(ctx, name.Name, metav1.GetOptions{})
}

// withReserve returns a context for live reads, which ends before ctx, so that there is time left
// to answer.
func withReserve(ctx context.Context) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return ctx, func() {}
	}
	left := time.Until(deadline)
	return context.WithTimeout(ctx, left-min(reserve, left/2))
}

// await waits until the ServiceAccount is in the cache.
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
		// The cache is read after join, so that no event is missed.
		if account := a.cached(name); account != nil {
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

// wake wakes the requests that wait for account, which is in the cache now.
func (a *accounts) wake(account metav1.Object) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.waiting) == 0 { // nearly always
		return
	}
	for w := range a.waiting[toolscache.MetaObjectToName(account)] {
		select {
		case w.changed <- struct{}{}:
		default: // it is awake already
		}
	}
}
