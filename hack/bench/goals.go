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

func inverse(of func(results) float64) func(results) float64 {
	return func(r results) float64 { return 1 / of(r) }
}

// ofBare is the rate of sakeeper divided by that of a client that only writes.
func ofBare(workload string) func(results) float64 {
	return func(r results) float64 {
		return r.median(workload, sakeeper.name, rate) / r.median(workload, bare.name, rate)
	}
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

var goals = []goal{
	{"requests per filled token Secret", false, 1, rounded(ours(secrets+string(es256), requestsPer))},
	{"  of them PUT", true, 1, rounded(ours(secrets+string(es256), requested+"update secrets"))},
	{"namespaces at once: rate", true, 2, ratioOf(namespaces, rate)},
	{"  CPU per namespace", false, 0.6, ratioOf(namespaces, ownCPU)},
	{"token Secrets at once, RSA-2048: rate", true, 1.5, ratioOf(secrets+string(rsa2048), rate)},
	{"  of the bare client's", true, 0.8, ofBare(secrets + string(rsa2048))},
	{"token Secrets at once, ES256: rate", true, 2, ratioOf(secrets+string(es256), rate)},
	{"  of the bare client's", true, 0.8, ofBare(secrets + string(es256))},
	{"cold start on unfilled Secrets: rate", true, 1.3, ratioOf(coldStart, rate)},
	{"restart on filled Secrets: time to idle", false, 0.7, ratioOf(restart, last)},
	{"  writes", false, 0, worst(restart, writes)},
	{"accounts deleted in a full namespace: CPU, relative to an empty one", false, 1.2, func(r results) float64 {
		return r.median(accountsCrowd, sakeeper.name, ownCPU) / r.median(accountsAlone, sakeeper.name, ownCPU)
	}},
	{"referenced Secrets deleted: references lost", false, 0, worst(references, left)},
	{"  writes", false, 10, worst(references, writes)},
	{"  times as fast", true, 5, inverse(ratioOf(references, last))},
	{"another CA, without a restart: rate", true, 2, ratioOf(anotherCA, rate)},
	{"resident MiB: empty", false, 35, ours(memoryEmpty, resident)},
	{"  unrelated Secrets", false, 36, ours(memoryUnrelated, resident)},
	{"  and token Secrets", false, 90, ours(memoryTokens, resident)},
	{"default limits: namespaces", true, 10, ratioOf(limitedSpaces, rate)},
	{"default limits: token Secrets", true, 10, ratioOf(limitedTokens, rate)},
	{"pods: added p50, relative to a webhook without logic", false, 1.2, added(podsSequential)},
	{"  8 at once", false, 1.2, added(podsParallel)},
	{"pods by policy, 10 ServiceAccounts: added p50, ms", false, 0.5, func(r results) float64 { return r.median(podsBeside(10), podsPolicy, more) }},
	{"growth, exponent: namespaces", false, 1.05, exponent(namespaces)},
	{"  token Secrets", false, 1.05, exponent(secrets + string(es256))},
	{"  accounts deleted", false, 1.05, exponent(accounts)},
}
