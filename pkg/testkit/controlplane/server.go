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

// server is the process of the API server. envtest starts it, but does not expose it, and a
// restart by envtest loses every user.
type server struct {
	args []string
	pid  int
	// output and exited are nil while it is envtest's child.
	output *logBuffer
	exited <-chan struct{}
}

// findServer finds the API server on port.
func findServer(port string) (*server, error) {
	args, pid, err := findProcess("kube-apiserver", "--secure-port="+port)
	return &server{args: args, pid: pid}, err
}

// findProcess finds a process of program that has argument.
func findProcess(program, argument string) (args []string, pid int, err error) {
	entries, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return nil, 0, err
	}
	for _, entry := range entries {
		data, err := os.ReadFile(entry)
		args = strings.Split(strings.TrimSuffix(string(data), "\x00"), "\x00")
		if err != nil || filepath.Base(args[0]) != program || !slices.Contains(args, argument) {
			continue // another process, or one that has exited
		}
		pid, err = strconv.Atoi(filepath.Base(filepath.Dir(entry)))
		return args, pid, err
	}
	return nil, 0, fmt.Errorf("no process of %s was found", program)
}

// cleanup kills the control plane and removes its files when this process ends without Stop,
// even by SIGKILL: a shell reads from a pipe, which the end of this process closes. The
// control plane has process groups of its own, so signals to this one's do not reach it.
type cleanup struct {
	cmd  *exec.Cmd
	pipe io.Closer
}

func (cp *ControlPlane) startCleanup() error {
	cmd := exec.Command("sh", "-c", `read -r _; kill -9 "$1" "$2"; shift 2; rm -rf "$@"`, "cleanup",
		strconv.Itoa(cp.etcd.pid), strconv.Itoa(cp.server.pid), cp.dir, cp.etcd.dataDir, cp.env.ControlPlane.APIServer.CertDir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	pipe, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	cp.cleanup = cleanup{cmd: cmd, pipe: pipe}
	return cmd.Start()
}

// cancel ends the shell before it cleans up.
func (c cleanup) cancel() {
	if c.cmd != nil {
		_ = c.cmd.Process.Kill()
		_ = c.cmd.Wait() // killed: the exit code has no meaning
		_ = c.pipe.Close()
	}
}

// KillServer kills the API server, as a crash would. etcd keeps running.
func (cp *ControlPlane) KillServer() error {
	_ = syscall.Kill(cp.server.pid, syscall.SIGKILL) // it may have exited
	if cp.server.exited != nil {
		<-cp.server.exited
		return cp.Audit.serverDied()
	}
	err := wait.PollUntilContextTimeout(context.Background(), time.Millisecond, time.Minute, true, func(context.Context) (bool, error) {
		return errors.Is(syscall.Kill(cp.server.pid, 0), syscall.ESRCH), nil
	})
	return errors.Join(err, cp.Audit.serverDied())
}

// StartServer starts the API server again after KillServer, with the same port and data,
// and returns when it is ready. One that exits before is started again: a connection may
// have taken its port meanwhile.
func (cp *ControlPlane) StartServer(ctx context.Context) error {
	client, err := kubernetes.NewForConfig(cp.Admin)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for {
		exited, err := cp.server.start()
		if err != nil {
			return err
		}
		err = wait.PollUntilContextCancel(ctx, 100*time.Millisecond, true, func(ctx context.Context) (bool, error) {
			select {
			case <-exited:
				return false, errServerExited
			default:
			}
			return client.CoreV1().RESTClient().Get().AbsPath("/readyz").Timeout(5*time.Second).Do(ctx).Error() == nil, nil
		})
		if !errors.Is(err, errServerExited) {
			if err != nil {
				return fmt.Errorf("wait for kube-apiserver to be ready: %w; it printed: %s", err, cp.server.output.String())
			}
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %s", errServerExited, cp.server.output.String())
		case <-time.After(time.Second):
		}
	}
}

var errServerExited = errors.New("kube-apiserver exited")

// start starts the process; exited is closed when it has exited.
func (s *server) start() (exited <-chan struct{}, err error) {
	cmd := exec.Command(s.args[0], s.args[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	s.output = &logBuffer{}
	cmd.Stdout, cmd.Stderr = s.output, s.output
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start kube-apiserver: %w", err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = cmd.Wait() // what it printed says why
	}()
	s.pid, s.exited = cmd.Process.Pid, done
	return done, nil
}

// RestartWith restarts the API server with more flags.
func (cp *ControlPlane) RestartWith(ctx context.Context, args ...string) error {
	if err := cp.KillServer(); err != nil {
		return err
	}
	cp.server.args = append(slices.Clip(cp.server.args), args...)
	return cp.StartServer(ctx)
}

// UseSigner restarts the API server with --service-account-signing-endpoint=socket instead of
// its key files, as when a cluster is moved to an external signer.
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
