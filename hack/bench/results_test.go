package main

import (
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func filled() results {
	r := results{}
	for _, v := range []float64{300, 100, 200} {
		r.add(namespaces, sakeeper.name, sample{rate: v, ownCPU: 1})
		r.add(namespaces, inTree.name, sample{rate: v / 4, ownCPU: 2})
	}
	r.add(restart, sakeeper.name, sample{last: 1, writes: 0})
	r.add(restart, inTree.name, sample{last: 1})
	for _, n := range []int{100, 400} {
		r.add(fmt.Sprintf("%s%s, %d", growing, namespaces, n), sakeeper.name, sample{last: float64(n * n)})
	}
	for _, v := range []float64{0.4, 0.7, 0.6} {
		r.add(podsBeside(10), podsPolicy, sample{p50: 2, more: v, ofNothing: 1.2})
	}
	return r
}

func TestMedianAndRatio(t *testing.T) {
	r := filled()
	if got := r.median(namespaces, sakeeper.name, rate); got != 200 {
		t.Errorf("median %v, want 200", got)
	}
	r.add(namespaces, sakeeper.name, sample{rate: 400})
	if got := r.median(namespaces, sakeeper.name, rate); got != 250 {
		t.Errorf("median of four %v, want 250", got)
	}
	if got := r.ratio(namespaces, rate); got != 5 {
		t.Errorf("ratio %v, want 5", got)
	}
	if got := r.median(coldStart, sakeeper.name, rate); !math.IsNaN(got) {
		t.Errorf("median of nothing: %v", got)
	}
}

func TestGoals(t *testing.T) {
	var out strings.Builder
	filled().print(&out)
	for _, want := range []string{
		"namespaces at once: rate 4 >= 2 reached",
		"CPU per namespace 0.50 <= 0.60 reached",
		"restart on filled Secrets: time to idle 1 <= 0.70 NOT reached",
		"writes 0 <= 0 reached",
		"cold start on unfilled Secrets: rate - >= 1.30 not measured",
		"growth, exponent: namespaces 2 <= 1.05 NOT reached",
		"accounts deleted - <= 1.05 not measured",
		"p50 more than nothing, ms 0.60 (0.40 to 0.70)",
		"pods by policy, 10 ServiceAccounts: added p50, ms 0.60 <= 0.50 NOT reached",
	} {
		if got := strings.Join(strings.Fields(out.String()), " "); !strings.Contains(got, want) {
			t.Errorf("%q is not in\n%s", want, out.String())
		}
	}
}

func TestProcessIsMeasured(t *testing.T) {
	cmd := exec.Command("sh", "-c", "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; exec sleep 100")
	p, err := startProcess(cmd, filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer p.stop()
	idle, err := p.waitIdle(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	used, err := cpu(p.pid)
	if err != nil || used == 0 || used > time.Since(p.started) {
		t.Errorf("CPU %v: %v", used, err)
	}
	if since := time.Since(idle); since < idleFor {
		t.Errorf("it was idle for %v only", since)
	}
	now, most, err := memory(os.Getpid())
	if err != nil || now <= 0 || most < now {
		t.Errorf("memory %v, at most %v: %v", now, most, err)
	}
}
