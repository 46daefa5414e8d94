package load

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
)

// clients are the good ones.
const clients = 200

// beAttacked measures good clients alone, then with attackers, and then alone again.
func beAttacked(t *testing.T, p plane, s *controlplane.Sakeeper, user string, t1 target, refused func(int, []byte) bool, mostMiB int) {
	t.Helper()
	lasts, judged := attacked(t)
	senders := make([]func(context.Context) error, clients)
	var hangUps []func()
	for i := range senders {
		client := t1.newClient()
		hangUps = append(hangUps, client.CloseIdleConnections)
		senders[i] = func(ctx context.Context) error { return t1.sendGood(ctx, client) }
	}
	closedLoops(t.Context(), time.Second, senders) // the server has begun all that it keeps
	hangUp := func() {
		for _, f := range hangUps {
			f()
		}
	}
	hangUp()
	before := settled(t, s)

	quiet := closedLoops(t.Context(), lasts/3, senders)
	mark, err := p.Audit.Mark(t.Context())
	must(t, err)
	ctx, end := context.WithCancel(t.Context())
	defer end()
	var a attack
	over := make(chan struct{})
	go func() {
		defer close(over)
		a.run(ctx, t1, refused)
	}()
	loud := closedLoops(t.Context(), lasts, senders)
	end()
	<-over
	requests, err := p.Audit.Since(t.Context(), mark, func(r controlplane.Request) bool { return r.User.Username == user && r.Verb != "watch" })
	must(t, err)
	quiet = quiet.and(closedLoops(t.Context(), lasts/3, senders))
	hangUp()
	t.Logf("%d clients alone: %v", clients, quiet)
	t.Logf("with attackers: %v", loud)
	t.Logf("p99 is %.1f times the quiet one; attackers: %v", float64(loud.quantile(0.99))/float64(quiet.quantile(0.99)), &a)
	t.Logf("peak memory %d MiB; requests to the API server: %v", peakMemory(t, s), controlplane.Count(requests))

	if err := errors.Join(append(quiet.errs, loud.errs...)...); err != nil {
		t.Errorf("%d good requests failed: %.2000s", len(quiet.errs)+len(loud.errs), err.Error())
	}
	if judged && loud.quantile(0.99) > 10*quiet.quantile(0.99) {
		t.Errorf("p99 is more than 10 times the quiet one")
	}
	if n := a.accepted.Load(); n > 0 {
		t.Errorf("%d requests of the flood were not refused", n)
	}
	if err := a.least(); err != nil {
		t.Error(err)
	}
	// The liveness of caches costs two requests in 5 s each.
	if most := 20 + 2*int(loud.lasted/time.Second); len(requests) > most {
		t.Errorf("%d requests to the API server, want at most %d", len(requests), most)
	}
	if got := peakMemory(t, s); got > mostMiB {
		t.Errorf("peak memory %d MiB, want at most %d", got, mostMiB)
	}
	after := 0
	eventually(t, "no goroutine is left", func(ctx context.Context) error {
		now, err := goroutines(ctx, s)
		after = now
		if err == nil && now > before+20 { // a connection has at least one, and there were hundreds
			err = fmt.Errorf("%d goroutines, before it %d", now, before)
		}
		return err
	})
	t.Logf("goroutines without clients: %d before, %d after", before, after)
}

// settled waits until the number of goroutines falls no more, and returns the least: a few come and go
// with probes and watches.
func settled(t *testing.T, s *controlplane.Sakeeper) int {
	t.Helper()
	least, since := math.MaxInt, 0
	eventually(t, "the number of goroutines falls no more", func(ctx context.Context) error {
		now, err := goroutines(ctx, s)
		if err != nil {
			return err
		}
		if since++; now < least {
			least, since = now, 0
		}
		if since < 25 {
			return fmt.Errorf("%d goroutines", now)
		}
		return nil
	})
	return least
}

// TestLongAttackOnTheWebhook: the flood is of bodies that are no reviews.
func TestLongAttackOnTheWebhook(t *testing.T) {
	p := newPlane(t, controlplane.Options{})
	s, address := startWebhook(t, p)
	secret, err := p.client.CoreV1().Secrets(controlplane.Namespace).Get(t.Context(), "sakeeper-webhook-certificates", metav1.GetOptions{})
	must(t, err)
	config := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: x509.NewCertPool()}
	config.RootCAs.AppendCertsFromPEM(secret.Data["ca.crt"])
	review := func(padding int) []byte {
		return fmt.Appendf(nil, `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"705ab4f5-6393-11e8-b7cc-42010a800002","operation":"CREATE",`+
			`"kind":{"group":"","version":"v1","kind":"Pod"},"resource":{"group":"","version":"v1","resource":"pods"},"name":"pod","namespace":"default","object":{"apiVersion":"v1","kind":"Pod",`+
			`"metadata":{"name":"pod","namespace":"default","annotations":{"padding":"%s"}},"spec":{"containers":[{"name":"main","image":"i"}]}}}}`, strings.Repeat("x", padding))
	}
	beAttacked(t, p, s, "system:serviceaccount:sakeeper-system:sakeeper-webhook", target{
		address: address, path: "/mutate/pods", tls: config, good: review(0), huge: review(7<<20 - 1000),
		answered: func(body []byte) error {
			var review admissionv1.AdmissionReview
			if err := json.Unmarshal(body, &review); err != nil {
				return err
			}
			if r := review.Response; r == nil || !r.Allowed || !bytes.Contains(r.Patch, []byte("kube-api-access-")) {
				return fmt.Errorf("answered %.300s", body)
			}
			return nil
		},
		flood: func(n int64) []byte {
			return fmt.Appendf(nil, `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":%d}`, n)
		},
	}, refusedByCode, 512)
}

// TestLongAttackOnTheAuthenticator: the flood is of tokens with made-up key ids, of its own
// issuer and of a foreign one whose keys are fetched, and of tokens with bad signatures.
func TestLongAttackOnTheAuthenticator(t *testing.T) {
	p := newPlane(t, controlplane.Options{})
	i := newIdentity(t)
	var fetches atomic.Int64
	foreign := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fetches.Add(1)
		if strings.HasSuffix(r.URL.Path, "/jwks") {
			_, _ = fmt.Fprint(w, `{"keys":[]}`)
			return
		}
		_, _ = fmt.Fprintf(w, `{"issuer":"https://%s","jwks_uri":"https://%[1]s/jwks"}`, r.Host)
	}))
	foreign.TLS = &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{i.pair}}
	foreign.StartTLS()
	t.Cleanup(foreign.Close)
	file := filepath.Join(t.TempDir(), "foreign.yaml")
	must(t, os.WriteFile(file, fmt.Appendf(nil, "issuers: [{url: %q, usernamePrefix: 'f:', caFile: %s}]\n", foreign.URL, i.certFile), 0o600))
	s, address := startAuthenticator(t, p, i, "--foreign-issuers-file", file)

	review := func(compact string) []byte {
		return fmt.Appendf(nil, `{"apiVersion":"authentication.k8s.io/v1","kind":"TokenReview","spec":{"token":%q}}`, compact)
	}
	good := sign(t, p, otherIssuer)
	header, rest, _ := strings.Cut(good, ".")
	payload, signature, _ := strings.Cut(rest, ".")
	_, foreignRest, _ := strings.Cut(sign(t, p, foreign.URL), ".")
	answered := func(body []byte) (status authenticationv1.TokenReviewStatus, err error) {
		var review authenticationv1.TokenReview
		err = json.Unmarshal(body, &review)
		return review.Status, err
	}
	began := time.Now()
	beAttacked(t, p, s, "system:serviceaccount:sakeeper-system:"+controlplane.AuthenticatorAccount, target{
		address: address, path: "/authenticate", tls: i.client(t), good: review(good), huge: review(strings.Repeat("x", 255<<10)),
		answered: func(body []byte) error {
			status, err := answered(body)
			if err == nil && !status.Authenticated {
				err = fmt.Errorf("refused: %s", status.Error)
			}
			return err
		},
		flood: func(n int64) []byte {
			unknown := base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"alg":"RS256","kid":"%x"}`, rand.Uint64()))
			switch n % 3 {
			case 0:
				return review(unknown + "." + rest)
			case 1:
				return review(unknown + "." + foreignRest)
			default:
				return review(header + "." + payload + "." + strings.Repeat(string('A'+rune(n%7)), len(signature)))
			}
		},
	}, func(code int, body []byte) bool {
		status, err := answered(body)
		return code != http.StatusOK || err == nil && !status.Authenticated
	}, 256)
	// Two requests for each fetch, of which there is one in 10 s.
	if most := 2 * int64(time.Since(began)/(10*time.Second)+3); fetches.Load() > most || fetches.Load() < 2 {
		t.Errorf("the keys of the foreign issuer were asked for %d times, want at most %d", fetches.Load(), most)
	}
}
