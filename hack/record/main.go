// Command record runs a command and draws what it prints as an animated SVG of a terminal. Lines
// appear in the time of the run, but long waits are shortened, and each paragraph stays long enough
// to be read. Viewers that prefer reduced motion see the last screen.
//
// Usage: record [-title TEXT] -o FILE COMMAND [ARGUMENT...]
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"time"
)

const (
	// maxWait is the longest time between two lines of the recording.
	maxWait = 1500 * time.Millisecond
	// reading is the shortest time between two paragraphs.
	reading = 1400 * time.Millisecond
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "record:", err)
		stop()
		os.Exit(1) //nolint:gocritic // nothing else is deferred
	}
}

func run(ctx context.Context, args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("record", flag.ContinueOnError)
	title := flags.String("title", "", "what stands above the terminal; empty: the command")
	file := flags.String("o", "", "the SVG to write")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *file == "" || flags.NArg() == 0 {
		return errors.New("usage: record [-title TEXT] -o FILE COMMAND [ARGUMENT...]")
	}
	if *title == "" {
		*title = flags.Arg(0)
	}
	lines, err := capture(exec.CommandContext(ctx, flags.Arg(0), flags.Args()[1:]...), stdout)
	if err != nil {
		return err
	}
	return os.WriteFile(*file, draw(*title, pace(lines)), 0o644)
}

// line is what was printed, and when, since the start of the recording.
type line struct {
	at   time.Duration
	text string
}

// capture runs cmd and returns the lines that it prints, but for empty ones at the start. It also
// copies them to echo. The time begins with the first line.
func capture(cmd *exec.Cmd, echo io.Writer) ([]line, error) {
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	var lines []line
	var began time.Time
	scanner := bufio.NewScanner(out)
	for scanner.Scan() {
		now := time.Now()
		if began.IsZero() {
			began = now
		}
		_, _ = fmt.Fprintln(echo, scanner.Text())
		if len(lines) > 0 || scanner.Text() != "" {
			lines = append(lines, line{at: now.Sub(began), text: scanner.Text()})
		}
	}
	if err := errors.Join(scanner.Err(), cmd.Wait()); err != nil {
		return nil, fmt.Errorf("%s: %w", cmd.Path, err)
	}
	if len(lines) == 0 {
		return nil, fmt.Errorf("%s printed nothing", cmd.Path)
	}
	return lines, nil
}

// pace returns lines with other times: no wait is longer than maxWait, and before an empty line
// none is shorter than reading.
func pace(lines []line) []line {
	paced := []line{{text: lines[0].text}}
	for i, l := range lines[1:] {
		wait := min(l.at-lines[i].at, maxWait)
		if l.text == "" {
			wait = max(wait, reading)
		}
		paced = append(paced, line{at: paced[i].at + wait, text: l.text})
	}
	return paced
}
