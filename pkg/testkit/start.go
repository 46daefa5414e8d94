package testkit

import (
	"context"
	"testing"

	toolscache "k8s.io/client-go/tools/cache"
)

// Start runs every function until stop is called, which waits for all of them.
// What they return is the test's error.
func Start(ctx context.Context, t *testing.T, run ...func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, len(run))
	for _, f := range run {
		go func() { ended <- f(ctx) }()
	}
	return func() {
		t.Helper()
		cancel()
		for range run {
			if err := <-ended; err != nil {
				t.Errorf("ended with %v", err)
			}
		}
	}
}

// Informer makes a function for [Start] of an informer.
func Informer(informer toolscache.SharedIndexInformer) func(context.Context) error {
	return func(ctx context.Context) error {
		informer.RunWithContext(ctx)
		return nil
	}
}
