package behaviour

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// Load creates pods in a namespace at a steady rate, each in a request of its own, so that slow
// ones do not lower the rate.
type Load struct {
	client    kubernetes.Interface
	namespace string
	cancel    context.CancelFunc
	all       sync.WaitGroup

	mu     sync.Mutex
	result Result
	last   time.Time // of the creations
}

// Result is what became of the pods.
type Result struct {
	Created int
	// WithoutToken are created pods that have no token volume.
	WithoutToken int
	// Refused are the answers of admission plugins and webhooks to the others, and Unreachable are
	// requests that reached none, as while the API server starts.
	Refused, Unreachable []error
	// LongestGap is the longest time between two creations.
	LongestGap time.Duration
}

// Reasons are the different errors of refused pods.
func (r Result) Reasons() []string {
	var reasons []string
	for _, err := range r.Refused {
		if text := err.Error(); !slices.Contains(reasons, text) {
			reasons = append(reasons, text)
		}
	}
	return reasons
}

// isUnauthorized returns true for the answer of an API server that has not read its roles yet.
func isUnauthorized(err error) bool { return strings.Contains(err.Error(), "cannot create resource") }

// RefusedShare is the refused share of all pods that admission was asked about.
func (r Result) RefusedShare() float64 {
	return float64(len(r.Refused)) / float64(max(1, r.Created+len(r.Refused)))
}

// StartLoad creates pods that no node matches until Stop is called. The ServiceAccount of the
// namespace must exist.
func StartLoad(ctx context.Context, client kubernetes.Interface, namespace string, perSecond int) *Load {
	ticking, cancel := context.WithCancel(ctx)
	l := &Load{client: client, namespace: namespace, cancel: cancel, last: time.Now()}
	l.all.Go(func() {
		ticker := time.NewTicker(time.Second / time.Duration(perSecond))
		defer ticker.Stop()
		for {
			select {
			case <-ticking.Done():
				return
			case <-ticker.C:
				l.all.Go(func() { l.create(context.WithoutCancel(ctx)) })
			}
		}
	})
	return l
}

// Count returns how many pods have been created until now.
func (l *Load) Count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.result.Created
}

// Stop waits for the requests that are running, and returns the result.
func (l *Load) Stop() Result {
	l.cancel()
	l.all.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.observeGap()
	return l.result
}

func (l *Load) create(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	created, err := l.client.CoreV1().Pods(l.namespace).Create(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "load-"},
		Spec:       corev1.PodSpec{NodeSelector: map[string]string{"sakeeper.io/no": "node"}, Containers: []corev1.Container{{Name: "c", Image: "none:0"}}},
	}, metav1.CreateOptions{})
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case err == nil:
		l.observeGap()
		l.result.Created++
		if !slices.ContainsFunc(created.Spec.Volumes, func(v corev1.Volume) bool { return strings.HasPrefix(v.Name, "kube-api-access-") }) {
			l.result.WithoutToken++
		}
	case apierrors.IsForbidden(err) && !isUnauthorized(err), apierrors.IsInternalError(err): // an admission plugin or webhook
		l.result.Refused = append(l.result.Refused, err)
	default:
		l.result.Unreachable = append(l.result.Unreachable, err)
	}
}

func (l *Load) observeGap() {
	now := time.Now()
	l.result.LongestGap = max(l.result.LongestGap, now.Sub(l.last))
	l.last = now
}
