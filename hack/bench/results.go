package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
)

// The metrics of a sample. requested is followed by verb and resource.
const (
	rate        = "objects/s"
	last        = "s until the last"
	first       = "s until the first"
	afterLease  = "s more than the lease"
	p50         = "p50 ms"
	p99         = "p99 ms"
	more        = "p50 more than nothing, ms"
	ofNothing   = "p50 : nothing"
	ownCPU      = "CPU ms/object"
	serverCPU   = "API server CPU ms/object"
	reviewerCPU = "webhook CPU ms/object"
	requestsPer = "requests/object"
	requested   = "requests/object: "
	writes      = "writes"
	left        = "references left"
	resident    = "resident MiB"
	peak        = "peak MiB"
)

// sample has the values of one run, by metric.
type sample map[string]float64

// brief is a summary for the progress output.
func (s sample) brief() string {
	var parts []string
	for _, metric := range []string{rate, last, first, p50, more, ownCPU, requestsPer, resident} {
		if value := s[metric]; value != 0 {
			parts = append(parts, fmt.Sprintf("%s %s", number(value), metric))
		}
	}
	return strings.Join(parts, ", ")
}

// only returns the metrics of s that are named.
func (s sample) only(metrics ...string) sample {
	out := sample{}
	for _, metric := range metrics {
		if value, ok := s[metric]; ok {
			out[metric] = value
		}
	}
	return out
}

// results are samples by workload and contestant.
type results map[string]map[string][]sample

func (r results) add(workload, contestant string, s sample) {
	if r[workload] == nil {
		r[workload] = map[string][]sample{}
	}
	r[workload][contestant] = append(r[workload][contestant], s)
}

// values are the measured values in ascending order.
func (r results) values(workload, contestant, metric string) []float64 {
	var values []float64
	for _, s := range r[workload][contestant] {
		value, ok := s[metric]
		if _, counted := s[requestsPer]; ok || counted && strings.HasPrefix(metric, requested) {
			values = append(values, value) // no such request counts as 0
		}
	}
	slices.Sort(values)
	return values
}

// median is NaN if nothing was measured.
func (r results) median(workload, contestant, metric string) float64 {
	values := r.values(workload, contestant, metric)
	if len(values) == 0 {
		return math.NaN()
	}
	middle := len(values) / 2
	if len(values)%2 == 0 {
		return (values[middle-1] + values[middle]) / 2
	}
	return values[middle]
}

// cell is the median with the smallest and largest value.
func (r results) cell(workload, contestant, metric string) string {
	median, values := number(r.median(workload, contestant, metric)), r.values(workload, contestant, metric)
	if len(values) < 2 || values[0] == values[len(values)-1] {
		return median
	}
	return fmt.Sprintf("%s (%s to %s)", median, number(values[0]), number(values[len(values)-1]))
}

// ratio is sakeeper : kube-controller-manager.
func (r results) ratio(workload, metric string) float64 {
	return r.median(workload, sakeeper.name, metric) / r.median(workload, inTree.name, metric)
}

// ofFloor is the median of c divided by that of the client that only writes.
func (r results) ofFloor(workload, c, metric string) float64 {
	return r.median(workload, c, metric) / r.median(workload, bare.name, metric)
}

// write writes the results and about as JSON.
func (r results) write(path string, about map[string]any) error {
	about["results"] = r
	text, err := json.MarshalIndent(about, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o644)
}

// print prints the results, and then the goals.
func (r results) print(out io.Writer, goals []goal) {
	for _, workload := range r.workloads() {
		contestants := slices.SortedFunc(maps.Keys(r[workload]), func(a, b string) int { return slices.Index(columns, a) - slices.Index(columns, b) })
		table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		fmt.Fprintf(table, "%s\t%s\t%s\n", workload, strings.Join(contestants, "\t"), "sakeeper : kube-controller-manager\tof the floor: sakeeper\tkube-controller-manager")
		for _, metric := range r.metrics(workload) {
			fmt.Fprintf(table, "  %-34s", metric)
			for _, c := range contestants {
				fmt.Fprintf(table, "\t%s", r.cell(workload, c, metric))
			}
			for _, ratio := range []float64{r.ratio(workload, metric), r.ofFloor(workload, sakeeper.name, metric), r.ofFloor(workload, inTree.name, metric)} {
				if math.IsNaN(ratio) || math.IsInf(ratio, 0) {
					fmt.Fprint(table, "\t")
				} else {
					fmt.Fprintf(table, "\t%.2f", ratio)
				}
			}
			fmt.Fprintln(table)
		}
		fmt.Fprintln(table)
		_ = table.Flush()
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(out, "Goals\n\n")
	for _, g := range goals {
		value := g.value(r)
		verdict := "reached"
		switch {
		case math.IsNaN(value):
			verdict = "not measured"
		case g.atLeast && value < g.bound, !g.atLeast && value > g.bound:
			verdict = "NOT reached"
		}
		sign := "<="
		if g.atLeast {
			sign = ">="
		}
		fmt.Fprintf(table, "%s\t%s\t%s %s\t%s\n", g.name, number(value), sign, number(g.bound), verdict)
	}
	_ = table.Flush()
}

// columns and rows are the order of output. Rows that are not listed, those of growth, come
// last.
var (
	columns = []string{sakeeper.name, inTree.name, bare.name, podsNone, podsPlugin, podsWebhook, podsPolicy, podsNothing, podsAllow}
	rows    = []string{
		namespaces, secrets + string(rsa2048), secrets + string(es256), coldStart, withAccounts, accounts, accountsCrowd, references, manyReferred, anotherCA,
		singleSpace, singleToken, singleAccount, singleRepair, singlePod, leaderStopped, leaderKilled, leaderFrozen,
		memoryEmpty, memoryUnrelated, memoryTokens, podsSequential, podsParallel, podsAfterNamespace,
		podsBeside(1), podsBeside(10), podsBeside(100), podsBeside(1000), limitedSpaces, limitedTokens,
	}
)

func (r results) workloads() []string {
	rank := func(workload string) int {
		if i := slices.Index(rows, workload); i >= 0 {
			return i
		}
		return len(rows)
	}
	return slices.SortedFunc(maps.Keys(r), func(a, b string) int { return cmp.Or(rank(a)-rank(b), len(a)-len(b), strings.Compare(a, b)) })
}

// metrics are those of all contestants in a workload.
func (r results) metrics(workload string) []string {
	found := map[string]bool{}
	for _, samples := range r[workload] {
		for _, s := range samples {
			for metric := range s {
				found[metric] = true
			}
		}
	}
	all := []string{rate, last, first, afterLease, p50, p99, more, ofNothing, ownCPU, reviewerCPU, serverCPU, requestsPer, writes, left, resident, peak}
	return slices.SortedFunc(maps.Keys(found), func(a, b string) int {
		rank := func(m string) int {
			if strings.HasPrefix(m, requested) {
				return slices.Index(all, requestsPer)
			}
			return slices.Index(all, m)
		}
		if rank(a) != rank(b) {
			return rank(a) - rank(b)
		}
		return strings.Compare(a, b)
	})
}

// number formats v with at least two significant digits.
func number(v float64) string {
	switch {
	case math.IsNaN(v):
		return "-"
	case v == math.Trunc(v) || math.Abs(v) >= 100:
		return fmt.Sprintf("%.0f", v)
	case math.Abs(v) >= 10:
		return fmt.Sprintf("%.1f", v)
	case math.Abs(v) >= 0.1:
		return fmt.Sprintf("%.2f", v)
	default:
		return fmt.Sprintf("%.4f", v)
	}
}

// machine describes the CPUs.
func machine() string {
	model := runtime.GOARCH
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(text)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	return fmt.Sprintf("%d CPUs (%s)", runtime.NumCPU(), model)
}
