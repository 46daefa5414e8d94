package process

import (
	"net"
	"strings"
	"testing"

	"github.com/sakeeper/sakeeper/cmd/sakeeper/internal/cmdtest"
	"github.com/sakeeper/sakeeper/cmd/sakeeper/options"
)

func TestAStartThatFailsLeavesNothingOpen(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	cmdtest.MustNil(t, err)
	defer func() { _ = taken.Close() }()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	cmdtest.MustNil(t, err)
	cmdtest.MustNil(t, free.Close())

	cases := map[string]struct {
		in   options.Servers
		want string
	}{
		"the metrics' address is taken": {in: options.Servers{Metrics: taken.Addr().String(), Probes: free.Addr().String()}, want: "--metrics-bind-address: listen tcp "},
		"the probes' address is taken":  {in: options.Servers{Metrics: free.Addr().String(), Probes: taken.Addr().String()}, want: "--health-probe-bind-address: listen tcp "},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if _, _, err := Begin(t.Context(), "sakeeper-test", "v0", options.NewLogs(), &tc.in); err == nil || !strings.HasPrefix(err.Error(), tc.want) {
				t.Errorf("got %v, want %s", err, tc.want)
			}
			again, err := net.Listen("tcp", free.Addr().String())
			cmdtest.MustNil(t, err)
			cmdtest.MustNil(t, again.Close())
		})
	}
}
