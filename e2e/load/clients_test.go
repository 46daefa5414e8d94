package load

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"
)

// target is a server, and what is sent to it.
type target struct {
	address, path string
	tls           *tls.Config
	good          []byte
	// answered returns an error if the answer to good is not the right one.
	answered func(body []byte) error
	// huge is the largest body that the server reads.
	huge []byte
	// flood returns the body of the n-th request of those that must be refused.
	flood func(n int64) []byte
}

// newClient has connections of its own.
func (t target) newClient() *http.Client {
	return &http.Client{
		Transport: &http.Transport{TLSClientConfig: t.tls.Clone(), ForceAttemptHTTP2: true, MaxIdleConns: 1},
		Timeout:   2 * time.Minute, // a guard
	}
}

// post returns the answer, whatever its code is.
func (t target) post(ctx context.Context, client *http.Client, body io.Reader) (code int, answer []byte, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+t.address+t.path, body)
	if err != nil {
		return 0, nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := client.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = response.Body.Close() }()
	answer, err = io.ReadAll(response.Body)
	return response.StatusCode, answer, err
}

// sendGood returns an error unless the answer is the right one.
func (t target) sendGood(ctx context.Context, client *http.Client) error {
	code, answer, err := t.post(ctx, client, bytes.NewReader(t.good))
	switch {
	case err != nil:
		return err
	case code != http.StatusOK:
		return fmt.Errorf("status %d: %.200s", code, answer)
	default:
		return t.answered(answer)
	}
}

// measured is what clients saw.
type measured struct {
	took   []time.Duration
	errs   []error
	lasted time.Duration
}

func (m measured) and(other measured) measured {
	return measured{append(slices.Clone(m.took), other.took...), append(slices.Clone(m.errs), other.errs...), m.lasted + other.lasted}
}

func (m measured) quantile(q float64) time.Duration {
	if len(m.took) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(m.took))
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

func (m measured) rate() float64 { return float64(len(m.took)) / m.lasted.Seconds() }

func (m measured) String() string {
	return fmt.Sprintf("%d requests in %v, %.0f/s, p50 %v, p99 %v, %d failed",
		len(m.took), m.lasted.Round(time.Second), m.rate(), m.quantile(0.5).Round(10*time.Microsecond), m.quantile(0.99).Round(10*time.Microsecond), len(m.errs))
}

// closedLoops runs one loop for each sender for that time. The requests that it began are finished.
func closedLoops(ctx context.Context, lasts time.Duration, senders []func(context.Context) error) measured {
	var mu sync.Mutex
	var all measured
	var loops sync.WaitGroup
	began := time.Now()
	for _, send := range senders {
		loops.Go(func() {
			var own measured
			for time.Since(began) < lasts && ctx.Err() == nil {
				sent := time.Now()
				if err := send(ctx); err != nil {
					own.errs = append(own.errs, err)
					continue
				}
				own.took = append(own.took, time.Since(sent))
			}
			mu.Lock()
			defer mu.Unlock()
			all = all.and(own)
		})
	}
	loops.Wait()
	all.lasted = time.Since(began)
	return all
}
