package podadmission

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
)

const (
	defaultCases = 20000
	// fewCases is the number of cases below which coverage is not required.
	fewCases = 5000
)

func TestPodsAreAdmittedAsInTree(t *testing.T) {
	// Otherwise each refusal of the plugin with 500 is logged as unexpected.
	utilruntime.ErrorHandlers = nil //nolint:reassign // there is no other switch

	seed := number(t, "DIFFERENTIAL_SEED", uint64(time.Now().UnixNano()))
	fmt.Printf("DIFFERENTIAL_SEED=%d\n", seed)
	if only := os.Getenv("DIFFERENTIAL_CASE"); only != "" {
		showCase(t, seed, number(t, "DIFFERENTIAL_CASE", 0))

		return
	}

	cases := number(t, "DIFFERENTIAL_CASES", defaultCases)
	reached := compareAll(t, seed, cases)
	if cases >= fewCases && !t.Failed() {
		reached.require(t, required())
	}
}

// compareAll compares cases on as many goroutines as there are processors. Each
// runs in a bubble of its own: the plugin sleeps for a second where the default
// ServiceAccount is missing.
func compareAll(t *testing.T, seed, cases uint64) coverage {
	t.Helper()
	var mu sync.Mutex
	reached := coverage{}
	workers := uint64(runtime.GOMAXPROCS(0))
	program := buildSakeeper(t)
	t.Run("workers", func(t *testing.T) {
		for worker := range workers {
			t.Run(strconv.FormatUint(worker, 10), func(t *testing.T) {
				t.Parallel()
				own := coverage{}
				ours := startSakeeper(t, program)
				synctest.Test(t, func(t *testing.T) {
					c := newComparison(t, ours)
					for i := worker; i < cases && !t.Failed(); i += workers {
						for _, label := range labels(c.mustAgree(t, seed, i)) {
							own[label]++
						}
					}
				})
				mu.Lock()
				defer mu.Unlock()
				for label, n := range own {
					reached[label] += n
				}
			})
		}
	})

	return reached
}

func newComparison(t *testing.T, ours *sakeeper) *comparison {
	t.Helper()
	plugin, err := newInTree()
	if err != nil {
		t.Fatal(err)
	}

	return &comparison{inTree: plugin, sakeeper: ours}
}

// mustAgree compares one case, and prints a smaller one where the sides differ.
func (c *comparison) mustAgree(t *testing.T, seed, i uint64) *observed {
	t.Helper()
	r, g := generate(seed, i)
	defer func() {
		if p := recover(); p != nil {
			t.Fatalf("DIFFERENTIAL_SEED=%d DIFFERENTIAL_CASE=%d: panic: %v\n%s\n%s", seed, i, p, debug.Stack(), r)
		}
	}()
	o, difference, err := c.compare(t.Context(), r)
	if err != nil {
		t.Fatalf("DIFFERENTIAL_SEED=%d DIFFERENTIAL_CASE=%d: %v\n%s", seed, i, err, r)
	}
	o.secretPlaces = g.secretPlaces
	if difference == "" {
		return &o
	}
	smaller := shrink(r, func(r *request) bool {
		if !r.possible() {
			return false
		}
		_, difference, err := c.compare(t.Context(), r)

		return err == nil && difference != ""
	})
	_, difference, _ = c.compare(t.Context(), smaller)
	t.Errorf("DIFFERENTIAL_SEED=%d DIFFERENTIAL_CASE=%d (shrunk):\n%s\n%s", seed, i, smaller, difference)

	return &o
}

func showCase(t *testing.T, seed, i uint64) {
	t.Helper()
	ours := startSakeeper(t, buildSakeeper(t))
	synctest.Test(t, func(t *testing.T) {
		r, _ := generate(seed, i)
		t.Logf("case %d:\n%s", i, r)
		o := newComparison(t, ours).mustAgree(t, seed, i)
		t.Logf("admission: %+v\nvalidation alone: %+v\nreached: %q", o.admitted, o.validated, labels(o))
	})
}

func number(t *testing.T, variable string, otherwise uint64) uint64 {
	t.Helper()
	text := os.Getenv(variable)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("parsing %s: %v", variable, err)
	}

	return n
}
