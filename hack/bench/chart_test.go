package main

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
)

// TestChart: better to the right, worse to the left, and nothing of what was not measured.
func TestChart(t *testing.T) {
	r := filled() // namespaces: four times the rate; restart: the same time
	r.add(references, sakeeper.name, sample{last: 4})
	r.add(references, inTree.name, sample{last: 2})
	svg := string(r.chart("2 CPUs, scale small"))
	for decoder := xml.NewDecoder(strings.NewReader(svg)); ; {
		if _, err := decoder.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("not XML: %v", err)
		}
	}
	for _, want := range []string{
		`>namespaces at once: rate</text><rect class="good" x="400.0" y="64" width="116.0"`, ">4×<", ">CPU per namespace<", ">2×<",
		`<rect class="bad" x="342.0"`, ">0.50×<", ">0.80×<", "rate, of a client that only writes", ">2 CPUs, scale small; logarithmic",
	} {
		if !strings.Contains(svg, want) {
			t.Errorf("there is no %s in\n%s", want, svg)
		}
	}
	if strings.Contains(svg, "another CA") {
		t.Error("it shows what was not measured")
	}
}
