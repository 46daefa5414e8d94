package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// warmUp waits until every registration is in effect, opens connections, and checks that the
// two webhooks that are compared do the same.
func (r *race) warmUp(t *testing.T) {
	t.Helper()
	for _, name := range contestants() {
		eventually(t, "registration of "+name, func(ctx context.Context) error {
			created, err := r.client.CoreV1().Pods(name).Create(ctx, pod("first"), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
			if err != nil {
				return err
			}
			if changed := len(created.Spec.Volumes) > 0; changed != (name == ours || name == doNothing) {
				return errors.New("not called yet, or not alone")
			}
			return nil
		})
	}
	first := r.create(t, ours, pod("first"))
	if diff := cmp.Diff(first, r.create(t, doNothing, pod("first"))); diff != "" {
		t.Errorf("they make different pods (-sakeeper +other):\n%s", diff)
	}
	r.oneByOne(t)
	r.inBatches(t)
	r.clear(t)
	clear(r.pods)
}

// create creates a pod and returns it as judge does, without its namespace.
func (r *race) create(t *testing.T, namespace string, wanted *corev1.Pod) *corev1.Pod {
	t.Helper()
	created, err := r.client.CoreV1().Pods(namespace).Create(t.Context(), wanted, metav1.CreateOptions{})
	must(t, err)
	made := judge(t, created, nil).Pod
	made.Namespace = ""
	return made
}

func (r *race) timed(ctx context.Context, namespace string) (time.Duration, error) {
	wanted := pod("")
	wanted.GenerateName = "pod-"
	began := time.Now()
	_, err := r.client.CoreV1().Pods(namespace).Create(ctx, wanted, metav1.CreateOptions{})
	return time.Since(began), err
}

// turns calls one for every contestant, n times, starting with another one each time.
func turns(n int, one func(name string)) {
	all := contestants()
	for i := range n {
		for j := range all {
			one(all[(i+j)%len(all)])
		}
	}
}

func (r *race) oneByOne(t *testing.T) times {
	t.Helper()
	took := times{}
	turns(oneByOne, func(name string) {
		d, err := r.timed(t.Context(), name)
		must(t, err)
		took[name] = append(took[name], d)
		r.pods[name]++
	})
	return took
}

func (r *race) inBatches(t *testing.T) times {
	t.Helper()
	took := times{}
	turns(batches, func(name string) {
		durations, errs := make([]time.Duration, ofEachBatch), make([]error, ofEachBatch)
		queue := make(chan int, ofEachBatch)
		for i := range ofEachBatch {
			queue <- i
		}
		close(queue)
		var workers sync.WaitGroup
		for range inParallel {
			workers.Go(func() {
				for i := range queue {
					durations[i], errs[i] = r.timed(t.Context(), name)
				}
			})
		}
		workers.Wait()
		must(t, errors.Join(errs...))
		took[name] = append(took[name], durations...)
		r.pods[name] += ofEachBatch
	})
	return took
}

// clear deletes the pods, so that every round starts without any.
func (r *race) clear(t *testing.T) {
	t.Helper()
	now := int64(0)
	for _, name := range contestants() {
		must(t, r.client.CoreV1().Pods(name).DeleteCollection(t.Context(), metav1.DeleteOptions{GracePeriodSeconds: &now}, metav1.ListOptions{}))
		left, err := r.client.CoreV1().Pods(name).List(t.Context(), metav1.ListOptions{})
		must(t, err)
		if len(left.Items) > 0 {
			t.Errorf("%d pods of %s are left", len(left.Items), name)
		}
	}
}

func table(t *testing.T, took times) string {
	t.Helper()
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', tabwriter.AlignRight)
	_, err := fmt.Fprintln(w, "webhook\tpods\tp50\tp99\tadded p50\t")
	must(t, err)
	for _, name := range contestants() {
		_, err := fmt.Fprintf(w, "%s\t%d\t%v\t%v\t%v\t\n", name, len(took[name]), short(took.percentile(name, 50)), short(took.percentile(name, 99)), short(took.added(name)))
		must(t, err)
	}
	must(t, w.Flush())
	return text.String()
}

func short(d time.Duration) time.Duration { return d.Round(10 * time.Microsecond) }
