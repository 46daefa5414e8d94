package main

import (
	"bytes"
	"encoding/base64"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/sakeeper/sakeeper/cmd/kubectl-sakeeper/options"
	"github.com/sakeeper/sakeeper/pkg/inventory"
	"github.com/sakeeper/sakeeper/pkg/inventory/reach"
	"github.com/sakeeper/sakeeper/pkg/token"
)

var update = flag.Bool("update", false, "write testdata anew")

// result is what a command line printed.
type result struct {
	stdout, stderr string
	err            error
}

// execute runs a command line at a time, on a terminal of that width if it is not 0.
func execute(t *testing.T, now time.Time, width int, stdin string, args ...string) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	streams := options.Streams{
		IOStreams: genericiooptions.IOStreams{In: strings.NewReader(stdin), Out: &stdout, ErrOut: &stderr},
		Width:     width, Now: func() time.Time { return now },
	}
	err := run(t.Context(), args, streams)
	return result{stdout.String(), stderr.String(), err}
}

// run runs a command line as the admin, and fails the test if a token is in what it printed.
func (s *seeded) run(t *testing.T, width int, args ...string) result {
	t.Helper()
	return s.runAs(t, s.kubeconfig, width, "", args...)
}

func (s *seeded) runAs(t *testing.T, kubeconfig string, width int, stdin string, args ...string) result {
	t.Helper()
	r := execute(t, s.now, width, stdin, append([]string{"--kubeconfig", kubeconfig}, args...)...)
	text := r.stdout + r.stderr
	if r.err != nil {
		text += r.err.Error()
	}
	for _, secret := range s.sensitive {
		if strings.Contains(text, secret) {
			t.Errorf("%v printed a token or a key", args)
		}
	}
	return r
}

var (
	dates = regexp.MustCompile(`\d{4}-\d\d-\d\dT[0-9:.]+Z|\d{4}-\d\d-\d\d`)
	uids  = regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`)
	hosts = regexp.MustCompile(`https://127\.0\.0\.1:\d+`)
)

// normalize replaces what differs from run to run.
func (s *seeded) normalize(text string) string {
	for id, name := range s.keyIDs {
		text = strings.ReplaceAll(text, id, name)
	}
	text = dates.ReplaceAllStringFunc(text, func(date string) string { return "YYYY-MM-DDTHH:MM:SSZ"[:min(len(date), 20)] })
	return hosts.ReplaceAllString(text, "https://127.0.0.1:6443")
}

func expectGolden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		mustNil(t, os.WriteFile(path, []byte(got), 0o644))
	}
	want, err := os.ReadFile(path)
	mustNil(t, err)
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s, after a wanted change run the test with -update (-want +got):\n%s", path, diff)
	}
}

func (s *seeded) expectGolden(t *testing.T, name string, r result) {
	t.Helper()
	text := s.normalize(r.stdout)
	if r.stderr != "" {
		text += "--- stderr\n" + s.normalize(r.stderr)
	}
	if r.err != nil {
		text += "--- error\n" + s.normalize(r.err.Error()) + "\n"
	}
	expectGolden(t, name, text)
}

// TestSeededCluster runs the commands against one API server.
func TestSeededCluster(t *testing.T) {
	s := startSeeded(t)
	golden := map[string][]string{
		"tokens.txt":      {"tokens", "-A", "--deep"},
		"tokens-wide.txt": {"tokens", "-n", "shop", "-o", "wide"},
		"tokens.csv":      {"tokens", "-A", "-o", "csv"},
		"tokens.yaml":     {"tokens", "-n", "shop", "-o", "yaml"},
		"reach.txt":       {"reach", "ci/deployer"},
		"reach-all.txt":   {"reach", "-A"},
		"reach-gone.txt":  {"reach", "system:serviceaccount:nowhere:nobody"},
		"reach.json":      {"reach", "backup", "-n", "ci", "-o", "json"},
		"keys.txt":        {"keys", "--deep"},
		"keys.json":       {"keys", "-o", "json"},
	}
	for name, args := range golden {
		t.Run(name, func(t *testing.T) { s.expectGolden(t, name, s.run(t, 0, args...)) })
	}
	t.Run("each verdict and each reach", s.testComplete)
	t.Run("no right to read roles", s.testMissingRights)
	t.Run("fail-on", s.testFailOn)
	t.Run("a terminal of 60 columns", s.testNarrow)
	t.Run("many contexts", s.testManyContexts)
	t.Run("bad input", s.testBadInput)
	t.Run("inspect", s.testInspect)
	t.Run("report", s.testReport)
}

func (s *seeded) testComplete(t *testing.T) {
	text := s.run(t, 0, "tokens", "-A", "--deep", "-o", "json").stdout
	for _, verdict := range inventory.Verdicts() {
		if !strings.Contains(text, `"verdict": "`+string(verdict)+`"`) {
			t.Errorf("no token has the verdict %q", verdict)
		}
	}
	for _, level := range reach.Levels() {
		if level != reach.Unknown && !strings.Contains(text, `"reach": "`+level.String()+`"`) {
			t.Errorf("no token has the reach %q", level)
		}
	}
}

func (s *seeded) testMissingRights(t *testing.T) {
	path := s.user(t, "auditor", rbacv1.PolicyRule{Verbs: []string{"list"}, APIGroups: []string{""}, Resources: []string{"secrets"}})
	s.expectGolden(t, "tokens-unknown.txt", s.runAs(t, path, 0, "", "tokens", "-A"))
	r := s.runAs(t, path, 0, "", "tokens", "-A", "--fail-on=secrets")
	if options.ExitCode(r.err) != 2 || !strings.Contains(r.err.Error(), "is unknown") {
		t.Errorf("--fail-on with an unknown reach: %v", r.err)
	}
}

func (s *seeded) testFailOn(t *testing.T) {
	for level, want := range map[string]int{"admin": 2, "secrets": 2, "nonsense": 1, "nothing": 1} {
		if r := s.run(t, 0, "tokens", "-A", "--fail-on", level); options.ExitCode(r.err) != want {
			t.Errorf("--fail-on=%s: got %v, want exit code %d", level, r.err, want)
		}
	}
	if r := s.run(t, 0, "tokens", "-n", "shop", "--fail-on=can-become-admin"); r.err != nil {
		t.Errorf("nothing to fail on: %v", r.err)
	}
}

func (s *seeded) testNarrow(t *testing.T) {
	for command, columns := range map[string][]string{
		"tokens -A --deep": {"SECRET", "REACH"},
		"keys --deep":      {"KEY", "ID", "TOKENS"},
		"reach -A":         {"ACCOUNT", "REACH"},
	} {
		r := s.run(t, 60, strings.Fields(command)...)
		for line := range strings.SplitSeq(r.stdout, "\n") {
			if len([]rune(line)) > 60 {
				t.Errorf("%s: %d columns: %s", command, len([]rune(line)), line)
			}
		}
		header, _, _ := strings.Cut(r.stdout, "\n")
		for _, column := range columns {
			if !slices.Contains(strings.Fields(header), column) {
				t.Errorf("%s: no column %s in %q", command, column, header)
			}
		}
	}
}

// testManyContexts: the flag chooses the cluster and the namespace, and no other cluster is asked.
func (s *seeded) testManyContexts(t *testing.T) {
	config, err := clientcmd.LoadFromFile(s.kubeconfig)
	mustNil(t, err)
	current := config.Contexts[config.CurrentContext]
	config.Clusters["nowhere"] = &clientcmdapi.Cluster{Server: "https://127.0.0.1:1"}
	for i := range 500 {
		config.Contexts[fmt.Sprintf("context-%d", i)] = &clientcmdapi.Context{Cluster: "nowhere", AuthInfo: current.AuthInfo}
	}
	config.Contexts["shop"] = &clientcmdapi.Context{Cluster: current.Cluster, AuthInfo: current.AuthInfo, Namespace: "shop"}
	config.CurrentContext = "context-1"
	path := filepath.Join(t.TempDir(), "kubeconfig")
	mustNil(t, clientcmd.WriteToFile(*config, path))
	r := s.runAs(t, path, 0, "", "tokens", "--context=shop")
	if r.err != nil || !strings.Contains(r.stdout, "web-token") || strings.Contains(r.stdout, "root-token") {
		t.Errorf("got %v %s", r.err, r.stdout)
	}
	if r := s.runAs(t, path, 0, "", "tokens"); options.ExitCode(r.err) != 1 || r.stdout != "" {
		t.Errorf("a cluster that does not answer: got %v %s", r.err, r.stdout)
	}
}

func (s *seeded) testBadInput(t *testing.T) {
	cases := map[string]struct {
		in   []string
		want string
	}{
		"a namespace that does not exist": {in: []string{"tokens", "-n", "nowhere"}, want: "namespace nowhere does not exist"},
		"a report of no namespace":        {in: []string{"report", "-n", "nowhere"}, want: "namespace nowhere does not exist"},
		"accounts of no namespace":        {in: []string{"reach", "-n", "nowhere"}, want: "namespace nowhere does not exist"},
		"a context that does not exist":   {in: []string{"tokens", "--context=nowhere"}, want: `context "nowhere" does not exist`},
		"a format that does not exist":    {in: []string{"tokens", "-o", "xml"}, want: `invalid argument "xml" for "-o, --output" flag: is not one of table, wide, json, yaml, csv`},
		"an impossible account":           {in: []string{"reach", "a/b/c"}, want: `"a/b/c" is not an account: want NAME, NAMESPACE/NAME or system:serviceaccount:NAMESPACE:NAME`},
		"no token to inspect":             {in: []string{"inspect", "--offline", "seed_test.go"}, want: "no token found"},
		"no file to inspect":              {in: []string{"inspect", "nowhere"}, want: "open nowhere: no such file or directory"},
		"review without requests":         {in: []string{"inspect", "--offline", "--review"}, want: "--review and --offline exclude each other"},
		"too short a time":                {in: []string{"tokens", "--unused-after=1h"}, want: "--unused-after: must be at least 24h, because uses are recorded once a day"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if r := s.run(t, 0, tc.in...); r.err == nil || r.err.Error() != tc.want {
				t.Errorf("got %v, want %s", r.err, tc.want)
			}
		})
	}
}

// token returns the token in a Secret.
func (s *seeded) token(t *testing.T, namespace, name, key string) string {
	t.Helper()
	secret, err := s.client.CoreV1().Secrets(namespace).Get(t.Context(), name, metav1.GetOptions{})
	mustNil(t, err)
	return string(secret.Data[key])
}

func (s *seeded) testInspect(t *testing.T) {
	broken := "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOjEyM30.AAAA"
	other := "eyJhbGciOiJIUzI1NiJ9." + base64.RawURLEncoding.EncodeToString([]byte(`{"iss":"https://example.com","sub":"\u001b[2Jsomebody","exp":1e300,"aud":"x"}`)) + ".AAAA"
	legacy, former := s.token(t, "ci", "root-token", "token"), s.token(t, "ci", "former-token", "token")
	cases := map[string]struct {
		stdin string
		in    []string
	}{
		"inspect-legacy.txt":     {stdin: legacy + "\n"},
		"inspect-former.txt":     {stdin: former, in: []string{"-"}},
		"inspect-forged.txt":     {stdin: legacy[:len(legacy)-8] + "AAAAAAAA"},
		"inspect-kubeconfig.txt": {stdin: s.token(t, "shop", "monitor-kubeconfig", "kubeconfig")},
		"inspect-broken.txt":     {stdin: broken + " " + other},
		"inspect-offline.txt":    {stdin: legacy, in: []string{"--offline"}},
		"inspect-review.txt":     {stdin: legacy + " " + former, in: []string{"--review"}},
		"inspect.json":           {stdin: s.token(t, "shop", "monitor-kubeconfig", "kubeconfig"), in: []string{"-o", "json"}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			r := s.runAs(t, s.kubeconfig, 0, tc.stdin, append([]string{"inspect"}, tc.in...)...)
			r.stdout = uids.ReplaceAllString(r.stdout, "00000000-0000-0000-0000-000000000000")
			s.expectGolden(t, name, r)
		})
	}
	used := s.client.CoreV1().Secrets("ci")
	secret, err := used.Get(t.Context(), "root-token", metav1.GetOptions{})
	mustNil(t, err)
	if _, recorded := secret.Labels[token.LastUsedLabel]; !recorded {
		t.Error("a review is no use, though the command says so")
	}
}

func (s *seeded) testReport(t *testing.T) {
	r := s.run(t, 0, "report", "-A", "--deep")
	mustNil(t, r.err)
	for _, want := range []string{
		"<strong>ci/root-token</strong>, account ci/root: <strong>cluster-admin</strong>", "kubectl delete secret -n ci former-token", "7 tokens in Secrets are alive",
		`aria-label="By reach. cluster-admin: 1, can become cluster-admin: 2, secrets: 1`,
	} {
		if !strings.Contains(strings.ReplaceAll(r.stdout, "</span>", ""), strings.ReplaceAll(want, "</span>", "")) {
			t.Errorf("the report does not have %q", want)
		}
	}
	for _, url := range regexp.MustCompile(`(?:src|href)="([^"]*)"`).FindAllStringSubmatch(r.stdout, -1) {
		if !strings.HasPrefix(url[1], "data:") {
			t.Errorf("the report needs the network: %s", url[1])
		}
	}
	if dir := os.Getenv("REPORT_SAMPLES"); dir != "" {
		mustNil(t, os.WriteFile(filepath.Join(dir, "seeded.html"), []byte(r.stdout), 0o600))
	}
	if r := s.run(t, 80, "report"); r.err == nil || r.stdout != "" {
		t.Errorf("a page was printed to a terminal: %v", r.err)
	}
}
