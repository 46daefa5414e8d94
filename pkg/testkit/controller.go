package testkit

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/ktesting"
)

// Controller is what all controllers have.
type Controller interface {
	Run(ctx context.Context) error
	Ready() bool
}

// Context returns a context whose logger writes to the log of the test.
func Context(t testing.TB) context.Context {
	t.Helper()
	return klog.NewContext(t.Context(), ktesting.NewLogger(t, ktesting.NewConfig(ktesting.Verbosity(10))))
}

// EndQueue shuts down the work queue of c after a test that may not run it.
func EndQueue(t testing.TB, c Controller) {
	t.Helper()
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = c.Run(ctx) // a second call returns at once
	})
}

// ExpectNeedsAllCaches checks that a controller is not ready while any of its informers does not run,
// and is ready when all do. newController is called for each of them.
func ExpectNeedsAllCaches(t *testing.T, newController func(t *testing.T) (Controller, []toolscache.SharedIndexInformer)) {
	t.Helper()
	for missing, all := 0, false; !all; missing++ {
		t.Run(fmt.Sprint("without informer ", missing), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, informers := newController(t)
				all = missing == len(informers)
				run := []func(context.Context) error{c.Run}
				for i, informer := range informers {
					if i != missing {
						run = append(run, Informer(informer))
					}
				}
				defer Start(Context(t), t, run...)()
				time.Sleep(time.Minute)
				if synctest.Wait(); c.Ready() != all {
					t.Errorf("ready: %t", c.Ready())
				}
			})
		})
	}
}

// ExpectRequired checks that newX returns an error if a field of a complete configuration is not set,
// unless that is optional.
func ExpectRequired[C, X any](t *testing.T, complete C, newX func(C) (X, error), optional ...string) {
	t.Helper()
	for field := range reflect.TypeFor[C]().Fields() {
		if slices.Contains(optional, field.Name) {
			continue
		}
		t.Run("without "+field.Name, func(t *testing.T) {
			config := complete
			reflect.ValueOf(&config).Elem().FieldByIndex(field.Index).SetZero()
			if _, err := newX(config); err == nil || !strings.Contains(err.Error(), "required") {
				t.Errorf("error %v", err)
			}
		})
	}
}
