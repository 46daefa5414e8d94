package load

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// pods creates pods in a namespace that has its ServiceAccount.
type pods struct {
	worker

	clock *clock
}

// prepare creates 50 pods that do not count, so that the registration of webhooks is in effect
// and connections are open.
func (p *pods) prepare(ctx context.Context) error {
	p.clock = newClock(p.N)
	if err := p.createNamespaces(ctx); err != nil {
		return err
	}
	return p.warmUp(ctx, 50, func(name string) error { return p.createPod(ctx, p.in(0), name) })
}

// warmUp calls create n times, and again where it fails, with other names.
func (w worker) warmUp(ctx context.Context, n int, create func(name string) error) error {
	for i := range n {
		for again := 0; ; again++ {
			err := create(fmt.Sprintf("%s-first-%d-%d", w.Prefix, i, again))
			if err == nil {
				break
			}
			if ctx.Err() != nil {
				return err
			}
			time.Sleep(10 * time.Millisecond) // not measured
		}
	}
	return nil
}

func newPod(namespace, name string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "example.com/app:1"}}},
	}
}

func (w worker) createPod(ctx context.Context, namespace, name string) error {
	return w.submit(ctx, newPod(namespace, name))
}

// submit creates pod. It fails if the pod is refused, or has a token volume when w.Volume is not
// set, or the reverse.
func (w worker) submit(ctx context.Context, pod *corev1.Pod) error {
	created, err := w.client.CoreV1().Pods(pod.Namespace).Create(ctx, pod, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	given := slices.ContainsFunc(created.Spec.Volumes, func(v corev1.Volume) bool { return strings.HasPrefix(v.Name, "kube-api-access-") })
	if given != w.Volume {
		return fmt.Errorf("pod %s/%s: a volume with a token: %t, want %t", pod.Namespace, pod.Name, given, w.Volume)
	}
	return nil
}

func (p *pods) act(ctx context.Context) (Result, error) {
	err := p.each(ctx, func(ctx context.Context, i int) error {
		if p.Paced {
			time.Sleep(interval) // it is what is asked for
		}
		p.clock.begin(p.name(i))
		defer p.clock.happen(p.name(i))
		return p.createPod(ctx, p.in(i), p.name(i))
	})
	return p.clock.result(), err
}

// podsAfterNamespace retries each pod until it is admitted.
type podsAfterNamespace struct {
	worker

	clock *clock
}

func (p *podsAfterNamespace) prepare(context.Context) error {
	p.clock = newClock(p.N)
	return nil
}

func (p *podsAfterNamespace) act(ctx context.Context) (Result, error) {
	for i := range p.N {
		name := p.name(i)
		if err := p.createNamespace(ctx, name); err != nil {
			return Result{}, err
		}
		p.clock.begin(name)
		for {
			err := p.createPod(ctx, name, name)
			if err == nil {
				break
			}
			if !apierrors.IsForbidden(err) || ctx.Err() != nil { // it is forbidden while there is no ServiceAccount
				return Result{}, err
			}
			time.Sleep(time.Millisecond) // short, because it is measured
		}
		p.clock.happen(name)
	}
	return p.clock.result(), nil
}
