package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sakeeper/sakeeper/pkg/keys"
	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
	"github.com/sakeeper/sakeeper/pkg/token"
)

var errBroken = errors.New("the signer is broken")

// brittleSigner returns errors while it is broken, and counts attempts.
type brittleSigner struct {
	*token.Signer

	broken   atomic.Bool
	attempts atomic.Int64
}

func (s *brittleSigner) SignLegacy(ctx context.Context, claims token.LegacyClaims) (string, error) {
	s.attempts.Add(1)
	if s.broken.Load() {
		return "", errBroken
	}
	return s.Signer.SignLegacy(ctx, claims)
}

func mustReadKey(t *testing.T, path string) keys.PrivateKey {
	t.Helper()
	data, err := os.ReadFile(path)
	must(t, err)
	key, err := keys.ParsePrivate(data)
	must(t, err)
	return key
}

func TestLongSignerThatFails(t *testing.T) {
	t.Parallel()
	p := newControlPlane(t)
	set := keys.NewSet(mustReadKey(t, p.SigningKeyFile))
	signer := &brittleSigner{Signer: token.NewSigner(func() *keys.Set { return set })}
	account := mustCreateAccount(t, p.client, "default", "builder")
	signer.broken.Store(true)
	c := startInProcess(t, p, inProcessOptions{keys: set, signer: signer})

	// Each outage continues with the Secrets of the one before.
	outages := []struct {
		name    string
		lasts   time.Duration
		secrets int
	}{
		{name: "from the start on", lasts: 15 * time.Second, secrets: 200},
		{name: "of a signer that worked", lasts: 10 * time.Second, secrets: 100},
	}
	const workers = 10 // each may try at the end of the same pause of a second
	secrets := 0
	for _, outage := range outages {
		t.Run(outage.name, func(t *testing.T) {
			signer.broken.Store(true)
			mark, before, began := mustMark(t, p.ControlPlane), signer.attempts.Load(), time.Now()
			forEach(t, outage.secrets, func(ctx context.Context, i int) error {
				_, err := p.client.CoreV1().Secrets("default").Create(ctx, tokenSecret(fmt.Sprintf("s%03d", secrets+i), "builder"), metav1.CreateOptions{})
				return err
			})
			secrets += outage.secrets
			least := int64(outage.lasts/time.Second) / 2 // one every now and then
			eventuallyIn(t, patience, "attempts until the end of the outage", func(context.Context) error {
				if attempts := signer.attempts.Load() - before; attempts < least {
					return fmt.Errorf("%d of %d", attempts, least)
				}
				return passed(outage.lasts)(troubled{began: began})
			})
			attempts := signer.attempts.Load() - before
			limit := int64((1 + time.Since(began)/time.Second) * workers)
			counts := controlplane.Count(requests(t, p.ControlPlane, mark, ""))
			t.Logf("%d attempts to sign for %d secrets in %v, at most %d; requests: %v", attempts, outage.secrets, outage.lasts, limit, counts)
			if attempts > limit {
				t.Errorf("%d attempts to sign, want at most %d", attempts, limit)
			}
			for request := range counts {
				atTheStart := request == "get " || request == "get configmaps" // the version, and the published root CA
				if verb, _, _ := strings.Cut(request, " "); verb != "list" && !atTheStart {
					t.Errorf("%q while nothing could be signed", request)
				}
			}
			if err := c.ready(t.Context()); err == nil || !strings.Contains(err.Error(), errBroken.Error()) {
				t.Errorf("ready: %v, want that the signer is broken", err)
			}

			signer.broken.Store(false)
			mended := time.Now()
			eventually(t, "every secret", func(ctx context.Context) error { return filled(ctx, p, secrets) })
			t.Logf("all %d secrets were filled %v after the end", secrets, time.Since(mended).Round(time.Millisecond))
			eventually(t, "ready", c.ready)
			if got := controlplane.Count(requests(t, p.ControlPlane, mark, ""))["update secrets"]; got != outage.secrets {
				t.Errorf("%d updates of secrets, want one each for %d", got, outage.secrets)
			}
			last := fmt.Sprintf("s%03d", secrets-1)
			expectUser(t, p.ControlPlane, expectFilled(t, p.client, "default", last, account, p.Admin.CAData), "system:serviceaccount:default:builder")
		})
	}
	if got := controlplane.Count(requests(t, p.ControlPlane, 0, ""))["create tokenreviews"]; got != 0 {
		t.Errorf("%d tokens were reviewed, want none", got)
	}
}

// filled returns nil when there are n token Secrets, and all have a token.
func filled(ctx context.Context, p controlPlane, n int) error {
	secrets, err := p.client.CoreV1().Secrets("").List(ctx, metav1.ListOptions{FieldSelector: "type=" + string(corev1.SecretTypeServiceAccountToken)})
	if err != nil {
		return err
	}
	with := 0
	for _, secret := range secrets.Items {
		if len(secret.Data[corev1.ServiceAccountTokenKey]) > 0 {
			with++
		}
	}
	if with != n || len(secrets.Items) != n {
		return fmt.Errorf("%d of %d secrets have a token, want %d", with, len(secrets.Items), n)
	}
	return nil
}
