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

	"k8s.io/client-go/rest"

	"github.com/sakeeper/sakeeper/pkg/cabundle"
)

// The time for one handshake, between two checks of a bundle that is not in use yet, and between two
// attempts to read the published one.
const (
	handshakeTimeout = 5 * time.Second
	recheckInterval  = 10 * time.Second
	rereadInterval   = time.Second
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

// judgeCA decides about a changed bundle by what it and the one in use show, which is the published one. Where neither
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
// bundle in use does not either. Before [verifiedCA.begin], in use is what the source has.
type verifiedCA struct {
	Source[cabundle.Bundle]

	verify  func(context.Context, cabundle.Bundle) verification
	changed chan struct{}

	mu       sync.Mutex
	inUse    cabundle.Bundle
	pending  error // why the configured bundle is not in use
	onChange []func()
	warn     func(verdict caVerdict, text string) // may be nil
}

func newVerifiedCA(source Source[cabundle.Bundle], verify func(context.Context, cabundle.Bundle) verification) *verifiedCA {
	v := &verifiedCA{Source: source, verify: verify, changed: make(chan struct{}, 1), inUse: source.Get()}
	source.OnChange(func() {
		select {
		case v.changed <- struct{}{}:
		default: // a check is due already
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

// Ready returns why the configured bundle is not used.
func (v *verifiedCA) Ready() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.pending
}

// begin decides between the configured bundle and the one that is published, which stays as the last
// good one would: a restart is no way around the check. It returns an error if the configured bundle
// does not verify the API server and published cannot say which one does; then it must be called again.
func (v *verifiedCA) begin(ctx context.Context, published publishedCA) error {
	configured := v.Source.Get()
	if last, err := cabundle.Parse(published.pem); err == nil {
		v.set(last, nil)
		v.check(ctx)
		return nil
	}
	switch shown := v.verify(ctx, configured); {
	case shown == verified:
	case published.err != nil:
		err := fmt.Errorf("the configured root CA (SHA-256 %s) is not known to verify the API server, and what is published neither: %w", configured.Fingerprint(), published.err)
		v.set(configured, err)
		return err
	case shown == failed: // nothing is published that could stay
		v.report(useUnverifiedCA, fmt.Sprintf("the configured root CA (SHA-256 %s) does not verify the API server, and there is no other: it is published", configured.Fingerprint()))
	}
	v.set(configured, nil)
	return nil
}

// follow checks changes until ctx ends, and returns nil then.
func (v *verifiedCA) follow(ctx context.Context) error {
	for {
		var again <-chan time.Time
		if v.Ready() != nil {
			again = time.After(recheckInterval)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-v.changed:
		case <-again:
		}
		v.check(ctx)
	}
}

// check decides about the configured bundle. Ready says afterwards whether it must be called again.
func (v *verifiedCA) check(ctx context.Context) {
	configured, inUse := v.Source.Get(), v.Get()
	if configured.Sum() == inUse.Sum() {
		v.set(inUse, nil)
		return
	}
	verdict := judgeCA(v.verify(ctx, configured), v.verify(ctx, inUse))
	text := fmt.Sprintf("the configured root CA (SHA-256 %s) does not verify the API server", configured.Fingerprint())
	switch verdict {
	case useCA:
		v.set(configured, nil)
	case useUnverifiedCA:
		v.set(configured, nil)
		v.report(verdict, text+", nor does the published one: it is published")
	case refuseCA:
		text += fmt.Sprintf(", which the published one (SHA-256 %s) does: that one stays (--root-ca-unverified overrides)", inUse.Fingerprint())
		if v.Ready() == nil || v.Ready().Error() != text {
			v.report(verdict, text)
		}
		v.set(inUse, errors.New(text))
		return
	case waitForAnswer:
		v.set(inUse, fmt.Errorf("the configured root CA (SHA-256 %s) waits for an API server that it can be checked with", configured.Fingerprint()))
		return
	}
	for _, f := range v.listeners() {
		f()
	}
}

func (v *verifiedCA) set(inUse cabundle.Bundle, pending error) {
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
