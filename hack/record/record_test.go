package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestARunIsRecorded: the SVG has what the command printed, and shows the last screen at rest.
func TestARunIsRecorded(t *testing.T) {
	file := filepath.Join(t.TempDir(), "out.svg")
	var echo bytes.Buffer
	if err := run(t.Context(), []string{"-title", "a <title>", "-o", file, "printf", "\n%s\n%s\n%s\n", "1. First & only", "   1.2ms  done", strings.Repeat("x", columns+1)}, &echo); err != nil {
		t.Fatal(err)
	}
	svg, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	texts := textsOf(t, svg)
	want := []string{"$ a <title>", "1. First & only", "   1.2ms  done", strings.Repeat("x", columns), "x"}
	if diff := cmp.Diff(want, texts); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if !strings.Contains(echo.String(), "1. First & only\n") {
		t.Errorf("it printed %q", &echo)
	}
}

func TestACommandThatFailsDrawsNothing(t *testing.T) {
	file := filepath.Join(t.TempDir(), "out.svg")
	if err := run(t.Context(), []string{"-o", file, "sh", "-c", "echo began; exit 3"}, io.Discard); err == nil || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("there is a file: %v", err)
	}
}

func TestWaitsAreThoseOfAReader(t *testing.T) {
	got := pace([]line{{0, "a"}, {time.Second, "b"}, {time.Minute, "c"}, {time.Minute, ""}, {time.Minute, "d"}})
	want := []line{{0, "a"}, {time.Second, "b"}, {time.Second + maxWait, "c"}, {time.Second + maxWait + reading, ""}, {time.Second + maxWait + reading, "d"}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(line{})); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// textsOf returns the contents of the text elements.
func textsOf(t *testing.T, svg []byte) []string {
	t.Helper()
	var texts []string
	inText := false
	for decoder := xml.NewDecoder(bytes.NewReader(svg)); ; {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			return texts
		}
		if err != nil {
			t.Fatalf("not XML: %v", err)
		}
		switch e := token.(type) {
		case xml.StartElement:
			if e.Name.Local == "text" {
				inText = true
				texts = append(texts, "")
			}
		case xml.EndElement:
			inText = inText && e.Name.Local != "text"
		case xml.CharData:
			if inText {
				texts[len(texts)-1] += string(e)
			}
		}
	}
}
