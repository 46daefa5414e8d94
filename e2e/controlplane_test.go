package e2e

import (
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
)

// TestAnAPIServerWhosePortIsTakenIsStartedAgain is about the control plane of these tests: a
// connection to anything on this machine may get the port of an API server that is down.
func TestAnAPIServerWhosePortIsTakenIsStartedAgain(t *testing.T) {
	p := newControlPlaneWith(t, controlplane.Options{})
	must(t, p.KillServer())
	first := p.ServerPID()
	thief, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", strings.Trim(strings.TrimPrefix(p.Admin.Host, "https:"), "/"))
	must(t, err)
	var start errgroup.Group
	start.Go(func() error { return p.StartServer(t.Context()) })
	time.Sleep(3 * time.Second) // it exits within that time, or starts later: both are right
	must(t, thief.Close())
	must(t, start.Wait())
	if p.ServerPID() == first {
		t.Error("the API server was not started")
	}
}
