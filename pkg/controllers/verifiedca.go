package controllers

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/rest"

	"github.com/sakeeper/sakeeper/pkg/cabundle"
)

// The time for one handshake, and between two looks at a bundle that is not in use yet.
const (
	handshakeTimeout = 5 * time.Second
	recheckInterval  = 10 * time.Second
)

// verification is what a handshake with the API server shows about a CA bundle.
type verification int

const (
	noAnswer verification = iota // the API server cannot be reached, which is no evidence
	verified
	failed
)

// caVerdict says what becomes of a changed bundle.
type caVerdict int

const (
	waitForAnswer caVerdict = iota // the last good bundle stays
	useCA
	useUnverifiedCA // with a warning
	refuseCA        // the last good bundle stays, with a warning
)

// judgeCA decides about a changed bundle by what it and the one in use show. Where neither
// verifies the API server, as behind a load balancer with another certificate, nothing is known
// against the new one.
func judgeCA(changed, inUse verification) caVerdict {
	switch {
	case changed == verified:
		return useCA
	case changed == noAnswer || inUse == noAnswer:
		return waitForAnswer
	case inUse == verified:
		return refuseCA
	default:
		return useUnverifiedCA
	}
}

// verifiedCA is a source that takes a change over only if it verifies the API server, or if the
// bundle in use does not either.
type verifiedCA struct {
	Source[cabundle.Bundle]

	verify  func(context.Context, cabundle.Bundle) verification
	changed chan struct{}

	mu       sync.Mutex
	inUse    cabundle.Bundle
	pending  error // why the last good bundle stays
	onChange []func()
	warn     func(verdict caVerdict, text string) // may be nil
}

func newVerifiedCA(source Source[cabundle.Bundle], verify func(context.Context, cabundle.Bundle) verification) *verifiedCA {
	v := &verifiedCA{Source: source, verify: verify, changed: make(chan struct{}, 1), inUse: source.Get()}
	source.OnChange(func() {
		select {
		case v.changed <- struct{}{}:
		default: // a look is due already
		}
	})
	return v
}

// Get implements [Source].
func (v *verifiedCA) Get() cabundle.Bundle {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.inUse
}

// OnChange implements [Source].
func (v *verifiedCA) OnChange(f func()) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.onChange = append(v.onChange, f)
}

// Close closes the source, if it can be closed.
func (v *verifiedCA) Close() error { return closeSource(v.Source) }

// Ready returns why a changed bundle is not used.
func (v *verifiedCA) Ready() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.pending
}

// Run implements [Source].
func (v *verifiedCA) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return v.Source.Run(ctx) })
	group.Go(func() error {
		var again <-chan time.Time
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-v.changed:
			case <-again:
			}
			if again = nil; !v.look(ctx) {
				again = time.After(recheckInterval)
			}
		}
	})
	return group.Wait()
}

// look returns false if it must be called again.
func (v *verifiedCA) look(ctx context.Context) bool {
	changed, inUse := v.Source.Get(), v.Get()
	if changed.Sum() == inUse.Sum() {
		v.settle(inUse, nil)
		return true
	}
	verdict := judgeCA(v.verify(ctx, changed), v.verify(ctx, inUse))
	text := fmt.Sprintf("the changed root CA (SHA-256 %s) does not verify the API server", changed.Fingerprint())
	switch verdict {
	case useCA:
		v.settle(changed, nil)
	case useUnverifiedCA:
		v.settle(changed, nil)
		v.report(verdict, text+", nor does the last one: it is published")
	case refuseCA:
		text += ", which the last one does: the last one stays (--root-ca-unverified overrides)"
		if v.Ready() == nil || v.Ready().Error() != text {
			v.report(verdict, text)
		}
		v.settle(inUse, errors.New(text))
		return false
	case waitForAnswer:
		v.settle(inUse, fmt.Errorf("the changed root CA (SHA-256 %s) waits for an API server that it can be checked with", changed.Fingerprint()))
		return false
	}
	for _, f := range v.listeners() {
		f()
	}
	return true
}

func (v *verifiedCA) settle(inUse cabundle.Bundle, pending error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.inUse, v.pending = inUse, pending
}

func (v *verifiedCA) report(verdict caVerdict, text string) {
	if v.warn != nil {
		v.warn(verdict, text)
	}
}

func (v *verifiedCA) listeners() []func() {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.onChange
}

// verifyServer returns a function that asks the API server of config for its version, over a new
// connection and without credentials. Any answer counts: the handshake is what is looked at.
func verifyServer(config *rest.Config) func(context.Context, cabundle.Bundle) verification {
	return func(ctx context.Context, bundle cabundle.Bundle) verification {
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(bundle.PEM())
		server, _, err := rest.DefaultServerUrlFor(config)
		if err != nil {
			return noAnswer
		}
		transport := &http.Transport{
			Proxy: config.Proxy, DialContext: config.Dial, DisableKeepAlives: true,
			TLSClientConfig: &tls.Config{RootCAs: pool, ServerName: config.ServerName, MinVersion: tls.VersionTLS12},
		}
		if transport.Proxy == nil {
			transport.Proxy = http.ProxyFromEnvironment
		}
		ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
		defer cancel()
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, server.JoinPath("version").String(), nil)
		if err != nil {
			return noAnswer
		}
		response, err := transport.RoundTrip(request)
		if err == nil {
			_ = response.Body.Close()
			return verified
		}
		if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
			return failed
		}
		return noAnswer
	}
}
