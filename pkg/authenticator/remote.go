package authenticator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v4"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"github.com/sakeeper/sakeeper/pkg/keys"
)

const (
	// fetchAtMost is how often an issuer is asked for keys: whoever makes up kids must not
	// make us ask for each.
	fetchAtMost = 10 * time.Second
	// fetchEvery is how often it is asked without a reason, so that keys that went go here.
	fetchEvery = 10 * time.Minute
	// fetchWithin bounds one fetch: reviews wait for it.
	fetchWithin = 5 * time.Second
	// maxDocument bounds what is read of an answer.
	maxDocument = 1 << 20
)

// RemoteKeys are the keys that an issuer publishes (OpenID Connect Discovery 1.0). Its
// methods may be called concurrently.
type RemoteKeys struct {
	issuer  string
	client  *http.Client
	clock   clock.PassiveClock
	current atomic.Pointer[keys.Set]

	mu     sync.Mutex
	tried  time.Time
	failed error
}

// NewRemoteKeys asks nothing yet. Of the client a copy is used that follows no redirects.
func NewRemoteKeys(issuer string, client *http.Client, clock clock.PassiveClock) (*RemoteKeys, error) {
	if found, err := url.Parse(issuer); err != nil || found.Scheme != https || found.Host == "" || found.RawQuery != "" || found.Fragment != "" {
		return nil, fmt.Errorf("issuer %q: is no https URL without query and fragment, which discovery needs; give it keyFiles instead", issuer)
	}
	own := *client
	own.Timeout = fetchWithin
	own.CheckRedirect = func(*http.Request, []*http.Request) error { return errors.New("it redirects") }
	r := &RemoteKeys{issuer: issuer, client: &own, clock: clock}
	r.current.Store(keys.NewVerificationSet())
	return r, nil
}

// Get returns the keys as they were fetched last.
func (r *RemoteKeys) Get() *keys.Set { return r.current.Load() }

// Unknown asks the issuer for its keys, unless that was done a moment ago, and tells
// whether they have changed since. The error says why there are none.
func (r *RemoteKeys) Unknown(ctx context.Context) (bool, error) {
	before := r.Get()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.tried.IsZero() || r.clock.Since(r.tried) >= fetchAtMost {
		r.fetch(ctx)
	}
	return !r.Get().Equal(before), r.failed
}

// Run fetches the keys now and then until ctx ends, and returns nil.
func (r *RemoteKeys) Run(ctx context.Context) error {
	ticker := time.NewTicker(fetchEvery)
	defer ticker.Stop()
	for {
		r.mu.Lock()
		r.fetch(ctx)
		r.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// fetch keeps what there was when it fails.
func (r *RemoteKeys) fetch(ctx context.Context) {
	logger := klog.FromContext(ctx)
	set, err := r.read(context.WithoutCancel(ctx)) // the answer is for others too
	r.tried = r.clock.Now()
	switch {
	case err != nil:
		err = fmt.Errorf("keys of issuer %s cannot be fetched: %w", r.issuer, err)
		if r.failed == nil || r.failed.Error() != err.Error() {
			logger.Error(err, "Kept the last keys of an issuer", "issuer", r.issuer)
		}
	default:
		if !set.Equal(r.Get()) {
			logger.Info("Fetched the keys of an issuer", "issuer", r.issuer, "keys", len(set.Verification()))
		}
		r.current.Store(set) // also where another key has the same id
	}
	r.failed = err
}

func (r *RemoteKeys) read(ctx context.Context) (*keys.Set, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchWithin)
	defer cancel()
	var config struct {
		Issuer  string `json:"issuer"`
		JWKSURI string `json:"jwks_uri"`
	}
	if err := r.get(ctx, strings.TrimSuffix(r.issuer, "/")+ConfigPath, &config); err != nil {
		return nil, err
	}
	if config.Issuer != r.issuer {
		return nil, fmt.Errorf("its discovery document is that of issuer %q", config.Issuer)
	}
	if found, err := url.Parse(config.JWKSURI); err != nil || found.Scheme != https {
		return nil, fmt.Errorf("its jwks_uri %q is no https URL", config.JWKSURI)
	}
	var document jose.JSONWebKeySet
	if err := r.get(ctx, config.JWKSURI, &document); err != nil {
		return nil, err
	}
	var found []keys.PublicKey
	for _, key := range document.Keys {
		public, err := keys.NewPublicKey(key.Key)
		if err != nil || (key.Use != "" && key.Use != "sig") {
			continue // of a kind that signs no such tokens
		}
		if key.KeyID != "" {
			public = public.WithID(key.KeyID)
		}
		found = append(found, public)
	}
	if len(found) == 0 {
		return nil, errors.New("it publishes no key that can be used")
	}
	return keys.NewVerificationSet(found...), nil
}

func (r *RemoteKeys) get(ctx context.Context, from string, into any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return err
	}
	response, err := r.client.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %d", from, response.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, maxDocument))
	if err != nil {
		return fmt.Errorf("%s: %w", from, err)
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("%s answers with what is not such a document", from)
	}
	return nil
}
