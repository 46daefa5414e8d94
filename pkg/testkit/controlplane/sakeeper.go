package controlplane

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/apimachinery/pkg/util/wait"
)

// The namespace and ServiceAccount of sakeeper controllers in manifests/.
const (
	Namespace = "sakeeper-system"
	Account   = "sakeeper-controllers"
)

// Username is the user name of sakeeper controllers.
const Username = "system:serviceaccount:" + Namespace + ":" + Account

// Install applies the manifests for sakeeper controllers outside of the cluster, with the
// named components of manifests/components.
func (cp *ControlPlane) Install(ctx context.Context, components ...string) error {
	dirs := []string{"overlays/outside"}
	for _, component := range components {
		dirs = append(dirs, filepath.Join("components", component))
	}
	return cp.apply(ctx, nil, dirs...)
}

// Sakeeper is a running process of sakeeper.
type Sakeeper struct {
	// MetricsAddress and ProbesAddress are host:port of its two servers.
	MetricsAddress, ProbesAddress string

	cmd     *exec.Cmd
	logs    logBuffer
	exited  chan struct{}
	exitErr error
}

// ControllersArgs returns the arguments of sakeeper controllers for this control plane, with
// a kubeconfig of the ServiceAccount that Install created.
func (cp *ControlPlane) ControllersArgs() ([]string, error) {
	identity, err := cp.ServiceAccount(Namespace, Account)
	if err != nil {
		return nil, err
	}
	kubeconfig, err := cp.Kubeconfig("sakeeper-"+rand.String(5)+".kubeconfig", identity)
	return []string{
		"controllers", "--kubeconfig", kubeconfig,
		"--service-account-private-key-file", cp.SigningKeyFile,
		"--root-ca-file", cp.CAFile,
		"--leader-elect-resource-namespace", Namespace,
	}, err
}

// StartSakeeper runs binary with args, on free ports for metrics and probes. Its log is also
// written to output, which may be nil.
func StartSakeeper(binary string, args []string, output io.Writer) (*Sakeeper, error) {
	metrics, err1 := FreeAddress()
	probes, err2 := FreeAddress()
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	s := &Sakeeper{MetricsAddress: metrics, ProbesAddress: probes, exited: make(chan struct{})}
	s.logs.copy = output
	s.cmd = exec.Command(binary, append(slices.Clip(args),
		"--metrics-bind-address", metrics, "--health-probe-bind-address", probes)...)
	s.cmd.Stdout, s.cmd.Stderr = &s.logs, &s.logs
	// It must neither get the terminal's Ctrl-C nor outlive this process.
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", binary, err)
	}
	go func() {
		defer close(s.exited)
		s.exitErr = s.cmd.Wait()
	}()
	return s, nil
}

// givenAddresses are those that FreeAddress has returned.
var givenAddresses sync.Map

// FreeAddress returns a host:port of this machine on which nothing listens, and another one in each
// call: what it is for may not listen yet. Its port is not one of those that connections get from
// the kernel, which could take it while what listened there is started again.
func FreeAddress() (string, error) {
	const lowest, highest = 15_000, 32_768 // from where Linux takes the ports of connections
	var last error
	for range 1_000 {
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(rand.IntnRange(lowest, highest)))
		if _, given := givenAddresses.LoadOrStore(address, true); given {
			continue
		}
		listener, err := net.Listen("tcp", address)
		if err != nil {
			last = err
			continue
		}
		return address, listener.Close()
	}
	return "", fmt.Errorf("no free port: %w", last)
}

// Logs returns everything that the process has printed.
func (s *Sakeeper) Logs() string { return s.logs.String() }

// Get requests /metrics from the metrics server, and any other path from the probe server.
func (s *Sakeeper) Get(ctx context.Context, path string) (code int, body string, err error) {
	address := s.ProbesAddress
	if path == "/metrics" {
		address = s.MetricsAddress
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+path, nil)
	if err != nil {
		return 0, "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = response.Body.Close() }()
	data, err := io.ReadAll(response.Body)
	return response.StatusCode, string(data), err
}

// WaitReady waits until /readyz returns 200. It returns an error if the process exits.
func (s *Sakeeper) WaitReady(ctx context.Context) error {
	last := "no answer"
	err := wait.PollUntilContextTimeout(ctx, 20*time.Millisecond, 2*time.Minute, true, func(ctx context.Context) (bool, error) {
		select {
		case <-s.exited:
			return false, fmt.Errorf("sakeeper exited: %w", s.exitErr)
		default:
		}
		code, body, err := s.Get(ctx, "/readyz")
		if err == nil {
			last = body
		}
		return code == http.StatusOK, nil
	})
	if err != nil {
		return fmt.Errorf("wait for sakeeper to be ready (%s): %w", last, err)
	}
	return nil
}

// PID is the process id.
func (s *Sakeeper) PID() int { return s.cmd.Process.Pid }

// Signal sends sig to the process.
func (s *Sakeeper) Signal(sig syscall.Signal) error { return s.cmd.Process.Signal(sig) }

// Wait waits for the process to exit, and returns the error of [exec.Cmd.Wait].
func (s *Sakeeper) Wait() error {
	<-s.exited
	return s.exitErr
}

// Stop sends SIGTERM, and SIGKILL if the process has not exited after a minute.
func (s *Sakeeper) Stop() error {
	_ = s.Signal(syscall.SIGTERM)
	select {
	case <-s.exited:
	case <-time.After(time.Minute):
		_ = s.Signal(syscall.SIGKILL)
		<-s.exited
		return errors.New("sakeeper did not stop within a minute")
	}
	return s.exitErr
}

type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
	copy io.Writer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.copy != nil {
		_, _ = b.copy.Write(p)
	}
	return b.text.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}
