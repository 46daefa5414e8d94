package controlplane

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
)

// etcd is the process of etcd. envtest starts it, but does not expose it.
type etcd struct {
	args    []string
	pid     int
	dataDir string
	// exited is nil while it is envtest's child.
	exited <-chan struct{}
}

func (cp *ControlPlane) findEtcd() error {
	dir := cp.env.ControlPlane.Etcd.DataDir
	args, pid, err := findProcess("etcd", "--data-dir="+dir)
	cp.etcd = &etcd{args: args, pid: pid, dataDir: dir}
	return err
}

// EtcdPID is the process id of etcd.
func (cp *ControlPlane) EtcdPID() int { return cp.etcd.pid }

// KillEtcd kills etcd, as a crash would. The API server keeps running.
func (cp *ControlPlane) KillEtcd() error {
	_ = syscall.Kill(cp.etcd.pid, syscall.SIGKILL) // it may have exited
	if cp.etcd.exited != nil {
		<-cp.etcd.exited
		return nil
	}
	return wait.PollUntilContextTimeout(context.Background(), time.Millisecond, time.Minute, true, func(context.Context) (bool, error) {
		return errors.Is(syscall.Kill(cp.etcd.pid, 0), syscall.ESRCH), nil
	})
}

// StartEtcd starts etcd again after KillEtcd, with the same ports and data. It does not wait until
// etcd answers.
func (cp *ControlPlane) StartEtcd() error {
	cmd := exec.Command(cp.etcd.args[0], cp.etcd.args[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start etcd: %w", err)
	}
	exited := make(chan struct{})
	go func() {
		defer close(exited)
		_ = cmd.Wait() // killed: the exit code has no meaning
	}()
	cp.etcd.pid, cp.etcd.exited = cmd.Process.Pid, exited
	return nil
}

// SaveEtcd copies the data of etcd, which must not run, to a new directory.
func (cp *ControlPlane) SaveEtcd(dir string) error { return os.CopyFS(dir, os.DirFS(cp.etcd.dataDir)) }

// RestoreEtcd replaces the data of etcd, which must not run, by what SaveEtcd copied.
func (cp *ControlPlane) RestoreEtcd(dir string) error {
	if err := os.RemoveAll(cp.etcd.dataDir); err != nil {
		return err
	}
	return os.CopyFS(cp.etcd.dataDir, os.DirFS(dir))
}
