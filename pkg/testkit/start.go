package testkit

import (
	"context"
	"testing"

	toolscache "k8s.io/client-go/tools/cache"
)

// Start runs each function in a goroutine. stop cancels their context, waits for all of
// them, and fails the test if one returned an error.
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

// Informer returns a function for [Start] that runs informer.
func Informer(informer toolscache.SharedIndexInformer) func(context.Context) error {
	return func(ctx context.Context) error {
		informer.RunWithContext(ctx)
		return nil
	}
}
