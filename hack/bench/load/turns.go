package load

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Way is a namespace whose pods are admitted in one way.
type Way struct {
	Name       string `json:"name"`
	Kubeconfig string `json:"kubeconfig"`
	Namespace  string `json:"namespace"`
	// Volume is that of Job.
	Volume bool `json:"volume"`
	// Limited: a pod that names a Secret which its ServiceAccount does not list must be refused.
	Limited bool `json:"limited"`
}

// block is the number of pods that are created in one way before the next way has its turn. It
// is small, because other load on the machine changes.
const block = 5

// podsInTurns creates N pods in each way, one after the other.
type podsInTurns struct {
	worker

	ways   []worker
	clocks []*clock
}

// LimitedAccount is the ServiceAccount of the pods. The caller adds what limits its pods.
func LimitedAccount() *corev1.ServiceAccount {
	return &corev1.ServiceAccount{
		ObjectMeta:       metav1.ObjectMeta{Name: "default"},
		Secrets:          []corev1.ObjectReference{{Name: "database"}, {Name: "certificate"}},
		ImagePullSecrets: []corev1.LocalObjectReference{{Name: "registry"}},
	}
}

// limitedPod names three Secrets that LimitedAccount lists, if secret is one of them.
func limitedPod(namespace, name, secret string) *corev1.Pod {
	pod := newPod(namespace, name)
	pod.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "registry"}}
	pod.Spec.Volumes = []corev1.Volume{{Name: "certificate", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: secret}}}}
	pod.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "PASSWORD", ValueFrom: &corev1.EnvVarSource{
		SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "database"}, Key: "password"},
	}}}
	return pod
}

// prepare waits until each way admits pods as it must.
func (p *podsInTurns) prepare(ctx context.Context) error {
	for _, way := range p.Ways {
		client, err := Client(way.Kubeconfig, "bench-load")
		if err != nil {
			return err
		}
		w := worker{Job: p.Job, client: client}
		w.Namespace, w.Volume = way.Namespace, way.Volume
		if err := w.warmUp(ctx, 20, func(name string) error { return w.submit(ctx, limitedPod(way.Namespace, name, "certificate")) }); err != nil {
			return fmt.Errorf("%s: %w", way.Name, err)
		}
		if err := w.warmUp(ctx, 1, func(name string) error { return w.expectLimits(ctx, name, way.Limited) }); err != nil {
			return fmt.Errorf("%s: %w", way.Name, err)
		}
		p.ways, p.clocks = append(p.ways, w), append(p.clocks, newClock(p.N))
	}
	return nil
}

// expectLimits returns an error if a pod with an unlisted Secret is not refused, or, unless
// limited is set, if it is.
func (w worker) expectLimits(ctx context.Context, name string, limited bool) error {
	_, err := w.client.CoreV1().Pods(w.Namespace).Create(ctx, limitedPod(w.Namespace, name, "unlisted"), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	switch {
	case limited && err == nil:
		return errors.New("a pod that names an unlisted Secret was not refused")
	case limited && apierrors.IsForbidden(err):
		return nil
	default:
		return err
	}
}

// act has another order of the ways in each round, because what one way leaves to do, such as
// garbage collection, makes the next one slower. The orders of all jobs are the same.
func (p *podsInTurns) act(ctx context.Context) (Result, error) {
	order := rand.New(rand.NewPCG(1, 1))
	began := time.Now()
	for first := 0; first < p.N; first += block {
		for _, i := range order.Perm(len(p.ways)) {
			for n := first; n < min(first+block, p.N); n++ {
				pod := limitedPod(p.ways[i].Namespace, p.name(n), "certificate")
				p.clocks[i].begin(pod.Name)
				if err := p.ways[i].submit(ctx, pod); err != nil {
					return Result{}, fmt.Errorf("%s: %w", p.Ways[i].Name, err)
				}
				p.clocks[i].happen(pod.Name)
			}
		}
	}
	all := Result{Elapsed: time.Since(began), Ended: time.Now(), Ways: map[string]Result{}}
	for i, way := range p.Ways {
		all.Ways[way.Name] = p.clocks[i].result()
	}
	return all, nil
}
