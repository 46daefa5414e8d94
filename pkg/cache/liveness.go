package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/utils/clock"

	"github.com/sakeeper/sakeeper/pkg/internal/stopwatch"
)

// AliveFor is how long a cache counts as alive after it was shown to be.
const AliveFor = 10 * time.Second

const (
	// probeAfter is the age from which on a question starts a probe. Under steady questions
	// the next result comes before AliveFor has passed.
	probeAfter = AliveFor / 2
	// probeTimeout bounds a probe.
	probeTimeout = 5 * time.Second
	// probeInterval is the time between the starts of two probes that fail.
	probeInterval = time.Second
	// probeWatch is how long the watch of a probe lasts if nothing changed.
	probeWatch = time.Second
)

// ErrBehind means that the API server has changes that the cache has not received.
var ErrBehind = errors.New("its watch does not deliver the changes that the API server has")

// Probe returns nil if the API server has no change of the cached resource after
// resourceVersion, [ErrBehind] if it has one, and any other error if that is not known.
type Probe func(ctx context.Context, resourceVersion string) error

// NewProbe returns a Probe of all objects of the resource that fieldSelector selects. It needs
// the rights to list and watch them, and reads metadata only.
func NewProbe(client rest.Interface, resource, fieldSelector string) Probe {
	return func(ctx context.Context, resourceVersion string) error {
		start := time.Now()
		// The first request is answered after the API server has reached etcd. If it answers from
		// its own cache, it waits until that is up to date.
		first, err := probeRequest(ctx, client, resource, "PartialObjectMetadataList", metav1.ListOptions{Limit: 1})
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, first)
		if err = errors.Join(err, first.Close()); err != nil {
			return fmt.Errorf("list %s: %w", resource, err)
		}
		seconds := int64(probeWatch / time.Second)
		changes, err := probeRequest(ctx, client, resource, "PartialObjectMetadata", metav1.ListOptions{
			Watch: true, ResourceVersion: resourceVersion, FieldSelector: fieldSelector, TimeoutSeconds: &seconds,
		})
		if err != nil {
			return err
		}
		defer func() { _ = changes.Close() }() // it is only read
		switch n, err := io.ReadFull(changes, make([]byte, 1)); {
		case n > 0: // a change, or the error that the version is too old
			return ErrBehind
		case !errors.Is(err, io.EOF):
			return fmt.Errorf("watch %s: %w", resource, err)
		case time.Since(start) < probeWatch: // by a proxy, or by an API server that stops
			return fmt.Errorf("watch %s: it was ended early", resource)
		}
		return nil
	}
}

// probeRequest streams, because client-go logs the bodies of other requests, and annotations may
// have copies of tokens (kubectl apply).
func probeRequest(ctx context.Context, client rest.Interface, resource, as string, options metav1.ListOptions) (io.ReadCloser, error) {
	return client.Get().Resource(resource).VersionedParams(&options, scheme.ParameterCodec).
		SetHeader("Accept", "application/json;as="+as+";g=meta.k8s.io;v=v1").Stream(ctx)
}

// Liveness says whether the cache of an informer counts as evidence that an object exists; the
// package comment has the reasons. A nil Liveness is never alive. It is safe for concurrent use.
type Liveness struct {
	informer toolscache.SharedIndexInformer
	probe    Probe
	since    *stopwatch.Stopwatch // a suspended machine gets no events either

	mu      sync.Mutex
	isShown bool
	shown   time.Duration // the last time at which the cache was shown to be alive
	isBusy  bool          // a probe is under way
	probed  time.Duration // the start of the last probe, if there was one
	failure error         // of the last probe, if nothing showed the cache alive after it
}

// NewLiveness adds a handler to the informer. It starts nothing.
func NewLiveness(informer toolscache.SharedIndexInformer, probe Probe) (*Liveness, error) {
	l := &Liveness{informer: informer, probe: probe, since: stopwatch.New(clock.RealClock{}, clock.RealClock{}), probed: -probeInterval}
	_, err := informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { l.show() },
		UpdateFunc: func(any, any) { l.show() },
		DeleteFunc: func(any) { l.show() },
	})
	return l, err
}

// show records an event.
func (l *Liveness) show() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.isShown, l.shown, l.failure = true, l.since.Elapsed(), nil
}

// Alive returns true if the cache was shown to be alive less than [AliveFor] ago. If it is half
// as old, Alive starts a probe and does not wait for it. Ctx has the values of the probe's
// context; its end does not end the probe.
func (l *Liveness) Alive(ctx context.Context) bool {
	if l == nil {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.since.Elapsed()
	if !l.isShown || now-l.shown >= probeAfter {
		l.startProbe(ctx, now)
	}
	return l.isShown && now-l.shown < AliveFor
}

// Err returns why the last probe failed, or nil if there was none or the cache was shown to be
// alive after it. As long as it returns an error, calls of it start probes.
func (l *Liveness) Err(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failure != nil {
		l.startProbe(ctx, l.since.Elapsed())
	}
	return l.failure
}

// startProbe is called with the lock.
func (l *Liveness) startProbe(ctx context.Context, now time.Duration) {
	version := l.informer.GetStore().LastStoreSyncResourceVersion()
	if version == "" || l.isBusy || now-l.probed < probeInterval {
		return
	}
	l.isBusy, l.probed = true, now
	go func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), probeTimeout)
		defer cancel()
		err := l.probe(ctx, version)
		l.mu.Lock()
		defer l.mu.Unlock()
		l.isBusy = false
		switch {
		case l.isShown && l.shown > now: // by an event meanwhile
		case err != nil:
			l.failure = err
		default: // the API server answered later, but not earlier than this
			l.isShown, l.shown, l.failure = true, now, nil
		}
	}()
}
