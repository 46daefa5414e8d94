package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"
)

// Command is a [Hook] that runs a program without a shell. Its output goes to the standard error
// of this process.
type Command struct {
	// Args is the program and its arguments. Required.
	Args []string
	// Timeout is the time after which the program and its children are killed. Required.
	Timeout time.Duration
}

// Run implements [Hook].
func (c Command) Run(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.Args[0], c.Args[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	// Its children are killed with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("run %s: %w", c.Args[0], err)
	}
	klog.FromContext(ctx).V(2).Info("Ran a command", "command", c.Args[0])
	return nil
}

// Signal is a [Hook] that sends a signal to a process. It fails, and is retried, if there is no
// such process: one that has not written its pid file yet may have read the old token.
type Signal struct {
	signal syscall.Signal
	// process is a process id, a file with one, or the name of the program.
	process string
}

// ParseSignal parses SIGNAL:PROCESS, such as HUP:1, SIGHUP:/run/nginx.pid or USR1:nginx.
func ParseSignal(text string) (Signal, error) {
	name, process, ok := strings.Cut(text, ":")
	if !ok || process == "" {
		return Signal{}, fmt.Errorf("%q is not SIGNAL:PROCESS, such as HUP:/run/app.pid", text)
	}
	number := unix.SignalNum("SIG" + strings.TrimPrefix(strings.ToUpper(name), "SIG"))
	if number == 0 {
		return Signal{}, fmt.Errorf("%q is no signal", name)
	}
	if pid, err := strconv.Atoi(process); err == nil && pid <= 0 {
		return Signal{}, fmt.Errorf("%d is no process", pid)
	}
	return Signal{number, process}, nil
}

// Run implements [Hook].
func (s Signal) Run(ctx context.Context) error {
	pids, err := s.find()
	if err != nil {
		return fmt.Errorf("signal %s: %w", s.process, err)
	}
	var errs []error
	for _, pid := range pids {
		err := syscall.Kill(pid, s.signal)
		if errors.Is(err, syscall.ESRCH) && len(pids) > 1 {
			continue // one of several has ended meanwhile
		}
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("signal %s: %w", s.process, err)
	}
	klog.FromContext(ctx).V(2).Info("Sent a signal", "signal", s.signal.String(), "processes", pids)
	return nil
}

func (s Signal) find() ([]int, error) {
	if pid, err := strconv.Atoi(s.process); err == nil {
		return []int{pid}, nil
	}
	if !strings.Contains(s.process, "/") {
		return processesByName(s.process)
	}
	text, err := os.ReadFile(s.process)
	if err != nil {
		return nil, err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || pid <= 0 {
		return nil, errors.New("the file holds no process id")
	}
	return []int{pid}, nil
}

// processesByName returns the ids of the processes whose program has that name, which Linux
// cuts to 15 bytes.
func processesByName(name string) ([]int, error) {
	files, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, file := range files {
		comm, err := os.ReadFile(file)
		if err != nil || strings.TrimSuffix(string(comm), "\n") != name[:min(len(name), 15)] {
			continue // it has ended, or is another program
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file))); err == nil && pid != os.Getpid() {
			pids = append(pids, pid)
		}
	}
	if len(pids) == 0 {
		return nil, errors.New("no process has this name")
	}
	return pids, nil
}
