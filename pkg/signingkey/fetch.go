package signingkey

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"k8s.io/client-go/rest"

	"github.com/sakeeper/sakeeper/pkg/keys"
)

const (
	// path is where the API server publishes its keys.
	path = "/openid/v1/jwks"
	// mediaType is the only one in which it does.
	mediaType = "application/jwk-set+json"
	// requestTimeout bounds a request. A healthy API server answers within milliseconds.
	requestTimeout = 10 * time.Second
)

// errNotServed is returned if the API server publishes no keys, or not to this client.
var errNotServed = errors.New("the API server does not serve its keys")

// fetch reads the keys that the API server publishes. An error that is not errNotServed means that
// there was no answer.
func fetch(ctx context.Context, client rest.Interface) (*keys.Set, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	code := 0
	// The caller repeats the request.
	result := client.Get().AbsPath(path).SetHeader("Accept", mediaType).MaxRetries(0).Do(ctx).StatusCode(&code)
	body, err := result.Raw()
	switch {
	case code == http.StatusNotFound || code == http.StatusForbidden:
		return nil, fmt.Errorf("%w: %w", errNotServed, err)
	case err != nil:
		return nil, fmt.Errorf("get %s: %w", path, err)
	case code != http.StatusOK:
		return nil, fmt.Errorf("get %s: status %d", path, code)
	}
	published, _, err := keys.ParseJWKS(body) // keys of other types sign no legacy tokens
	if err != nil {
		return nil, fmt.Errorf("get %s: the response %w", path, err)
	}
	return keys.NewVerificationSet(published...), nil
}
