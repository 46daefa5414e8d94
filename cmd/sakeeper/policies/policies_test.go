package policies

import (
	"bytes"
	"strings"
	"testing"
)

func run(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	cmd := NewCommand()
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.SetArgs(args)
	cmd.SetOut(&out)
	err := cmd.ExecuteContext(t.Context())
	return out.String(), err
}

func TestFlagsReachThePolicies(t *testing.T) {
	cases := map[string]struct {
		in                []string
		contains, without []string
	}{
		"secret-references": {
			in:       []string{"secret-references"},
			contains: []string{"name: sakeeper-secret-references", "- Deny", "failurePolicy: Fail", "enforce-mountable-secrets", "cephfs", "- kube-system\n", "- sakeeper-system\n"},
		},
		"other secret-references": {
			in: []string{
				"secret-references", "--limit-secret-references", "--secret-reference-scope=in-tree", "--secret-reference-mode=audit",
				"--excluded-namespaces=infra", "--for-version=1.34",
			},
			contains: []string{"- Audit", "failurePolicy: Ignore", "- infra\n"},
			without:  []string{"enforce-mountable-secrets", "cephfs", "- kube-system\n", "- Deny"},
		},
		"account-defaults": {
			in: []string{
				"account-defaults", "--account-namespace-selector=team in (a,b)", "--account-image-pull-secrets=registry,other",
				"--account-labels=example.com/a=b,c=d", "--for-version=1.36",
			},
			contains: []string{
				"key: team\n", "automountServiceAccountToken', value: false", "[{'name': 'registry'}, {'name': 'other'}]", "escapeKey('example.com/a'), value: 'b'",
				"escapeKey('c'), value: 'd'",
			},
		},
		"without automounting": {in: []string{"account-defaults", "--account-no-automount=false", "--account-labels=c=d"}, without: []string{"automount"}},
		"account-templates": {
			in:       []string{"account-templates", "--excluded-namespaces=infra"},
			contains: []string{"kind: ServiceAccountTemplate", "parameterNotFoundAction: Allow", "failurePolicy: Fail", "- infra\n"},
			without:  []string{"- kube-system\n", "matchConditions"},
		},
		"token-limits": {
			in: []string{
				"token-limits", "--max-token-lifetime=36h", "--allowed-audiences=a,b", "--api-audiences=https://issuer", "--token-limit-mode=audit",
				"--token-secrets-mode=audit", "--for-version=1.34",
			},
			contains: []string{"orValue('36h0m0s')", "orValue('a,b')", "'https://issuer'"},
			without:  []string{"- Deny", "- Warn", "kubernetes.default.svc"},
		},
		"token-seconds":            {in: []string{"token-seconds", "--token-expiration-seconds=1234"}, contains: []string{"value: 1234"}},
		"no namespace is excluded": {in: []string{"secret-references", "--excluded-namespaces="}, without: []string{"namespaceSelector"}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			out, err := run(t, tc.in...)
			if err != nil {
				t.Fatal(err)
			}
			for _, text := range tc.contains {
				if !strings.Contains(out, text) {
					t.Errorf("no %q in:\n%s", text, out)
				}
			}
			for _, text := range tc.without {
				if strings.Contains(out, text) {
					t.Errorf("%q in:\n%s", text, out)
				}
			}
		})
	}
}

func TestNothingIsPrintedIfASettingIsWrong(t *testing.T) {
	cases := map[string]struct {
		in   []string
		want string
	}{
		"no policy":   {want: "say which policies to print: secret-references, account-defaults, account-templates, token-limits, token-seconds"},
		"no such one": {in: []string{"secret-references", "nonsense"}, want: `there is no policy "nonsense"; the policies are secret-references, account-defaults`},
		"several": {
			in: []string{"secret-references", "--for-version=1.30", "--secret-reference-mode=log", "--secret-reference-scope=every"},
			want: `--for-version: "1.30": policies are made for Kubernetes 1.34 and later
--secret-reference-scope: secret reference scope "every" is neither "in-tree" nor "all"
--secret-reference-mode: "log" is not one of deny, warn, audit`,
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			out, err := run(t, tc.in...)
			if err == nil || !strings.HasPrefix(err.Error(), tc.want) || out != "" {
				t.Errorf("got %v, want %s; printed %q", err, tc.want, out)
			}
		})
	}
}
