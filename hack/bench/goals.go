package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// goal is a bound for a measured value.
type goal struct {
	name    string
	atLeast bool // false: at most
	bound   float64
	value   func(r results) float64
}

func ratioOf(workload, metric string) func(results) float64 {
	return func(r results) float64 { return r.ratio(workload, metric) }
}

func ours(workload, metric string) func(results) float64 {
	return func(r results) float64 { return r.median(workload, sakeeper.name, metric) }
}

// worst is the largest measured value, for what must never happen.
func worst(workload, metric string) func(results) float64 {
	return func(r results) float64 {
		values := r.values(workload, sakeeper.name, metric)
		if len(values) == 0 {
			return math.NaN()
		}
		return values[len(values)-1]
	}
}

// rounded rounds to two decimals, so that the one signing-key check of a process does not
// count among many Secrets.
func rounded(of func(results) float64) func(results) float64 {
	return func(r results) float64 { return math.Round(100*of(r)) / 100 }
}

// ofBare is the rate of sakeeper divided by that of a client that only writes.
func ofBare(workload string) func(results) float64 {
	return func(r results) float64 { return r.ofFloor(workload, sakeeper.name, rate) }
}

// added is the time that admission adds to the creation of a pod, divided by the time that a
// webhook without logic adds.
func added(workload string) func(results) float64 {
	return func(r results) float64 {
		none := r.median(workload, podsNone, p50)
		return (r.median(workload, podsWebhook, p50) - none) / (r.median(workload, podsNothing, p50) - none)
	}
}

// exponent is the exponent of N in the time for N objects, between the smallest and the
// largest N.
func exponent(workload string) func(results) float64 {
	return func(r results) float64 {
		least, most := math.MaxInt, 0
		for name := range r {
			if text, ok := strings.CutPrefix(name, growing+workload+", "); ok {
				if n, err := strconv.Atoi(text); err == nil {
					least, most = min(least, n), max(most, n)
				}
			}
		}
		took := func(n int) float64 {
			return r.median(fmt.Sprintf("%s%s, %d", growing, workload, n), sakeeper.name, last)
		}
		return math.Log(took(most)/took(least)) / math.Log(float64(most)/float64(least))
	}
}
