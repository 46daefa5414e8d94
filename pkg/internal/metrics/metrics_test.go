package metrics

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

func counter(help string) prometheus.Counter {
	return prometheus.NewCounter(prometheus.CounterOpts{Name: "test_total", Help: help})
}

func TestTheSameMetricsAreRegisteredOnce(t *testing.T) {
	registry := prometheus.NewRegistry()
	Shared(registry, counter("help")).Inc()
	Shared(registry, counter("help")).Inc()
	if n, err := testutil.GatherAndCount(registry); n != 1 || err != nil {
		t.Errorf("%d metrics, %v, want 1", n, err)
	}
	if got := testutil.ToFloat64(Shared(registry, counter("help"))); got != 2 {
		t.Errorf("counted %v, want 2", got)
	}
}

func TestRegistriesDoNotMeet(t *testing.T) {
	first := Shared(prometheus.NewRegistry(), counter("help"))
	second := Shared(prometheus.NewRegistry(), counter("help"))
	first.Inc()
	if got := testutil.ToFloat64(second); got != 0 {
		t.Errorf("the second counts %v", got)
	}
}

func TestWithoutARegistererMetricsWork(t *testing.T) {
	c := Shared(nil, counter("help"))
	c.Inc()
	if got := testutil.ToFloat64(c); got != 1 {
		t.Errorf("counted %v, want 1", got)
	}
}

func TestContradictingMetricsAreAMistakeOfTheProgram(t *testing.T) {
	registry := prometheus.NewRegistry()
	Shared(registry, counter("help"))
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	Shared(registry, counter("another help"))
}
