package e2e

import (
	"testing"

	"github.com/sakeeper/sakeeper/e2e/behaviour"
)

// TestBehaviour runs the checks that e2e/kind runs on clusters with nodes.
func TestBehaviour(t *testing.T) {
	p := newControlPlane(t)
	must(t, p.Install(t.Context(), "token-requests"))
	startReadySakeeper(t, p.sakeeperArgs(t, "--controllers=*,token-request-controller"))
	startWebhook(t, p)
	behaviour.Cluster{Admin: p.Admin, TokenRequests: true}.Check(t)
}
