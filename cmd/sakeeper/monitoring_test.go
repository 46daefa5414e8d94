package main

import (
	"context"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/utils/clock"
	"sigs.k8s.io/yaml"

	"github.com/sakeeper/sakeeper/cmd/sakeeper/authenticator"
	"github.com/sakeeper/sakeeper/cmd/sakeeper/controllers"
	"github.com/sakeeper/sakeeper/cmd/sakeeper/internal/cmdtest"
	"github.com/sakeeper/sakeeper/cmd/sakeeper/signer"
	"github.com/sakeeper/sakeeper/cmd/sakeeper/webhook"
	"github.com/sakeeper/sakeeper/pkg/agent"
)

const monitoring = "../../manifests/components/monitoring"

// standard are metrics of client-go and of the process, with their labels.
func standard() map[string][]string {
	return map[string][]string{
		"leader_election_master_status": {"name"},
		"workqueue_depth":               {"name"},
		"rest_client_requests_total":    {"code", "method", "host"},
		"process_resident_memory_bytes": nil,
		"process_cpu_seconds_total":     nil,
	}
}

// TestMonitoringKnowsTheMetrics: alerts and dashboard name metrics and labels that are
// exported, and every metric of ours is somewhere in them.
func TestMonitoringKnowsTheMetrics(t *testing.T) {
	exported := exportedMetrics(t)
	used := map[string]bool{}
	for where, expression := range expressions(t) {
		names := metricName.FindAllString(expression, -1)
		if len(names) == 0 {
			t.Errorf("%s: no metric in %s", where, expression)
		}
		for _, name := range names {
			labels, ok := exported[family(name, exported)]
			if !ok {
				t.Errorf("%s: no process exports %s", where, name)
				continue
			}
			used[family(name, exported)] = true
			for _, label := range labelsIn(expression) {
				if !slices.Contains(labels, label) && !slices.Contains(scraped(), label) {
					t.Errorf("%s: %s has no label %s, but %v", where, name, label, labels)
				}
			}
		}
	}
	for name := range exported {
		// The agent runs in pods of users, whom no alert is for.
		if !used[name] && strings.HasPrefix(name, "sakeeper_") && !strings.HasPrefix(name, "sakeeper_agent_") {
			t.Errorf("%s is neither in the alerts nor on the dashboard", name)
		}
	}
}

// scraped are labels that Prometheus adds, or that a histogram has.
func scraped() []string { return []string{"le", "namespace", "component", "pod"} }

var (
	metricName  = regexp.MustCompile(`\bup\b|\b(?:sakeeper|leader_election|workqueue|rest_client|process)_[a-z_]+`)
	selector    = regexp.MustCompile(`\{([^}]*)\}`)
	matcher     = regexp.MustCompile(`([a-z_]+)\s*(?:=~|!~|!=|=)`)
	grouping    = regexp.MustCompile(`\bby \(([^)]*)\)`)
	description = regexp.MustCompile(`fqName: "([^"]+)".*constLabels: \{([^}]*)\}, variableLabels: \{([^}]*)\}`)
)

func labelsIn(expression string) []string {
	var labels []string
	for _, found := range selector.FindAllStringSubmatch(expression, -1) {
		for _, label := range matcher.FindAllStringSubmatch(found[1], -1) {
			labels = append(labels, label[1])
		}
	}
	for _, found := range grouping.FindAllStringSubmatch(expression, -1) {
		for label := range strings.SplitSeq(found[1], ",") {
			labels = append(labels, strings.TrimSpace(label))
		}
	}
	return labels
}

// family is the metric that a series of that name belongs to.
func family(name string, exported map[string][]string) string {
	for _, suffix := range []string{"_bucket", "_count", "_sum"} {
		if base, ok := strings.CutSuffix(name, suffix); ok {
			if _, ok := exported[base]; ok {
				return base
			}
		}
	}
	return name
}

// exportedMetrics are all metrics of all servers, with their labels.
func exportedMetrics(t *testing.T) map[string][]string {
	t.Helper()
	f := cmdtest.NewFiles(t)
	const key, ca = "--service-account-private-key-file=%/good.key", "--root-ca-file=%/good.crt"
	var registries []*prometheus.Registry

	controllersConfig, err := cmdtest.ConfigOf(t, f, controllers.NewCommand, f.WithKubeconfig(t, []string{key, ca, "--controllers=*,token-request-controller", "--auto-generate-token-secrets=all", "--inventory-interval=1h",
		"--warm-standby=false", "--metrics-bind-address=0", "--health-probe-bind-address=0"})...)
	cmdtest.MustNil(t, err)
	// The controllers are made when the process runs; those of a warm standby, when it leads.
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	cmdtest.MustNil(t, controllers.Run(ended, controllersConfig))
	registries = append(registries, controllersConfig.Registry())

	f.WriteServingCertificate(t, "localhost")
	for _, certificates := range [][]string{{"--client-ca-file=%/good.crt"}, {"--tls-cert-file=%/tls.crt", "--tls-private-key-file=%/tls.key"}} {
		webhookConfig, err := cmdtest.ConfigOf(t, f, webhook.NewCommand, f.WithKubeconfig(t, certificates)...)
		cmdtest.MustNil(t, err)
		webhookProcess, err := webhook.New(t.Context(), webhookConfig)
		cmdtest.MustNil(t, err)
		t.Cleanup(webhookProcess.Close)
		registries = append(registries, webhookProcess.Registry())
	}

	signerConfig, err := cmdtest.ConfigOf(t, f, signer.NewCommand, key, "--socket=%/s")
	cmdtest.MustNil(t, err)
	signerProcess, err := signer.New(signerConfig)
	cmdtest.MustNil(t, err)
	registries = append(registries, signerProcess.Registry())

	authenticatorConfig, err := cmdtest.ConfigOf(t, f, authenticator.NewCommand, f.WithKubeconfig(t, []string{"--client-ca-file=%/good.crt", "--service-account-key-file=%/public.key", "--service-account-issuer=https://issuer", "--tls-cert-file=%/tls.crt", "--tls-private-key-file=%/tls.key"})...)
	cmdtest.MustNil(t, err)
	authenticatorProcess, err := authenticator.New(authenticatorConfig)
	cmdtest.MustNil(t, err)
	registries = append(registries, authenticatorProcess.Registry())

	agentRegistry := prometheus.NewRegistry()
	_, err = agent.New(agent.Config{
		Client: fake.NewClientset().CoreV1(), Namespace: "n", ServiceAccount: "a", Tokens: []agent.Token{{File: "f"}}, Lifetime: time.Hour,
		Writer: agent.RenameWriter{}, Clock: clock.RealClock{}, Registerer: agentRegistry,
	})
	cmdtest.MustNil(t, err)
	registries = append(registries, agentRegistry)

	exported := standard()
	for _, registry := range registries {
		problems, err := testutil.GatherAndLint(registry)
		cmdtest.MustNil(t, err)
		for _, p := range problems {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
		maps.Copy(exported, described(t, registry))
	}
	return exported
}

func described(t *testing.T, registry *prometheus.Registry) map[string][]string {
	t.Helper()
	descriptions := make(chan *prometheus.Desc)
	go func() {
		registry.Describe(descriptions)
		close(descriptions)
	}()
	all := map[string][]string{}
	for d := range descriptions {
		found := description.FindStringSubmatch(d.String())
		if found == nil {
			t.Errorf("cannot read %s", d)
			continue
		}
		var labels []string
		for label := range strings.SplitSeq(found[2]+","+found[3], ",") {
			if name, _, _ := strings.Cut(label, "="); name != "" {
				labels = append(labels, name)
			}
		}
		all[found[1]] = labels
	}
	return all
}

// expressions are those of the alerts and of the dashboard, by where they stand.
func expressions(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	var rules struct {
		Spec struct {
			Groups []struct {
				Rules []struct{ Alert, Expr string }
			}
		}
	}
	content, err := os.ReadFile(filepath.Join(monitoring, "alerts.yaml"))
	cmdtest.MustNil(t, err)
	cmdtest.MustNil(t, yaml.Unmarshal(content, &rules))
	for _, group := range rules.Spec.Groups {
		for _, rule := range group.Rules {
			all["alert "+rule.Alert] = rule.Expr
		}
	}
	var dashboard struct {
		Panels []struct {
			Title   string `json:"title"`
			Targets []struct {
				RefID string `json:"refId"`
				Expr  string `json:"expr"`
			} `json:"targets"`
		} `json:"panels"`
	}
	content, err = os.ReadFile(filepath.Join(monitoring, "dashboard.json"))
	cmdtest.MustNil(t, err)
	cmdtest.MustNil(t, json.Unmarshal(content, &dashboard))
	for _, panel := range dashboard.Panels {
		for _, target := range panel.Targets {
			all["panel "+panel.Title+" "+target.RefID] = target.Expr
		}
	}
	if len(all) < 30 {
		t.Fatalf("only %v", slices.Sorted(maps.Keys(all)))
	}
	return all
}
