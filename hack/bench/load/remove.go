package load

import (
	"context"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// deleteAccounts deletes ServiceAccounts, each of which has a Secret of the same name.
type deleteAccounts struct {
	worker

	clock *clock
}

func (d *deleteAccounts) prepare(ctx context.Context) error {
	d.clock = newClock(d.N)
	return watch(ctx, d.worker, "secrets", tokenSecrets, &corev1.Secret{}, nil, func(s *corev1.Secret) { d.clock.happen(s.Name) })
}

func (d *deleteAccounts) act(ctx context.Context) (Result, error) {
	err := d.each(ctx, func(ctx context.Context, i int) error {
		d.clock.begin(d.name(i))
		return d.client.CoreV1().ServiceAccounts(d.in(i)).Delete(ctx, d.name(i), metav1.DeleteOptions{})
	})
	if err != nil {
		return Result{}, err
	}
	return d.clock.wait(ctx)
}

// stable is how long the references of an account must be unchanged before those that are left
// are reported.
const stable = 8 * time.Second

// deleteReferenced deletes the Secrets of the account that has the name of their namespace.
type deleteReferenced struct {
	worker

	mu      sync.Mutex
	left    int
	changed time.Time
}

func (d *deleteReferenced) prepare(ctx context.Context) error {
	if err := d.createNamespaces(ctx); err != nil {
		return err
	}
	filled := newClock(d.N)
	err := watch(ctx, d.worker, "secrets", tokenSecrets, &corev1.Secret{}, func(s *corev1.Secret) {
		if len(s.Data[corev1.ServiceAccountTokenKey]) > 0 {
			filled.happen(s.Name)
		}
	}, nil)
	if err != nil {
		return err
	}
	err = d.each(ctx, func(ctx context.Context, i int) error {
		filled.begin(d.name(i))
		return d.createSecret(ctx, i)
	})
	if err != nil {
		return err
	}
	if _, err := filled.wait(ctx); err != nil {
		return err
	}
	accounts := d.client.CoreV1().ServiceAccounts(d.Prefix)
	account, err := accounts.Get(ctx, d.Prefix, metav1.GetOptions{})
	if err != nil {
		return err
	}
	for i := range d.N {
		account.Secrets = append(account.Secrets, corev1.ObjectReference{Name: d.name(i)})
	}
	if _, err := accounts.Update(ctx, account, metav1.UpdateOptions{}); err != nil {
		return err
	}
	return watch(ctx, d.worker, "serviceaccounts", "metadata.name="+d.Prefix, &corev1.ServiceAccount{}, func(a *corev1.ServiceAccount) {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.left, d.changed = len(a.Secrets), time.Now()
	}, nil)
}

func (d *deleteReferenced) act(ctx context.Context) (Result, error) {
	began := time.Now()
	err := d.each(ctx, func(ctx context.Context, i int) error {
		return d.client.CoreV1().Secrets(d.Prefix).Delete(ctx, d.name(i), metav1.DeleteOptions{})
	})
	if err != nil {
		return Result{}, err
	}
	deleted := time.Now()
	for ctx.Err() == nil {
		d.mu.Lock()
		left, changed := d.left, d.changed
		d.mu.Unlock()
		last := changed
		if last.Before(deleted) {
			last = deleted
		}
		if left == 0 || time.Since(last) > stable {
			return Result{Elapsed: changed.Sub(began), Ended: changed, Left: left}, nil
		}
		time.Sleep(10 * time.Millisecond) // the result has the times of events
	}
	return Result{}, ctx.Err()
}

// clearSecrets deletes the token Secrets in the namespaces of the job.
type clearSecrets struct{ worker }

func (c *clearSecrets) prepare(context.Context) error { return nil }

func (c *clearSecrets) act(ctx context.Context) (Result, error) {
	began := time.Now()
	spaces := c.worker
	spaces.N = max(c.Spread, 1)
	err := spaces.each(ctx, func(ctx context.Context, i int) error {
		return c.client.CoreV1().Secrets(c.in(i)).DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{FieldSelector: tokenSecrets})
	})
	return Result{Elapsed: time.Since(began), Ended: time.Now()}, err
}

// referencesOfMany deletes one Secret of each account, which lists it.
type referencesOfMany struct {
	worker

	clock *clock
}

// prepare adds the references to accounts whose Secrets are filled.
func (r *referencesOfMany) prepare(ctx context.Context) error {
	r.clock = newClock(r.N)
	err := r.each(ctx, func(ctx context.Context, i int) error {
		change := []byte(`{"secrets":[{"name":"` + r.name(i) + `"}]}`)
		_, err := r.client.CoreV1().ServiceAccounts(r.in(i)).Patch(ctx, r.name(i), types.MergePatchType, change, metav1.PatchOptions{})
		return err
	})
	if err != nil {
		return err
	}
	return watch(ctx, r.worker, "serviceaccounts", "", &corev1.ServiceAccount{}, func(a *corev1.ServiceAccount) {
		if len(a.Secrets) == 0 {
			r.clock.happen(a.Name)
		}
	}, nil)
}

func (r *referencesOfMany) act(ctx context.Context) (Result, error) {
	err := r.each(ctx, func(ctx context.Context, i int) error {
		r.clock.begin(r.name(i))
		return r.client.CoreV1().Secrets(r.in(i)).Delete(ctx, r.name(i), metav1.DeleteOptions{})
	})
	if err != nil {
		return Result{}, err
	}
	return r.clock.wait(ctx)
}
