package controlplane

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
)

// server is the process of the API server, which envtest starts and does not give
// out. Its own way to restart forgets every user.
type server struct {
	args []string
	pid  int
	cmd  *exec.Cmd // nil while it is envtest's child
}

// findServer finds the API server that serves port.
func findServer(port string) (*server, error) {
	args, pid, err := findProcess("kube-apiserver", "--secure-port="+port)
	return &server{args: args, pid: pid}, err
}

// findProcess finds the process of that program with that argument.
func findProcess(program, argument string) (args []string, pid int, err error) {
	entries, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return nil, 0, err
	}
	for _, entry := range entries {
		data, err := os.ReadFile(entry)
		args = strings.Split(strings.TrimSuffix(string(data), "\x00"), "\x00")
		if err != nil || filepath.Base(args[0]) != program || !slices.Contains(args, argument) {
			continue // another process, or one that is gone
		}
		pid, err = strconv.Atoi(filepath.Base(filepath.Dir(entry)))
		return args, pid, err
	}
	return nil, 0, fmt.Errorf("the process of %s was not found", program)
}

// guard cleans up when this process ends without Stop, however it ends: a shell
// waits on a pipe that nobody writes to. The control plane is in process groups of
// its own, which no signal to this one reaches.
type guard struct {
	cmd  *exec.Cmd
	pipe io.Closer
}

func (cp *ControlPlane) startGuard() error {
	etcd := cp.env.ControlPlane.Etcd
	_, pid, err := findProcess("etcd", "--data-dir="+etcd.DataDir)
	if err != nil {
		return err
	}
	cmd := exec.Command("sh", "-c", `read -r _; kill -9 "$1" "$2"; shift 2; rm -rf "$@"`, "guard",
		strconv.Itoa(pid), strconv.Itoa(cp.server.pid), cp.dir, etcd.DataDir, cp.env.ControlPlane.APIServer.CertDir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	pipe, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	cp.guard = guard{cmd: cmd, pipe: pipe}
	return cmd.Start()
}

// dismiss ends the guard, which has nothing left to do.
func (g guard) dismiss() {
	if g.cmd != nil {
		_ = g.cmd.Process.Kill()
		_ = g.cmd.Wait() // it was killed: its exit code says nothing
		_ = g.pipe.Close()
	}
}

// KillServer ends the API server at once, as a crash would; etcd stays.
func (cp *ControlPlane) KillServer() error {
	_ = syscall.Kill(cp.server.pid, syscall.SIGKILL) // it may be gone
	if cp.server.cmd != nil {
		_ = cp.server.cmd.Wait() // it was killed: its exit code says nothing
		return nil
	}
	return wait.PollUntilContextTimeout(context.Background(), time.Millisecond, 10*time.Second, true, func(context.Context) (bool, error) {
		return errors.Is(syscall.Kill(cp.server.pid, 0), syscall.ESRCH), nil
	})
}

// StartServer starts the API server that was killed anew, on the same port and
// data, and returns when it is ready.
func (cp *ControlPlane) StartServer(ctx context.Context) error {
	cmd := exec.Command(cp.server.args[0], cp.server.args[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start kube-apiserver: %w", err)
	}
	cp.server = &server{args: cp.server.args, pid: cmd.Process.Pid, cmd: cmd}
	client, err := kubernetes.NewForConfig(cp.Admin)
	if err != nil {
		return err
	}
	return wait.PollUntilContextTimeout(ctx, 100*time.Millisecond, time.Minute, true, func(ctx context.Context) (bool, error) {
		return client.CoreV1().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error() == nil, nil
	})
}

// UseSigner starts the API server anew, with a signer's socket in the place of its key
// files, as somebody who moves a cluster to one does.
func (cp *ControlPlane) UseSigner(ctx context.Context, socket string) error {
	if err := cp.KillServer(); err != nil {
		return err
	}
	cp.server.args = slices.DeleteFunc(slices.Clone(cp.server.args), func(arg string) bool {
		return strings.HasPrefix(arg, "--service-account-key-file=") || strings.HasPrefix(arg, "--service-account-signing-key-file=")
	})
	cp.server.args = append(cp.server.args, "--service-account-signing-endpoint="+socket)
	return cp.StartServer(ctx)
}
