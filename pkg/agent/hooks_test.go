package agent

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestCommand(t *testing.T) {
	file := filepath.Join(t.TempDir(), "called")
	cases := map[string]struct {
		in      Command
		wantErr string
	}{
		"it is run with its arguments, without a shell": {in: Command{Args: []string{"touch", file, file + " $HOME;"}, Timeout: time.Minute}},
		"it fails":      {in: Command{Args: []string{"false"}, Timeout: time.Minute}, wantErr: "run false: exit status 1"},
		"there is none": {in: Command{Args: []string{"/no/such/program"}, Timeout: time.Minute}, wantErr: "run /no/such/program: fork/exec /no/such/program: no such file or directory"},
		"it hangs":      {in: Command{Args: []string{"sleep", "600"}, Timeout: time.Second}, wantErr: "run sleep: signal: killed"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if err := tc.in.Run(t.Context()); tc.wantErr == "" != (err == nil) || err != nil && err.Error() != tc.wantErr {
				t.Errorf("error %v, want %q", err, tc.wantErr)
			}
		})
	}
	// The children of a command are killed with it.
	child := filepath.Join(t.TempDir(), "child")
	pid := 0
	for timeout := time.Second; pid == 0; timeout *= 4 { // on a busy machine the command needs longer to have a child
		if timeout > 2*time.Minute {
			t.Fatal("the command had no child")
		}
		if err := (Command{Args: []string{"sh", "-c", "sleep 600 & echo $! > " + child + "; wait"}, Timeout: timeout}).Run(t.Context()); err == nil {
			t.Error("no error")
		}
		text, _ := os.ReadFile(child)
		pid, _ = strconv.Atoi(strings.TrimSpace(string(text)))
	}
	// It was killed, but may not have ended, or may be a zombie.
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		state, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || strings.Contains(string(state), ") Z ") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("its child goes on: %s", state)
		}
	}
	for _, name := range []string{file, file + " $HOME;"} {
		if _, err := os.Stat(name); err != nil {
			t.Error(err)
		}
	}
}

func TestParseSignal(t *testing.T) {
	cases := map[string]struct {
		want    Signal
		wantErr string
	}{
		"HUP:1":                {want: Signal{syscall.SIGHUP, "1"}},
		"SIGUSR1:/run/app.pid": {want: Signal{syscall.SIGUSR1, "/run/app.pid"}},
		"term:nginx":           {want: Signal{syscall.SIGTERM, "nginx"}},
		"HUP":                  {wantErr: `"HUP" is not SIGNAL:PROCESS, such as HUP:/run/app.pid`},
		"HUP:":                 {wantErr: `"HUP:" is not SIGNAL:PROCESS, such as HUP:/run/app.pid`},
		"HIP:1":                {wantErr: `"HIP" is no signal`},
		"HUP:0":                {wantErr: "0 is no process"},
		"HUP:-1":               {wantErr: "-1 is no process"}, // kill takes it for all processes
	}
	for in, tc := range cases {
		t.Run(in, func(t *testing.T) {
			got, err := ParseSignal(in)
			if tc.wantErr == "" != (err == nil) || err != nil && err.Error() != tc.wantErr {
				t.Errorf("error %v, want %q", err, tc.wantErr)
			}
			if got != tc.want {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
}

func TestSignal(t *testing.T) {
	dir := t.TempDir()
	sleep, err := exec.LookPath("sleep")
	must(t, err)
	// A name that no other process has, and that is longer than Linux keeps.
	program := filepath.Join(dir, fmt.Sprintf("sk%d-sleeps-long", os.Getpid()))
	must(t, os.Symlink(sleep, program))
	pidFile := filepath.Join(dir, "pid")
	cases := map[string]func(pid int) string{
		"by id":   func(pid int) string { return fmt.Sprint(pid) },
		"by file": func(int) string { return pidFile },
		"by name": func(int) string { return filepath.Base(program) },
	}
	for name, of := range cases {
		t.Run(name, func(t *testing.T) {
			child := exec.CommandContext(t.Context(), program, "600")
			must(t, child.Start())
			must(t, os.WriteFile(pidFile, fmt.Appendf(nil, "%d\n", child.Process.Pid), 0o600))
			signal, err := ParseSignal("USR1:" + of(child.Process.Pid))
			must(t, err)
			must(t, signal.Run(t.Context()))
			exit := &exec.ExitError{}
			if err := child.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGUSR1 {
				t.Errorf("it ended with %v", err)
			}
			if err := signal.Run(t.Context()); name != "by name" && err == nil || err != nil && !strings.HasPrefix(err.Error(), "signal "+of(child.Process.Pid)+": ") {
				t.Errorf("it is gone: %v", err)
			}
		})
	}
	must(t, os.WriteFile(pidFile, []byte("none"), 0o600))
	for of, want := range map[string]string{
		pidFile:                       "signal " + pidFile + ": the file holds no process id",
		filepath.Join(dir, "missing"): "signal " + dir + "/missing: open " + dir + "/missing: no such file or directory",
		"sk-no-such-process":          "signal sk-no-such-process: no process has this name",
	} {
		if err := (Signal{syscall.SIGHUP, of}).Run(t.Context()); err == nil || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
	}
}
