package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// clockFile is added to package time: the clock of a process is ahead by SOAK_CLOCK seconds, also
// for TLS and the Lease.
const clockFile = `package time

import "syscall"

var soakOffset = func() (seconds int64) {
	text, _ := syscall.Getenv("SOAK_CLOCK")
	sign := int64(1)
	for _, c := range []byte(text) {
		if c == '-' {
			sign = -1
		} else {
			seconds = 10*seconds + int64(c-'0')
		}
	}
	return sign * seconds
}()
`

// clockOverlay writes the file for go build -overlay that lets the clock of a process be set. With it,
// everything is compiled anew.
func clockOverlay(ctx context.Context, dir string) (overlay string, err error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("go env: %w", err)
	}
	timeDir := filepath.Join(strings.TrimSpace(string(out)), "src", "time")
	source, err := os.ReadFile(filepath.Join(timeDir, "time.go"))
	if err != nil {
		return "", err
	}
	const line = "\tsec, nsec, mono := runtimeNow()\n"
	now := bytes.Index(source, []byte("\nfunc Now() Time {\n"+line))
	if now < 0 {
		return "", errors.New("time.Now of this Go is not known")
	}
	changed := bytes.Replace(source[now:], []byte(line), []byte(line+"\tsec += soakOffset\n"), 1)
	files := map[string][]byte{"time.go": append(bytes.Clone(source[:now]), changed...), "soak.go": []byte(clockFile)}
	replace := map[string]string{}
	for name, content := range files {
		replace[filepath.Join(timeDir, name)] = filepath.Join(dir, name)
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			return "", err
		}
	}
	data, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	overlay = filepath.Join(dir, "clock.json")
	return overlay, os.WriteFile(overlay, data, 0o600)
}
