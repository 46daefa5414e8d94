package e2e

import (
	"context"
	"errors"
	"net"
	"net/http"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/sakeeper/sakeeper/pkg/servingcert/pki"
	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
	"github.com/sakeeper/sakeeper/pkg/testkit/faults"
)

// stopping is a webhook that gets SIGTERM during a review.
type stopping struct {
	namespace string
	proxy     *faults.Proxy // through which it asks the API server
	address   string
	client    *http.Client
	process   *controlplane.Sakeeper
}

func newStopping(t *testing.T) stopping {
	t.Helper()
	s := stopping{namespace: newNamespace(t, shared.client)}
	var err error
	s.proxy, err = faults.Start(shared.cp.Admin)
	must(t, err)
	t.Cleanup(s.proxy.Close)
	w, err := controlplane.NewWebhook()
	must(t, err)
	s.address = w.Address
	dir := t.TempDir()
	kubeconfig := filepath.Join(dir, "kubeconfig")
	must(t, s.proxy.Kubeconfig(kubeconfig))
	ca := mustAuthority(t, time.Now())
	s.client = caller(t, pki.Bundle(ca.Cert()))
	certFile, keyFile := mustWritePair(t, dir, mustServe(t, ca, time.Now()))
	host, port, err := net.SplitHostPort(w.Address)
	must(t, err)
	s.process = startReadySakeeper(t, []string{
		"webhook", "--kubeconfig", kubeconfig, "--bind-address", host, "--secure-port", port, "--service-accounts=late",
		"--tls-cert-file", certFile, "--tls-private-key-file", keyFile, "--shutdown-delay-duration=0s",
	})
	return s
}

// ask sends a review of a pod of the account late, whose read is delayed by read, and sends
// SIGTERM to the process. finish checks that the pod is allowed, unless the account came too late,
// and that the process exits without an error.
func (s stopping) ask(t *testing.T, read *faults.Injection) (finish func(inTime bool)) {
	t.Helper()
	wanted := pod("under-way")
	wanted.Spec.ServiceAccountName = "late"
	body := mustJSON(t, review(t, s.namespace, wanted))
	answered := make(chan struct{})
	var code int
	var answer string
	go func() {
		defer close(answered)
		code, answer = do(t, s.client, http.MethodPost, "https://"+s.address+"/mutate/pods?timeout=30s", body)
	}()
	eventually(t, "the review", func(context.Context) error {
		if read.Hits() == 0 {
			return errors.New("no account was read")
		}
		return nil
	})
	must(t, s.process.Signal(syscall.SIGTERM))
	eventually(t, "the end of listening", func(ctx context.Context) error {
		connection, err := (&net.Dialer{}).DialContext(ctx, "tcp", s.address)
		if err == nil {
			return errors.Join(errors.New("it still listens"), connection.Close())
		}
		return nil
	})
	select {
	case <-answered:
		t.Errorf("answered %d %s before the account was read", code, answer)
	default:
	}
	return func(inTime bool) {
		t.Helper()
		<-answered
		if response := mustAnswer(t, answer); code != http.StatusOK || inTime && (!response.Allowed || len(response.Patch) == 0) {
			t.Errorf("answered %d %s", code, answer)
		}
		if err := s.process.Wait(); err != nil {
			t.Errorf("ended with %v", err)
		}
	}
}

func readOfLate(r faults.Request) bool { return r.Kind() == "get serviceaccounts" && r.Name == "late" }

func TestReviewsUnderWayAreAnsweredBeforeTheEnd(t *testing.T) {
	t.Parallel()
	t.Run("by a read", func(t *testing.T) {
		s := newStopping(t)
		// The account is not in the cache, because watch events are delayed.
		defer s.proxy.Inject(faults.Silence(), func(r faults.Request) bool { return r.Kind() == "watch serviceaccounts" }).Lift()
		mustCreateAccount(t, shared.client, s.namespace, "late")
		read := s.proxy.Inject(faults.Silence(), readOfLate)
		finish := s.ask(t, read)
		read.Lift()
		finish(true)
	})
	t.Run("by the watch", func(t *testing.T) {
		for !answeredByTheWatch(t) {
			t.Log("the account came too late: once more")
		}
	})
}

// answeredByTheWatch creates the account after the read, and returns false if it may have come too
// late: the webhook waits for two seconds.
func answeredByTheWatch(t *testing.T) (inTime bool) {
	t.Helper()
	s := newStopping(t)
	mark := mustMark(t, shared.cp)
	read := s.proxy.Inject(faults.Silence(), readOfLate)
	finish := s.ask(t, read)
	lifted := time.Now()
	read.Lift()
	eventually(t, "the read", func(ctx context.Context) error {
		reads, err := shared.cp.Audit.Since(ctx, mark, func(r controlplane.Request) bool {
			return r.Verb == "get" && r.Object.Name == "late" && r.Object.Namespace == s.namespace && r.Response.Code == http.StatusNotFound
		})
		if err == nil && len(reads) == 0 {
			err = errors.New("it did not come")
		}
		return err
	})
	mustCreateAccount(t, shared.client, s.namespace, "late")
	inTime = time.Since(lifted) < time.Second
	finish(inTime)
	return inTime
}
