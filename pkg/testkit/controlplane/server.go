package controlplane

import (
	"context"
	"errors"
	"fmt"
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
	entries, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		data, err := os.ReadFile(entry)
		args := strings.Split(strings.TrimSuffix(string(data), "\x00"), "\x00")
		if err != nil || filepath.Base(args[0]) != "kube-apiserver" || !slices.Contains(args, "--secure-port="+port) {
			continue // another process, or one that is gone
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(entry)))
		return &server{args: args, pid: pid}, err
	}
	return nil, errors.New("the process of kube-apiserver was not found")
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
