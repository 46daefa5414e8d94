package load

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
)

// requesters are the closed loops of TokenRequests: as many as keep two cores busy.
const requesters = 32

// startSigner signs with the key of p, and returns the socket.
func startSigner(t *testing.T, keyFile string) (*controlplane.Sakeeper, string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "signer-") // the paths of sockets must be short
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	return start(t, "signer", "--service-account-private-key-file", keyFile, "--socket", socket), socket
}

func (p plane) requestToken(ctx context.Context) (string, error) {
	granted, err := p.client.CoreV1().ServiceAccounts("default").CreateToken(ctx, "default", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		return "", err
	}
	return granted.Status.Token, nil
}

// TestLongTokenRequestsWithTheSignerAndInProcess compares an API server that uses the signer with one that
// has the key file, in turns, with the same RSA key.
func TestLongTokenRequestsWithTheSignerAndInProcess(t *testing.T) {
	lasts, _ := attacked(t)
	inProcess := newPlane(t, controlplane.Options{AuditAnswersOnly: true})
	s, socket := startSigner(t, inProcess.SigningKeyFile)
	external := newPlane(t, controlplane.Options{AuditAnswersOnly: true, SigningEndpoint: socket})
	var results [2]measured
	const turns = 3
	for range turns {
		for i, p := range []plane{inProcess, external} {
			senders := make([]func(context.Context) error, requesters)
			for j := range senders {
				senders[j] = func(ctx context.Context) error {
					_, err := p.requestToken(ctx)
					return err
				}
			}
			results[i] = results[i].and(closedLoops(t.Context(), lasts/(2*turns), senders))
		}
	}
	t.Logf("in process: %v", results[0])
	t.Logf("with the signer: %v", results[1])
	t.Logf("rate with the signer: %.2f of in process; p99 %.2f times; the signer's peak memory %d MiB",
		results[1].rate()/results[0].rate(), float64(results[1].quantile(0.99))/float64(results[0].quantile(0.99)), peakMemory(t, s))
	if err := errors.Join(append(results[0].errs, results[1].errs...)...); err != nil {
		t.Errorf("%d requests failed: %.2000s", len(results[0].errs)+len(results[1].errs), err.Error())
	}
}
