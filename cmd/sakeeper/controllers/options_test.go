package controllers

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/util/sets"

	"github.com/sakeeper/sakeeper/cmd/sakeeper/internal/cmdtest"
)

// parse reads flags as the command does.
func parse(t *testing.T, args ...string) *Options {
	t.Helper()
	opts := newOptions()
	cmd := NewCommand("", nil)
	cmd.ResetFlags()
	for _, fs := range opts.sections().FlagSets {
		cmd.Flags().AddFlagSet(fs)
	}
	if err := cmd.ParseFlags(args); err != nil {
		t.Fatal(err)
	}
	return opts
}

func unknown(entry string) string {
	return `--controllers: "` + entry + `" is not a controller; there are serviceaccount-controller, serviceaccount-token-controller, root-ca-certificate-publisher-controller, legacy-serviceaccount-token-cleaner-controller, token-generation-controller, token-request-controller, token-inventory-controller, service-account-template-controller, pull-secret-copy-controller`
}

func TestValidate(t *testing.T) {
	required := []string{"--service-account-private-key-file=key.pem", "--root-ca-file=ca.pem"}
	cases := map[string]struct {
		in   []string // besides required
		want []string
	}{
		"the defaults": {},
		"everything that can be wrong, at once": {
			in: []string{
				"--kube-api-qps=0", "--leader-elect-resource-name=Not_A_Name", "--leader-elect-retry-period=0s", "--leader-elect-renew-deadline=0s", "--leader-elect-lease-duration=0s",
				"--metrics-bind-address=8080", "--logging-format=nonsense", "--service-accounts=UPPER", "--concurrent-serviceaccount-token-syncs=0", "--inventory-interval=-1s",
				"--service-account-private-key-file=", "--root-ca-file=",
			},
			want: []string{
				"--kube-api-qps: 0 would allow no request; use -1 for no limit",
				`--leader-elect-resource-name: "Not_A_Name": ` + cmdtest.NotADomain,
				"--leader-elect-retry-period: 0s is not positive",
				"--leader-elect-renew-deadline: 0s is not more than 1.2 times --leader-elect-retry-period (0s)",
				"--leader-elect-lease-duration: 0s is not more than --leader-elect-renew-deadline (0s)",
				`--metrics-bind-address: "8080" is not [host]:port, nor 0 for off`,
				`--logging-format: Invalid value: "nonsense": Unsupported log format`,
				`--service-accounts: "UPPER": ` + cmdtest.NotADomain,
				"--concurrent-serviceaccount-token-syncs: 0 is less than 1",
				"--inventory-interval: -1s is negative",
				"--service-account-private-key-file, --key-dir or --service-account-signing-endpoint is required by the serviceaccount-token-controller; to go without tokens, use --controllers=*,-serviceaccount-token-controller",
				"--root-ca-file is required by the root-ca-certificate-publisher-controller and the serviceaccount-token-controller; to go without both, use --controllers=*,-root-ca-certificate-publisher-controller,-serviceaccount-token-controller",
			},
		},
		"a rate needs a burst": {
			in:   []string{"--kube-api-qps=20"},
			want: []string{"--kube-api-burst: 0 is less than 1, which a positive --kube-api-qps needs"},
		},
		"a rate with a burst":       {in: []string{"--kube-api-qps=20", "--kube-api-burst=30"}},
		"both servers can be off":   {in: []string{"--metrics-bind-address=0", "--health-probe-bind-address=0"}},
		"a socket for the probes":   {in: []string{"--health-probe-bind-address=unix:/run/health.sock"}},
		"a relative socket":         {in: []string{"--health-probe-bind-address=unix:health.sock"}, want: []string{`--health-probe-bind-address: "unix:health.sock" is not unix: and an absolute path`}},
		"an address of the probes":  {in: []string{"--health-probe-bind-address=x"}, want: []string{`--health-probe-bind-address: "x" is not [host]:port, nor 0 for off`}},
		"an IPv6 address":           {in: []string{"--metrics-bind-address=[::1]:8080"}},
		"a renew deadline too near": {in: []string{"--leader-elect-renew-deadline=2400ms"}, want: []string{"--leader-elect-renew-deadline: 2.4s is not more than 1.2 times --leader-elect-retry-period (2s)"}},
		"a lease too short":         {in: []string{"--leader-elect-lease-duration=10s"}, want: []string{"--leader-elect-lease-duration: 10s is not more than --leader-elect-renew-deadline (10s)"}},
		"a lease that is not used":  {in: []string{"--leader-elect=false", "--leader-elect-lease-duration=0s", "--leader-elect-resource-name="}},
		"no controller": {
			in:   []string{"--controllers=-serviceaccount-controller"},
			want: []string{`--controllers: "-serviceaccount-controller" turns no controller on`},
		},
		"no account": {
			in:   []string{"--service-accounts="},
			want: []string{"--service-accounts: empty; to make none, use --controllers=*,-serviceaccount-controller"},
		},
		"no account, and no controller for them": {in: []string{"--service-accounts=", "--controllers=*,-serviceaccount-controller"}},
		"an unknown controller":                  {in: []string{"--controllers=nonsense"}, want: []string{unknown("nonsense")}},
		"no key where none is needed":            {in: []string{"--service-account-private-key-file=", "--controllers=*,-serviceaccount-token-controller"}},
		"no CA where none is needed":             {in: []string{"--service-account-private-key-file=", "--root-ca-file=", "--controllers=serviceaccount-controller"}},
		"a CA is needed by the publisher alone": {
			in:   []string{"--root-ca-file=", "--controllers=root-ca-certificate-publisher-controller"},
			want: []string{"--root-ca-file is required by the root-ca-certificate-publisher-controller and the serviceaccount-token-controller; to go without both, use --controllers=*,-root-ca-certificate-publisher-controller,-serviceaccount-token-controller"},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, err := range parse(t, append(required, tc.in...)...).validate() {
				got = append(got, err.Error())
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestErrorsComeInTheSameOrderEachTime(t *testing.T) {
	seen := sets.New[string]()
	for range 100 {
		text := ""
		for _, err := range parse(t, "--metrics-bind-address=x", "--health-probe-bind-address=y").validate() {
			text += err.Error() + "\n"
		}
		seen.Insert(text)
	}
	if len(seen) != 1 {
		t.Errorf("%d different texts:\n%v", len(seen), sets.List(seen))
	}
}
