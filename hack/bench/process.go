package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is a child process.
type process struct {
	cmd     *exec.Cmd
	pid     int
	started time.Time
	exited  chan struct{}
	// patience is how long waitIdle waits.
	patience time.Duration
}

// startProcess starts cmd, with its output appended to the file log.
func startProcess(cmd *exec.Cmd, log string) (*process, error) {
	output, err := os.OpenFile(log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { _ = output.Close() }() // the process has its own
	cmd.Stdout, cmd.Stderr = output, output
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	p := &process{cmd: cmd, started: time.Now(), exited: make(chan struct{}), patience: idleTimeout}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	p.pid = cmd.Process.Pid
	go func() {
		_ = cmd.Wait() // its log has the reason
		close(p.exited)
	}()
	return p, nil
}

func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.exited:
	case <-time.After(10 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.exited
	}
}

// kill ends p at once, also if it is frozen.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.exited
}

// ticksPerSecond is USER_HZ, which is always 100 on Linux.
const ticksPerSecond = 100

// cpu is the CPU time that a process has used, in steps of 10 ms.
func cpu(pid int) (time.Duration, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The name of the program, in parentheses, may have blanks. See proc_pid_stat(5).
	_, after, _ := strings.Cut(string(data), ") ")
	fields := strings.Fields(after)
	if len(fields) < 13 {
		return 0, fmt.Errorf("/proc/%d/stat: %q", pid, data)
	}
	user, err1 := strconv.Atoi(fields[11])
	system, err2 := strconv.Atoi(fields[12])
	return time.Duration(user+system) * time.Second / ticksPerSecond, errors.Join(err1, err2)
}

// used is the CPU time that p has used; zero if p is nil.
func (p *process) used() (time.Duration, error) {
	if p == nil {
		return 0, nil
	}
	return cpu(p.pid)
}

// memory is the resident memory of a process, and its peak, in MiB.
func memory(pid int) (now, peak float64, err error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(data)) {
		name, value, _ := strings.Cut(line, ":")
		kib, errKiB := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(value), " kB"))
		switch {
		case name == "VmRSS" && errKiB == nil:
			now = float64(kib) / 1024
		case name == "VmHWM" && errKiB == nil:
			peak = float64(kib) / 1024
		}
	}
	return now, peak, nil
}

const (
	// A process is idle when it has used no more than idleCPU in idleFor.
	idleFor      = time.Second
	idleCPU      = 2 * time.Second / ticksPerSecond
	pollInterval = 50 * time.Millisecond
	idleTimeout  = 2 * time.Minute
)

// waitIdle waits until p is idle, and returns the time since when it has been.
func (p *process) waitIdle(ctx context.Context) (time.Time, error) {
	type reading struct {
		at  time.Time
		cpu time.Duration
	}
	var window []reading
	deadline := time.Now().Add(p.patience)
	for {
		used, err := cpu(p.pid)
		if err != nil {
			select {
			case <-p.exited:
				err = fmt.Errorf("%s ended", p.cmd.Path)
			default:
			}
			return time.Time{}, err
		}
		now := time.Now()
		window = append(window, reading{now, used})
		for len(window) > 1 && used-window[0].cpu > idleCPU {
			window = window[1:]
		}
		if now.Sub(window[0].at) >= idleFor {
			return window[0].at, nil
		}
		if now.After(deadline) {
			return time.Time{}, fmt.Errorf("%s was not idle within %v: it used %v of CPU time in the last %v", p.cmd.Path, p.patience, used-window[0].cpu, now.Sub(window[0].at))
		}
		select {
		case <-p.exited:
			return time.Time{}, fmt.Errorf("%s ended", p.cmd.Path)
		case <-ctx.Done():
			return time.Time{}, ctx.Err()
		case <-time.After(pollInterval):
		}
	}
}
