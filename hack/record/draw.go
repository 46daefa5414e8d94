package main

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"regexp"
	"time"
)

// The terminal, in characters and in pixels.
const (
	columns    = 110
	rows       = 22
	charWidth  = 7.83
	lineHeight = 19
	margin     = 14
	bar        = 34
	// descent is how far letters reach below the line that they stand on.
	descent = 4
	// rest is how long the last screen stays before the recording begins again.
	rest = 6 * time.Second
)

const style = `
  svg { --paper: #ffffff; --ink: #1f2328; --soft: #59636e; --bar: #f6f8fa; --edge: #d1d9e0; --time: #1a7f37; }
  @media (prefers-color-scheme: dark) {
    svg { --paper: #0d1117; --ink: #f0f6fc; --soft: #9198a1; --bar: #161b22; --edge: #3d444d; --time: #3fb950; }
  }
  text { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "Liberation Mono", "DejaVu Sans Mono", monospace; font-size: 13px; fill: var(--ink); white-space: pre; }
  .paper { fill: var(--paper); stroke: var(--edge); }
  .bar { fill: var(--bar); }
  .name { fill: var(--soft); }
  .title { font-weight: 700; }
  .time { fill: var(--time); }
  .screen { animation: scroll %[1]s step-end infinite; transform: translateY(%[2]dpx); }
  .cover { animation: uncover %[1]s step-end infinite; fill: var(--paper); transform: translateY(%[3]dpx); }
  @media (prefers-reduced-motion: reduce) { .screen, .cover { animation: none; } }
`

// draw returns an SVG of a terminal in which lines appear as they were printed. All lines are there,
// below a cover that goes down; what does not fit on the screen is moved up.
func draw(title string, lines []line) []byte {
	lines = wrap(lines)
	width, height := columns*charWidth+2*margin, bar+rows*lineHeight+2*margin
	var svg bytes.Buffer
	fmt.Fprintf(&svg, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %d" role="img" aria-label="`, width, height)
	escape(&svg, "A recorded terminal: "+title)
	svg.WriteString("\">\n<style>")
	animate(&svg, lines)
	fmt.Fprintf(&svg, "</style>\n"+`<rect class="paper" x=".5" y=".5" width="%.0f" height="%d" rx="8"/>`+"\n", width-1, height-1)
	fmt.Fprintf(&svg, `<path class="bar" d="M1 %d V8.5 Q1 1 8.5 1 H%.1f Q%.1f 1 %.1f 8.5 V%d Z"/>`+"\n", bar, width-8.5, width-1, width-1, bar)
	fmt.Fprintf(&svg, `<text class="name" x="%d" y="22">$ `, margin)
	escape(&svg, title)
	fmt.Fprintf(&svg, "</text>\n"+`<svg x="1" y="%d" width="%.0f" height="%d"><g class="screen">`+"\n", bar+margin/2+descent, width-2, rows*lineHeight)
	for i, l := range lines {
		fmt.Fprintf(&svg, `<text x="%d" y="%d">`, margin-1, (i+1)*lineHeight-descent)
		drawText(&svg, l.text)
		svg.WriteString("</text>\n")
	}
	fmt.Fprintf(&svg, `<rect class="cover" width="%.0f" height="%d"/>`+"\n</g></svg>\n</svg>\n", width-2, (len(lines)+rows)*lineHeight)
	return svg.Bytes()
}

// animate writes the style, with the steps in which the screen moves.
func animate(svg *bytes.Buffer, lines []line) {
	total := lines[len(lines)-1].at + rest
	scroll := func(n int) int { return -max(0, n-rows) * lineHeight }
	fmt.Fprintf(svg, style, fmt.Sprintf("%.1fs", total.Seconds()), scroll(len(lines)), len(lines)*lineHeight)
	for _, a := range []struct {
		name string
		at   func(n int) int
	}{{"scroll", scroll}, {"uncover", func(n int) int { return n * lineHeight }}} {
		fmt.Fprintf(svg, "  @keyframes %s {\n", a.name)
		for i, l := range lines {
			if i+1 == len(lines) || lines[i+1].at-l.at >= time.Millisecond { // others appear with the next
				fmt.Fprintf(svg, "    %.2f%% { transform: translateY(%dpx); }\n", 100*l.at.Seconds()/total.Seconds(), a.at(i+1))
			}
		}
		fmt.Fprintf(svg, "    100%% { transform: translateY(%dpx); }\n  }\n", a.at(len(lines)))
	}
}

var (
	stepTitle = regexp.MustCompile(`^\d+\. `)
	duration  = regexp.MustCompile(`^ +[0-9.]+m?s  `)
)

// drawText writes the contents of a text element: titles of steps are bold, times are green.
func drawText(svg *bytes.Buffer, text string) {
	if stepTitle.MatchString(text) {
		svg.WriteString(`<tspan class="title">`)
		escape(svg, text)
		svg.WriteString("</tspan>")
		return
	}
	if took := duration.FindString(text); took != "" {
		svg.WriteString(`<tspan class="time">`)
		escape(svg, took)
		svg.WriteString("</tspan>")
		text = text[len(took):]
	}
	escape(svg, text)
}

// escape writes text for XML. A buffer returns no error.
func escape(svg *bytes.Buffer, text string) { _ = xml.EscapeText(svg, []byte(text)) }

// wrap breaks lines that are longer than the terminal is wide.
func wrap(lines []line) []line {
	var wrapped []line
	for _, l := range lines {
		text := []rune(l.text)
		for len(text) > columns {
			wrapped = append(wrapped, line{at: l.at, text: string(text[:columns])})
			text = text[columns:]
		}
		wrapped = append(wrapped, line{at: l.at, text: string(text)})
	}
	return wrapped
}
