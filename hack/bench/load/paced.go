package load

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// interval is the time between two events of the paced jobs: 5 events a second.
const interval = 200 * time.Millisecond

// paced makes one event each interval, and measures from the response of the API server until
// a watch shows the result.
type paced struct {
	worker

	mu       sync.Mutex
	answered map[string]time.Time
	seen     map[string]time.Time
	parts    map[string]int // bits, by namespace
	changed  chan struct{}  // has room for one
}

func (p *paced) prepare(ctx context.Context) error {
	p.answered, p.seen, p.parts, p.changed = map[string]time.Time{}, map[string]time.Time{}, map[string]int{}, make(chan struct{}, 1)
	switch p.Kind {
	case PacedNamespaces:
		if err := watch(ctx, p.worker, "serviceaccounts", "metadata.name=default", &corev1.ServiceAccount{}, func(a *corev1.ServiceAccount) { p.part(a.Namespace, 1) }, nil); err != nil {
			return err
		}
		return watch(ctx, p.worker, "configmaps", "metadata.name=kube-root-ca.crt", &corev1.ConfigMap{}, func(c *corev1.ConfigMap) { p.part(c.Namespace, 2) }, nil)
	case PacedSecrets:
		if err := p.createNamespaces(ctx); err != nil {
			return err
		}
		return watch(ctx, p.worker, "secrets", tokenSecrets, &corev1.Secret{}, func(s *corev1.Secret) {
			if len(s.Data[corev1.ServiceAccountTokenKey]) > 0 {
				p.see(s.Name)
			}
		}, nil)
	case PacedDeletions:
		return watch(ctx, p.worker, "secrets", tokenSecrets, &corev1.Secret{}, nil, func(s *corev1.Secret) { p.see(s.Name) })
	default: // PacedRepairs, of the namespaces of a job with Spread N
		return watch(ctx, p.worker, "configmaps", "metadata.name=kube-root-ca.crt", &corev1.ConfigMap{}, func(c *corev1.ConfigMap) {
			p.mu.Lock()
			_, damaged := p.parts[c.Namespace]
			p.mu.Unlock()
			if damaged && c.Data[corev1.ServiceAccountRootCAKey] != "damaged" {
				p.see(c.Namespace)
			}
		}, nil)
	}
}

func (p *paced) part(namespace string, bit int) {
	p.mu.Lock()
	p.parts[namespace] |= bit
	both := p.parts[namespace] == 3
	p.mu.Unlock()
	if both {
		p.see(namespace)
	}
}

// see notes the first time that the result of an event is seen.
func (p *paced) see(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, again := p.seen[name]; !again {
		p.seen[name] = time.Now()
	}
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

// event makes event i, and returns the name under which its result is seen.
func (p *paced) event(ctx context.Context, i int) (string, error) {
	core := p.client.CoreV1()
	switch p.Kind {
	case PacedNamespaces:
		return p.name(i), p.createNamespace(ctx, p.name(i))
	case PacedSecrets:
		return p.name(i), p.createSecret(ctx, i)
	case PacedDeletions:
		return p.name(i), core.ServiceAccounts(p.in(i)).Delete(ctx, p.name(i), metav1.DeleteOptions{})
	default:
		p.mu.Lock()
		p.parts[p.in(i)] = 0
		p.mu.Unlock()
		_, err := core.ConfigMaps(p.in(i)).Patch(ctx, "kube-root-ca.crt", types.MergePatchType, []byte(`{"data":{"ca.crt":"damaged"}}`), metav1.PatchOptions{})
		return p.in(i), err
	}
}

func (p *paced) act(ctx context.Context) (Result, error) {
	began := time.Now()
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for i := range p.N {
		name, err := p.event(ctx, i)
		answered := time.Now()
		if err != nil {
			return Result{}, err
		}
		p.mu.Lock()
		p.answered[name] = answered
		p.mu.Unlock()
		select {
		case <-tick.C:
		case <-ctx.Done():
			return Result{}, ctx.Err()
		}
	}
	for {
		if r, done := p.result(began); done {
			return r, nil
		}
		select {
		case <-p.changed:
		case <-ctx.Done():
			return Result{}, fmt.Errorf("timed out: %d of %d objects are done", len(p.seen), p.N)
		}
	}
}

// result is done when all events have their results. What was seen before the response came
// took no time.
func (p *paced) result(began time.Time) (Result, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var took []time.Duration
	ended := began
	for name, answered := range p.answered {
		seen, ok := p.seen[name]
		if !ok {
			return Result{}, false
		}
		took = append(took, max(0, seen.Sub(answered)))
		if seen.After(ended) {
			ended = seen
		}
	}
	slices.Sort(took)
	r := Result{Elapsed: ended.Sub(began), Ended: ended}
	r.P50, r.P99 = percentiles(took)
	return r, true
}

// takeover creates a namespace each 50 ms until one of them has its objects.
type takeover struct{ paced }

func (t *takeover) prepare(ctx context.Context) error {
	t.Kind = PacedNamespaces
	return t.paced.prepare(ctx)
}

func (t *takeover) act(ctx context.Context) (Result, error) {
	began := time.Now()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for i := 0; ; {
		select {
		case <-ctx.Done():
			return Result{}, ctx.Err()
		case <-t.changed:
			t.mu.Lock()
			for name, seen := range t.seen {
				if _, ours := t.answered[name]; ours {
					t.mu.Unlock()
					return Result{Elapsed: seen.Sub(began), Ended: seen}, nil
				}
			}
			t.mu.Unlock()
		case <-tick.C:
			name := t.name(i)
			t.mu.Lock()
			t.answered[name] = time.Now()
			t.mu.Unlock()
			if err := t.createNamespace(ctx, name); err != nil {
				return Result{}, err
			}
			i++
		}
	}
}
