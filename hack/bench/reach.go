package main

import (
	"math"
	"slices"
	"strings"
)

// restarts are the workloads of restarts, that beside the fewest Secrets first.
func restarts(r results) []string {
	var found []string
	for _, workload := range r.workloads() {
		if strings.HasPrefix(workload, restarting) {
			found = append(found, workload)
		}
	}
	slices.SortFunc(found, func(a, b string) int { return len(a) - len(b) })
	return found
}

// ofRestart is the value of the restart with an index, NaN if it was not measured.
func ofRestart(i int, value func(workload string) func(results) float64) func(results) float64 {
	return func(r results) float64 {
		found := restarts(r)
		if i >= len(found) {
			return math.NaN()
		}
		return value(found[i])(r)
	}
}

// restartTime is the ratio of the times until new work is served.
func restartTime(workload string) func(results) float64 { return ratioOf(workload, last) }

// restartWrites are the writes but for that of the new Secret.
func restartWrites(workload string) func(results) float64 {
	return func(r results) float64 { return worst(workload, writes)(r) - 1 }
}

// latencies are the goals for p50 and p99 of a workload: at most those of the other program.
func latencies(name, workload string) []goal {
	return []goal{{name + ": p50", false, 1, ratioOf(workload, p50)}, {"  p99", false, 1, ratioOf(workload, p99)}}
}

// morePod is the time that the webhook adds to a pod, divided by the time that the plugin adds.
func morePod(metric string) func(results) float64 {
	return func(r results) float64 {
		none := r.median(singlePod, podsNone, metric)
		return (r.median(singlePod, podsWebhook, metric) - none) / (r.median(singlePod, podsPlugin, metric) - none)
	}
}

var goals = slices.Concat([]goal{
	{"namespaces at once: rate, of the floor", true, 0.9, ofBare(namespaces)},
	{"  CPU per namespace, of kube-controller-manager's", false, 0.55, ratioOf(namespaces, ownCPU)},
	{"token Secrets at once, RSA-2048: rate, of the floor", true, 0.9, ofBare(secrets + string(rsa2048))},
	{"token Secrets at once, ES256: rate, of the floor", true, 0.9, ofBare(secrets + string(es256))},
	{"  CPU per Secret, of kube-controller-manager's", false, 0.75, ratioOf(secrets+string(es256), ownCPU)},
	{"  requests per filled token Secret", false, 1, rounded(ours(secrets+string(es256), requestsPer))},
	{"another CA: rate, of the floor", true, 0.9, ofBare(anotherCA)},
	{"referenced Secrets deleted: rate, of the floor", true, 0.9, ofBare(references)},
	{"  references lost", false, 0, worst(references, left)},
	{"referenced Secrets of as many accounts deleted: rate, of the floor", true, 0.9, ofBare(manyReferred)},
},
	latencies("one at a time, namespace", singleSpace),
	latencies("one at a time, token Secret", singleToken),
	latencies("one at a time, account deleted", singleAccount),
	latencies("one at a time, damaged ConfigMap", singleRepair),
	[]goal{{"one at a time, pod: added p50, of the plugin's", false, 1, morePod(p50)}, {"  added p99", false, 1, morePod(p99)}},
	latencies("burst of accounts deleted", accounts),
	latencies("burst of references of as many accounts", manyReferred),
	latencies("burst of Secrets made with their accounts", withAccounts),
	[]goal{
		{"start until the first unfilled Secret is filled", false, 1, ratioOf(coldStart, first)},
		{"restart until new work is served, few Secrets", false, 0.9, ofRestart(0, restartTime)},
		{"  writes", false, 0, ofRestart(0, restartWrites)},
		{"restart until new work is served, many Secrets", false, 0.9, ofRestart(1, restartTime)},
		{"  writes", false, 0, ofRestart(1, restartWrites)},
		{"take-over after a stop, s", false, 0.5, ours(leaderStopped, last)},
		{"take-over after a kill, s more than the lease", false, 0.5, ours(leaderKilled, afterLease)},
		{"peak MiB: empty", false, 45, ours(memoryEmpty, peak)},
		{"  unrelated Secrets", false, 48, ours(memoryUnrelated, peak)},
		{"  and token Secrets", false, 110, ours(memoryTokens, peak)},
		{"pods: added p50, of two webhooks without logic", false, 1.15, added(podsSequential)},
		{"  8 at once", false, 1.15, added(podsParallel)},
		{"growth, exponent: namespaces", false, 1.05, exponent(namespaces)},
		{"  token Secrets", false, 1.05, exponent(secrets + string(es256))},
		{"  accounts deleted", false, 1.05, exponent(accounts)},
	},
)
