package main

import (
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

func filled() results {
	r := results{}
	for _, v := range []float64{300, 100, 200} {
		r.add(namespaces, sakeeper.name, sample{rate: v, ownCPU: 1})
		r.add(namespaces, inTree.name, sample{rate: v / 4, ownCPU: 2})
		r.add(namespaces, bare.name, sample{rate: v * 1.25})
	}
	for _, n := range []int{4000, 100000} {
		r.add(restartOn(n), sakeeper.name, sample{last: float64(n) / 4000, writes: 1})
		r.add(restartOn(n), inTree.name, sample{last: 2})
	}
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
	filled().print(&out, goals)
	for _, want := range []string{
		"namespaces at once: rate, of the floor 0.80 >= 0.90 NOT reached",
		"objects/s 200 (100 to 300) 50 (25 to 75) 250 (125 to 375) 4.00 0.80 0.20",
		"CPU per namespace, of kube-controller-manager's 0.50 <= 0.55 reached",
		"served, few Secrets 0.50 <= 0.90 reached",
		"served, many Secrets 12.5 <= 0.90 NOT reached",
		"writes 0 <= 0 reached",
		"start until the first unfilled Secret is filled - <= 1 not measured",
		"growth, exponent: namespaces 2 <= 1.05 NOT reached",
		"accounts deleted - <= 1.05 not measured",
		"p50 more than nothing, ms 0.60 (0.40 to 0.70)",
	} {
		if got := strings.Join(strings.Fields(out.String()), " "); !strings.Contains(got, want) {
			t.Errorf("%q is not in\n%s", want, out.String())
		}
	}
}

func TestPartsAreChosenAndEstimated(t *testing.T) {
	chosen := chosenParts(regexp.MustCompile("^(single|takeover)$"))
	if len(chosen) != 2 || chosen[0].name != "single" {
		t.Fatalf("chosen %v", chosen)
	}
	for _, scale := range []string{"small", "full"} {
		if got, want := remaining(chosen, scale), chosen[0].expected(scale)+chosen[1].expected(scale); got < want-time.Minute || got > want+time.Minute {
			t.Errorf("%s: %v, want about %v", scale, got, want)
		}
	}
}

func TestTurnsRotate(t *testing.T) {
	s := &session{began: time.Now()}
	var got []string
	_ = s.inTurns(2, both, func(turn int, c contestant) error {
		got = append(got, c.prefix(turn, "x"))
		return nil
	})
	if want := []string{"x-s0", "x-k0", "x-k1", "x-s1"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
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
