package policy_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sakeeper/sakeeper/pkg/policy"
)

func TestSettingsThatAreRefused(t *testing.T) {
	cases := map[string]struct {
		names   []string
		version string
		in      func(*policy.Settings)
		want    []string // the beginnings of the lines of the error
	}{
		"no such policy": {
			names: []string{"nonsense"}, want: []string{`there is no policy "nonsense"; the policies are secret-references, account-defaults, account-templates, token-limits, token-seconds`},
		},
		"an impossible namespace": {
			in:   func(s *policy.Settings) { s.ExcludedNamespaces = []string{"kube-system", "a'b"} },
			want: []string{`--excluded-namespaces: "a'b": a lowercase RFC 1123 label`},
		},
		"all settings of secret-references": {
			in: func(s *policy.Settings) { s.SecretReferences = policy.SecretReferences{} },
			want: []string{
				`--secret-reference-scope: it is empty`, `--secret-reference-mode: "" is not one of deny, warn, audit`,
			},
		},
		"a version that lacks several": {
			names: []string{policy.AccountDefaultsName, policy.SecretReferencesName, policy.AccountTemplatesName, policy.TokenSecondsName}, version: "1.35",
			want: []string{
				`--for-version: account-defaults needs MutatingAdmissionPolicy in admissionregistration.k8s.io/v1, which API servers have since 1.36, and not in 1.35`,
				`--for-version: account-templates needs MutatingAdmissionPolicy in admissionregistration.k8s.io/v1, which API servers have since 1.36, and not in 1.35`,
				`--for-version: token-seconds needs MutatingAdmissionPolicy in admissionregistration.k8s.io/v1, which API servers have since 1.36, and not in 1.35`,
			},
		},
		"no change to accounts": {
			names: []string{policy.AccountDefaultsName}, in: func(s *policy.Settings) { s.AccountDefaults = policy.AccountDefaults{} },
			want: []string{"account-defaults: none of --account-no-automount, --account-image-pull-secrets, --account-labels is set"},
		},
		"all settings of account-defaults": {
			names: []string{policy.AccountDefaultsName},
			in: func(s *policy.Settings) {
				s.AccountDefaults = policy.AccountDefaults{
					NamespaceSelector: "a in", PullSecrets: []string{"A"}, Labels: map[string]string{"a b": "c", "d": "e'"},
				}
			},
			want: []string{
				`--account-namespace-selector: `, `--account-image-pull-secrets: "A": a lowercase RFC 1123 subdomain`,
				`--account-labels: a b=c: name part must consist of`, `--account-labels: d=e': a valid label must be`,
			},
		},
		"all settings of token-limits": {
			names: []string{policy.TokenLimitsName},
			in: func(s *policy.Settings) {
				s.TokenLimits = policy.TokenLimits{MaxLifetime: time.Minute, AllowedAudiences: []string{"a,b", "a\n"}, Mode: "x", SecretsMode: "y"}
			},
			want: []string{
				`--token-limit-mode: "x" is not one of deny, warn, audit`, `--token-secrets-mode: "y" is not one of`,
				`--max-token-lifetime: 1m0s is not a number of seconds from 10m0s to 999999h`, `--api-audiences: it is empty, and the API server has at least one`,
				`--allowed-audiences: "a,b" is empty or has a comma`, `--allowed-audiences: "a\n" is empty or has a comma`,
			},
		},
		"a lifetime that is no number of seconds": {
			names: []string{policy.TokenLimitsName}, in: func(s *policy.Settings) { s.TokenLimits.MaxLifetime = time.Hour + 1 },
			want: []string{`--max-token-lifetime: 1h0m0.000000001s is not`},
		},
		"the lifetime that pods have": {
			names: []string{policy.TokenSecondsName}, in: func(s *policy.Settings) { s.TokenSeconds.Seconds = 3607 },
			want: []string{`--token-expiration-seconds: 3607 is what pods have without the policy`},
		},
		"a lifetime that is too short": {
			names: []string{policy.TokenSecondsName}, in: func(s *policy.Settings) { s.TokenSeconds.Seconds = 599 },
			want: []string{`--token-expiration-seconds: 599 is not between 600 and 4294967296`},
		},
		"an unknown scope": {
			in:   func(s *policy.Settings) { s.SecretReferences.Scope = "some" },
			want: []string{`--secret-reference-scope: secret reference scope "some" is neither "in-tree" nor "all"`},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			s, version := policy.Defaults(), policy.Newest()
			if tc.in != nil {
				tc.in(&s)
			}
			if tc.version != "" {
				parsed, err := policy.ParseVersion(tc.version)
				must(t, err)
				version = parsed
			}
			if tc.names == nil {
				tc.names = []string{policy.SecretReferencesName}
			}
			objects, err := policy.Generate(tc.names, version, s)
			if err == nil || objects != nil {
				t.Fatalf("got %v, %d objects", err, len(objects))
			}
			lines := strings.Split(err.Error(), "\n")
			if len(lines) != len(tc.want) {
				t.Fatalf("got %q", lines)
			}
			for i, want := range tc.want {
				if !strings.HasPrefix(lines[i], want) {
					t.Errorf("got %s, want %s", lines[i], want)
				}
			}
		})
	}
}

func TestVersions(t *testing.T) {
	const tooOld = ": policies are made for Kubernetes 1.34 and later"
	cases := map[string]struct {
		want    policy.Version
		wantErr string
	}{
		"1.34":           {want: policy.Version{Major: 1, Minor: 34}},
		"v1.36.3":        {want: policy.Version{Major: 1, Minor: 36}},
		"1.37.2-gke.100": {want: policy.Version{Major: 1, Minor: 37}},
		"v1.40.0+k3s1":   {want: policy.Version{Major: 1, Minor: 40}},
		"1.33":           {wantErr: `"1.33"` + tooOld},
		"2.0":            {wantErr: `"2.0"` + tooOld},
		"":               {wantErr: `"" is not a version such as 1.37`},
		"1":              {wantErr: `"1" is not a version such as 1.37`},
		"1.36.x":         {wantErr: `"1.36.x" is not a version such as 1.37`},
	}
	for in, tc := range cases {
		got, err := policy.ParseVersion(in)
		text := ""
		if err != nil {
			text = err.Error()
		}
		if diff := cmp.Diff(tc.want, got); diff != "" || text != tc.wantErr {
			t.Errorf("%q: error %q, version (-want +got):\n%s", in, text, diff)
		}
	}
}
