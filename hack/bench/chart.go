package main

import (
	"bytes"
	"fmt"
	"html"
	"io"
	"math"
	"os"
)

// bar is a row of the chart. better is how many times as good sakeeper is.
type bar struct {
	name   string
	better func(results) float64
}

func inverse(of func(results) float64) func(results) float64 {
	return func(r results) float64 { return 1 / of(r) }
}

// floorBars are the rates beside those of the client that only writes, at most 1 if that is
// the floor.
var floorBars = []bar{
	{"namespaces at once", ofBare(namespaces)},
	{"token Secrets at once, RSA-2048", ofBare(secrets + string(rsa2048))},
	{"token Secrets at once, ES256", ofBare(secrets + string(es256))},
	{"cold start on unfilled Secrets", ofBare(coldStart)},
	{"Secrets made with their accounts", ofBare(withAccounts)},
	{"accounts deleted", ofBare(accounts)},
	{"referenced Secrets deleted", ofBare(references)},
	{"referenced Secrets of many accounts", ofBare(manyReferred)},
	{"another CA", ofBare(anotherCA)},
}

// bars are the ratios to kube-controller-manager.
var bars = []bar{
	{"namespaces at once: rate", ratioOf(namespaces, rate)},
	{"CPU per namespace", inverse(ratioOf(namespaces, ownCPU))},
	{"token Secrets at once, RSA-2048: rate", ratioOf(secrets+string(rsa2048), rate)},
	{"token Secrets at once, ES256: rate", ratioOf(secrets+string(es256), rate)},
	{"cold start on unfilled Secrets: rate", ratioOf(coldStart, rate)},
	{"start until the first Secret is filled", inverse(ratioOf(coldStart, first))},
	{"restart, few Secrets: time to new work", inverse(ofRestart(0, restartTime))},
	{"restart, many Secrets: time to new work", inverse(ofRestart(1, restartTime))},
	{"accounts deleted: rate", ratioOf(accounts, rate)},
	{"  p50", inverse(ratioOf(accounts, p50))},
	{"one at a time: namespace, p50", inverse(ratioOf(singleSpace, p50))},
	{"one at a time: token Secret, p50", inverse(ratioOf(singleToken, p50))},
	{"one at a time: account deleted, p50", inverse(ratioOf(singleAccount, p50))},
	{"one at a time: damaged ConfigMap, p50", inverse(ratioOf(singleRepair, p50))},
	{"take-over after a stop: time", inverse(ratioOf(leaderStopped, last))},
	{"take-over after a kill: time", inverse(ratioOf(leaderKilled, last))},
	{"referenced Secrets deleted: time", inverse(ratioOf(references, last))},
	{"another CA: rate", ratioOf(anotherCA, rate)},
	{"memory, empty cluster", inverse(ratioOf(memoryEmpty, resident))},
	{"memory, unrelated Secrets", inverse(ratioOf(memoryUnrelated, resident))},
	{"memory, token Secrets", inverse(ratioOf(memoryTokens, resident))},
	{"default limits: namespaces", ratioOf(limitedSpaces, rate)},
	{"default limits: token Secrets", ratioOf(limitedTokens, rate)},
}

// The chart in pixels: bars go left or right from the line at equal, by doublings.
const (
	barHeight   = 26
	chartTop    = 64
	chartWidth  = 760
	equal       = 400
	doubling    = 58
	mostDoubled = 5
)

const chartStyle = `<style>
  svg { --paper: #ffffff; --ink: #1f2328; --soft: #59636e; --line: #d1d9e0; --good: #1a7f37; --bad: #bc4c00; }
  @media (prefers-color-scheme: dark) {
    svg { --paper: #0d1117; --ink: #f0f6fc; --soft: #9198a1; --line: #3d444d; --good: #3fb950; --bad: #db6d28; }
  }
  text { font-family: ui-sans-serif, system-ui, "Segoe UI", "Helvetica Neue", Arial, sans-serif; font-size: 13px; fill: var(--ink); }
  .head { font-weight: 600; font-size: 15px; }
  .soft { fill: var(--soft); }
  .paper { fill: var(--paper); }
  .line { stroke: var(--line); }
  .good { fill: var(--good); }
  .bad { fill: var(--bad); }
</style>
`

// chart draws how many times as good sakeeper is as kube-controller-manager, and as the client
// that only writes, as SVG. about says what was run.
func (r results) chart(about string) []byte {
	var rows bytes.Buffer
	first := r.draw(&rows, bars, chartTop)
	y := first
	if r.draw(io.Discard, floorBars, 0) > 0 {
		fmt.Fprintf(&rows, `<text class="head" x="16" y="%d">rate, of a client that only writes</text>`+"\n", y+26)
		y = r.draw(&rows, floorBars, y+40)
	}
	var svg bytes.Buffer
	fmt.Fprintf(&svg, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" role="img" aria-label="sakeeper beside kube-controller-manager and a client that only writes">`+"\n", chartWidth, y+10)
	fmt.Fprintf(&svg, chartStyle+`<rect class="paper" width="%d" height="%d" rx="8"/>`+"\n", chartWidth, y+10)
	svg.WriteString(`<text class="head" x="16" y="28">sakeeper, times as good as kube-controller-manager</text>` + "\n")
	fmt.Fprintf(&svg, `<text class="soft" x="16" y="48">%s; logarithmic, above 1 is better</text>`+"\n", html.EscapeString(about))
	fmt.Fprintf(&svg, `<path class="line" d="M%d %dV%d"/>`+"\n", equal, chartTop-6, first)
	if y > first {
		fmt.Fprintf(&svg, `<path class="line" d="M%d %dV%d"/>`+"\n", equal, first+34, y)
	}
	svg.Write(rows.Bytes())
	svg.WriteString("</svg>\n")
	return svg.Bytes()
}

// draw draws what was measured, from y down, and returns where it ends.
func (r results) draw(rows io.Writer, bars []bar, y int) int {
	for _, b := range bars {
		better := b.better(r)
		if math.IsNaN(better) || math.IsInf(better, 0) || better <= 0 {
			continue // not measured
		}
		class, side := "good", "start"
		length := doubling * max(-2.0, min(mostDoubled, math.Log2(better)))
		left, label := float64(equal), equal+length+6
		if better < 1 {
			class, side = "bad", "end"
			left, label = equal+length, equal+length-6
		}
		fmt.Fprintf(rows, `<text x="16" y="%d">%s</text><rect class="%s" x="%.1f" y="%d" width="%.1f" height="16" rx="2"/>`, y+13, b.name, class, left, y, math.Abs(length))
		fmt.Fprintf(rows, `<text x="%.1f" y="%d" text-anchor="%s">%s×</text>`+"\n", label, y+13, side, number(better))
		y += barHeight
	}
	return y
}

// writeChart writes the chart to a file, unless path is empty.
func (r results) writeChart(path, about string) error {
	if path == "" {
		return nil
	}
	return os.WriteFile(path, r.chart(about), 0o644)
}
