package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
	"github.com/sakeeper/sakeeper/pkg/testkit/faults"
)

// process is a process of sakeeper that is started again when it ends, as kubelet does.
type process struct {
	name, binary string
	args         []string
	wire         *faults.Wire // nil: it has none
	source       string       // its IP address, as the API server sees it
	secrets      *secrecy

	mu      sync.Mutex
	current *controlplane.Sakeeper
	clock   string // seconds that its clock is ahead
	stopped bool
	all     sync.WaitGroup
}

func (p *process) start() { p.all.Go(p.run) }

func (p *process) run() {
	for {
		s, err := p.begin()
		if s == nil && err == nil {
			return // stopped
		}
		if err == nil {
			_ = s.Wait() // what it printed says why it ended
		}
		time.Sleep(300 * time.Millisecond)
	}
}

func (p *process) begin() (*controlplane.Sakeeper, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopped {
		return nil, nil
	}
	binary, args := p.binary, p.args
	if p.clock != "" {
		binary, args = "env", append([]string{"SOAK_CLOCK=" + p.clock, p.binary}, p.args...)
	}
	s, err := controlplane.StartSakeeper(binary, args, logWriter{p.name, p.secrets})
	if err == nil {
		p.current = s
	}
	return s, err
}

func (p *process) sakeeper() *controlplane.Sakeeper {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.current
}

func (p *process) signal(sig syscall.Signal) {
	if s := p.sakeeper(); s != nil {
		_ = s.Signal(sig) // it may have ended
	}
}

// setClock restarts it with a clock that is ahead by some seconds.
func (p *process) setClock(seconds string) {
	p.mu.Lock()
	p.clock = seconds
	p.mu.Unlock()
	p.signal(syscall.SIGKILL)
}

// mend lets it run, with the right clock, and talk to the API server.
func (p *process) mend() {
	p.signal(syscall.SIGCONT)
	if p.wire != nil {
		p.wire.Heal()
	}
	p.mu.Lock()
	wrong := p.clock != ""
	p.mu.Unlock()
	if wrong {
		p.setClock("")
	}
}

func (p *process) stop() {
	p.mu.Lock()
	p.stopped = true
	p.mu.Unlock()
	p.signal(syscall.SIGKILL)
	p.all.Wait()
}

// waitReady waits until it is ready, also if it is started again meanwhile.
func (p *process) waitReady(ctx context.Context) error {
	last := errors.New("not started")
	err := wait.PollUntilContextTimeout(ctx, 100*time.Millisecond, readyGuard, true, func(ctx context.Context) (bool, error) {
		s := p.sakeeper()
		if s == nil {
			return false, nil
		}
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		code, body, err := s.Get(ctx, "/readyz")
		if err == nil && code != http.StatusOK {
			err = errors.New(body)
		}
		last = err
		return err == nil, nil
	})
	if err != nil {
		return fmt.Errorf("not ready: %s: %w", p.name, last)
	}
	return nil
}

// metrics are those of a process, or nothing if it does not answer.
func (p *process) metrics(ctx context.Context) string {
	_, text, err := p.sakeeper().Get(ctx, "/metrics")
	if err != nil {
		return ""
	}
	return text
}

// readyGuard is how long a process may take until it is ready: client-go waits for up to a minute
// between two tries, several times in a row.
const readyGuard = 4 * time.Minute

// logWriter looks for what must not be in a log.
type logWriter struct {
	name    string
	secrets *secrecy
}

func (l logWriter) Write(line []byte) (int, error) {
	l.secrets.scan("log of "+l.name, line)
	if dir := os.Getenv("SOAK_LOGS"); dir != "" {
		file, err := os.OpenFile(dir+"/"+l.name+".log", os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err == nil {
			_, _ = file.Write(line)
			_ = file.Close()
		}
	}
	return len(line), nil
}

// secrecy looks for tokens, keys, and signs of a defect in what others can read.
type secrecy struct {
	mu    sync.Mutex
	found []violation
}

func newSecrecy() *secrecy { return &secrecy{} }

func (s *secrecy) scan(where string, text []byte) {
	for _, secret := range []string{"eyJhbGciOi", "ZXlKaGJHY2lPa", "PRIVATE KEY", "UFJJVkFURSBLRVk"} {
		if strings.Contains(string(text), secret) {
			s.add(violation{"secrecy", fmt.Sprintf("%s has %q", where, secret)})
		}
	}
	for _, defect := range []string{"WARNING: DATA RACE", "panic: ", "fatal error: ", "Observed a panic"} {
		if strings.Contains(string(text), defect) {
			s.add(violation{"defect", fmt.Sprintf("%s: %.3000s", where, text)})
		}
	}
}

func (s *secrecy) add(v violation) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.found = append(s.found, v)
}

func (s *secrecy) violations() []violation {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.found
}
