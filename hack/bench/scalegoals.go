package main

import (
	"fmt"
	"math"
	"slices"
)

// growthExponent is the exponent of the number of namespaces in a metric of sakeeper, from the first
// step to the last: 1 is proportional.
func growthExponent(steps []int, what, metric string) func(results) float64 {
	least, most := steps[0], steps[len(steps)-1]
	return func(r results) float64 {
		of := func(n int) float64 { return r.median(scaleOn(n, what), sakeeper.name, metric) }
		return math.Log(of(most)/of(least)) / math.Log(float64(most)/float64(least))
	}
}

// scaleGoals are those of a run with these steps.
func scaleGoals(steps []int) []goal {
	n := steps[len(steps)-1]
	list := []goal{
		{fmt.Sprintf("peak MiB, %d namespaces", n), false, 400, ours(scaleOn(n, scaleStart), peak)},
		{"  while they are created", false, 400, ours(scaleOn(n, scaleCreated), peak)},
		{"  with another CA", false, 400, ours(scaleOn(n, scaleCA), peak)},
		{"  writes of a start", false, 0, ours(scaleOn(n, scaleStart), writes)},
	}
	for _, grows := range []struct{ what, metric string }{
		{scaleCreated, totalTime}, {scaleCreated, totalCPU}, {scaleStart, totalTime}, {scaleStart, totalCPU}, {scaleStart, peak}, {scaleCA, totalCPU},
	} {
		list = append(list, goal{fmt.Sprintf("growth, exponent: %s, %s", grows.what, grows.metric), false, 1.05, growthExponent(steps, grows.what, grows.metric)})
	}
	// What is linear in all objects has the exponent 1.
	for _, what := range []string{scaleSpace, scaleToken, scaleAccount} {
		for _, metric := range []string{ownCPU, p50} {
			list = append(list, goal{fmt.Sprintf("growth, exponent: %s, %s", what, metric), false, 0.25, growthExponent(steps, what, metric)})
		}
	}
	return slices.Clip(list)
}
