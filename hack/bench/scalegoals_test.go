package main

import (
	"math"
	"testing"
)

func TestGrowthExponent(t *testing.T) {
	steps := []int{100, 400, 1600}
	for name, tc := range map[string]struct {
		in   func(n float64) float64
		want float64
	}{
		"the same for all":   {func(float64) float64 { return 7 }, 0},
		"proportional":       {func(n float64) float64 { return 3 * n }, 1},
		"with its square":    {func(n float64) float64 { return n * n }, 2},
		"with a fixed share": {func(n float64) float64 { return 500 + n }, math.Log(2100.0/600) / math.Log(16)},
	} {
		t.Run(name, func(t *testing.T) {
			r := results{}
			for _, n := range steps {
				r.add(scaleOn(n, scaleStart), sakeeper.name, sample{peak: tc.in(float64(n))})
				r.add(scaleOn(n, scaleStart), inTree.name, sample{peak: 1})
			}
			if got := growthExponent(steps, scaleStart, peak)(r); math.Abs(got-tc.want) > 1e-9 {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
	if got := growthExponent(steps, scaleStart, peak)(results{}); !math.IsNaN(got) {
		t.Errorf("nothing was measured, and it is %v", got)
	}
}
