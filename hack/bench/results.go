package main

import (
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

// What a sample says. Names that begin with requested go on with verb and resource.
const (
	rate        = "objects/s"
	last        = "s until the last"
	p50         = "p50 ms"
	p99         = "p99 ms"
	ownCPU      = "CPU ms/object"
	serverCPU   = "API server CPU ms/object"
	requestsPer = "requests/object"
	requested   = "requests/object: "
	writes      = "writes"
	left        = "left as they were"
	resident    = "resident MiB"
	peak        = "peak MiB"
)

// sample is what one run gave.
type sample map[string]float64

// brief is what people look at while they wait.
func (s sample) brief() string {
	var parts []string
	for _, metric := range []string{rate, last, p50, ownCPU, requestsPer, resident} {
		if value := s[metric]; value != 0 {
			parts = append(parts, fmt.Sprintf("%s %s", number(value), metric))
		}
	}
	return strings.Join(parts, ", ")
}

// results are samples by workload and contestant.
type results map[string]map[string][]sample

func (r results) add(workload, contestant string, s sample) {
	if r[workload] == nil {
		r[workload] = map[string][]sample{}
	}
	r[workload][contestant] = append(r[workload][contestant], s)
}

// median is NaN where there is no sample.
func (r results) median(workload, contestant, metric string) float64 {
	var values []float64
	for _, s := range r[workload][contestant] {
		values = append(values, s[metric])
	}
	if len(values) == 0 {
		return math.NaN()
	}
	slices.Sort(values)
	middle := len(values) / 2
	if len(values)%2 == 0 {
		return (values[middle-1] + values[middle]) / 2
	}
	return values[middle]
}

// ratio is sakeeper : kube-controller-manager.
func (r results) ratio(workload, metric string) float64 {
	return r.median(workload, sakeeper.name, metric) / r.median(workload, inTree.name, metric)
}

func (r results) write(path string) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o644)
}

// print prints everything, and then what is to be reached.
func (r results) print(out io.Writer) {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, workload := range slices.Sorted(maps.Keys(r)) {
		contestants := slices.SortedFunc(maps.Keys(r[workload]), func(a, b string) int { return slices.Index(order, a) - slices.Index(order, b) })
		fmt.Fprintf(table, "%s\t%s\t%s\n", workload, strings.Join(contestants, "\t"), "ratio")
		for _, metric := range r.metrics(workload) {
			fmt.Fprintf(table, "  %s", metric)
			for _, c := range contestants {
				fmt.Fprintf(table, "\t%s", number(r.median(workload, c, metric)))
			}
			ratio := r.ratio(workload, metric)
			if !math.IsNaN(ratio) && !math.IsInf(ratio, 0) {
				fmt.Fprintf(table, "\t%.2f", ratio)
			}
			fmt.Fprintln(table)
		}
	}
	_ = table.Flush()
	fmt.Fprintf(out, "\nTo be reached\n\n")
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

// order is that of columns.
var order = []string{sakeeper.name, inTree.name, bare.name, podsPlugin, podsWebhook, podsNothing, podsAllow, podsNone}

// metrics are those that any contestant has a value other than zero of.
func (r results) metrics(workload string) []string {
	found := map[string]bool{}
	for _, samples := range r[workload] {
		for _, s := range samples {
			for metric, value := range s {
				found[metric] = found[metric] || value != 0
			}
		}
	}
	maps.DeleteFunc(found, func(_ string, seen bool) bool { return !seen })
	all := []string{rate, last, p50, p99, ownCPU, serverCPU, requestsPer, writes, left, resident, peak}
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

// number has three digits.
func number(v float64) string {
	switch {
	case math.IsNaN(v):
		return "-"
	case v == math.Trunc(v) || math.Abs(v) >= 100:
		return fmt.Sprintf("%.0f", v)
	case math.Abs(v) >= 10:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.2f", v)
	}
}

// machine is what figures depend on.
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
