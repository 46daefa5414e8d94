package load

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// pods are created in a namespace that has everything.
type pods struct {
	worker

	clock *clock
}

// prepare creates some pods that do not count: connections are made, and what is
// registered has come into force.
func (p *pods) prepare(ctx context.Context) error {
	p.clock = newClock(p.N)
	if err := p.createNamespaces(ctx); err != nil {
		return err
	}
	for i := range 50 {
		if err := p.admit(ctx, p.in(0), fmt.Sprintf("%s-first-%d", p.Prefix, i)); err != nil {
			return err
		}
	}
	return nil
}

func (w worker) createPod(ctx context.Context, namespace, name string) error {
	_, err := w.client.CoreV1().Pods(namespace).Create(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "example.com/app:1"}}},
	}, metav1.CreateOptions{})
	return err
}

// admit tries until the pod is created.
func (w worker) admit(ctx context.Context, namespace, name string) error {
	for {
		err := w.createPod(ctx, namespace, name)
		if err == nil || ctx.Err() != nil {
			return err
		}
		time.Sleep(time.Millisecond)
	}
}

func (p *pods) act(ctx context.Context) (Result, error) {
	err := p.each(ctx, func(ctx context.Context, i int) error {
		p.clock.begin(p.name(i))
		defer p.clock.happen(p.name(i))
		return p.createPod(ctx, p.in(i), p.name(i))
	})
	return p.clock.result(), err
}

// podsAtOnce tries each pod until it is admitted, as a controller would.
type podsAtOnce struct {
	worker

	clock *clock
}

func (p *podsAtOnce) prepare(context.Context) error {
	p.clock = newClock(p.N)
	return nil
}

func (p *podsAtOnce) act(ctx context.Context) (Result, error) {
	for i := range p.N {
		name := p.name(i)
		if err := p.createNamespace(ctx, name); err != nil {
			return Result{}, err
		}
		p.clock.begin(name)
		if err := p.admit(ctx, name, name); err != nil {
			return Result{}, err
		}
		p.clock.happen(name)
	}
	return p.clock.result(), nil
}
