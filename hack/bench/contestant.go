package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/sakeeper/sakeeper/hack/bench/load"
	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
)

// contestant is a program that is measured.
type contestant struct {
	name string
	// userAgent is the prefix of the user agent of its requests.
	userAgent string
	command   func(b *testbed, o options) (*exec.Cmd, error)
}

// options configure a contestant.
type options struct {
	// defaults: with its default client rate limits and workers.
	defaults bool
	// lease is the lease duration of leader election; 0: without leader election.
	lease time.Duration
}

// both and withFloor are contestants that take turns.
var (
	both      = []contestant{sakeeper, inTree}
	withFloor = []contestant{sakeeper, inTree, bare}
)

// prefix begins the names of what c gets in a turn.
func (c contestant) prefix(turn int, what string) string {
	return fmt.Sprintf("%s-%s%d", what, strings.ToLower(c.name[:1]), turn)
}

// election are the flags of leader election, which both contestants have. The times are in the
// proportions of the defaults, 15 s, 10 s and 2 s.
func (o options) election() []string {
	if o.lease == 0 {
		return []string{"--leader-elect=false"}
	}
	return []string{
		"--leader-elect=true", fmt.Sprintf("--leader-elect-lease-duration=%v", o.lease),
		fmt.Sprintf("--leader-elect-renew-deadline=%v", o.lease*10/15), fmt.Sprintf("--leader-elect-retry-period=%v", o.lease*2/15),
	}
}

var workers = fmt.Sprintf("--concurrent-serviceaccount-token-syncs=%d", load.Workers)

var sakeeper = contestant{
	name: "sakeeper", userAgent: "sakeeper-controllers",
	command: func(b *testbed, o options) (*exec.Cmd, error) {
		args, err := b.controlPlane.ControllersArgs()
		if err != nil {
			return nil, err
		}
		args = append(args, "--metrics-bind-address=127.0.0.1:0", "--health-probe-bind-address=127.0.0.1:0",
			"--service-account-private-key-file="+b.keyFile, "--root-ca-file="+b.caFile)
		args = append(args, o.election()...)
		if !o.defaults {
			args = append(args, "--kube-api-qps=-1", workers)
		}
		return exec.Command(b.sakeeper, args...), nil
	},
}

var inTree = contestant{
	name: "kube-controller-manager", userAgent: "kube-controller-manager",
	command: func(b *testbed, o options) (*exec.Cmd, error) {
		flags := append(o.election(), "--service-account-private-key-file="+b.keyFile)
		if o.defaults {
			flags = append(flags, "--kube-api-qps=20", "--kube-api-burst=30")
		} else {
			flags = append(flags, "--kube-api-qps=100000", "--kube-api-burst=100000", workers)
		}
		return b.controlPlane.ControllerManager(controlplane.ControllerManager{
			Controllers: []string{
				"serviceaccount-controller", "serviceaccount-token-controller", "root-ca-certificate-publisher-controller",
				"legacy-serviceaccount-token-cleaner-controller",
			},
			RootCAFile: b.caFile, Flags: flags,
		})
	},
}

var bare = contestant{
	name: "bare client", userAgent: load.BareUserAgent,
	command: func(b *testbed, _ options) (*exec.Cmd, error) {
		self, err := os.Executable()
		if err != nil {
			return nil, err
		}
		identity, err := b.controlPlane.ServiceAccount(controlplane.Namespace, controlplane.Account)
		if err != nil {
			return nil, err
		}
		kubeconfig, err := b.controlPlane.Kubeconfig("bare.kubeconfig", identity)
		return exec.Command(self, "bare", kubeconfig, b.keyFile, b.caFile), err
	},
}
