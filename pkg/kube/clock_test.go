package kube

import (
	"errors"
	"net/http"
	"testing"
	"time"

	clocktesting "k8s.io/utils/clock/testing"

	"github.com/sakeeper/sakeeper/pkg/testkit"
)

// dated is a transport whose responses have one Date, or none.
type dated struct {
	date string
	err  error
}

func (a dated) RoundTrip(*http.Request) (*http.Response, error) {
	if a.err != nil {
		return nil, a.err
	}
	response := &http.Response{Header: http.Header{}, Body: http.NoBody}
	if a.date != "" {
		response.Header.Set("Date", a.date)
	}
	return response, nil
}

func TestServerClock(t *testing.T) {
	at := func(d time.Duration) string { return testkit.Instant().Add(d).Format(http.TimeFormat) }
	cases := map[string]struct {
		in   []dated
		want time.Duration
	}{
		"no answer yet":       {},
		"a server ahead":      {in: []dated{{date: at(time.Hour)}}, want: time.Hour},
		"a server behind":     {in: []dated{{date: at(-1000 * time.Hour)}}, want: -1000 * time.Hour},
		"clocks that agree":   {in: []dated{{date: at(-2 * time.Second)}}},
		"they agree again":    {in: []dated{{date: at(time.Hour)}, {date: at(-time.Second)}}},
		"the last one counts": {in: []dated{{date: at(time.Hour)}, {date: at(2 * time.Hour)}}, want: 2 * time.Hour},
		"no date":             {in: []dated{{date: at(time.Hour)}, {}}, want: time.Hour},
		"something else":      {in: []dated{{date: at(time.Hour)}, {date: "yesterday"}}, want: time.Hour},
		"no answer":           {in: []dated{{date: at(time.Hour)}, {err: errBoom}}, want: time.Hour},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			c := NewServerClock(clocktesting.NewFakePassiveClock(testkit.Instant()))
			for _, answer := range tc.in {
				response, err := c.Wrap(answer).RoundTrip(&http.Request{})
				if !errors.Is(err, answer.err) {
					t.Errorf("error %v", err)
				}
				if err == nil {
					_ = response.Body.Close()
				}
			}
			if got := c.Now().Sub(testkit.Instant()); got != tc.want {
				t.Errorf("off by %v, want %v", got, tc.want)
			}
			if got := c.Since(testkit.Instant()); got != tc.want {
				t.Errorf("since: %v, want %v", got, tc.want)
			}
		})
	}
}
