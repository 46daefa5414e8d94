package main

import (
	"slices"
	"testing"
)

// TestWrongValuesAreRefused: with the path of the value, and what to do.
func TestWrongValuesAreRefused(t *testing.T) {
	tests := map[string]struct {
		values []string
		in     string
		texts  []string
	}{
		"two modes in a list":       {values: []string{"mode={coexist,replace}"}, texts: []string{"at '/mode': value must be one of 'coexist', 'coexist-webhook', 'managed-tokens', 'replace', 'none'"}},
		"two modes in a text":       {values: []string{`mode=coexist\,replace`}, texts: []string{"at '/mode'"}},
		"a name that is not known":  {values: []string{"controllers.replica=3"}, texts: []string{"at '/controllers': additional properties 'replica' not allowed"}},
		"a mode that is a value":    {values: []string{"replace=true"}, texts: []string{"additional properties 'replace' not allowed"}},
		"a text for a number":       {values: []string{"controllers.replicas=many"}, texts: []string{"at '/controllers/replicas': got string, want integer"}},
		"no replica":                {values: []string{"webhook.replicas=0"}, texts: []string{"at '/webhook/replicas': minimum: got 0, want 1"}},
		"a verbosity with bodies":   {values: []string{"logging.verbosity=8"}, texts: []string{"at '/logging/verbosity': maximum: got 8, want 7"}},
		"a tag in the repository":   {values: []string{"image.tag=a:b"}, texts: []string{"at '/image/tag'"}},
		"an argument that is none":  {values: []string{"controllers.extraArgs={controllers}"}, texts: []string{"at '/controllers/extraArgs/0'"}},
		"an interval of no unit":    {values: []string{"inventoryInterval=6x"}, texts: []string{"at '/inventoryInterval'"}},
		"replace without a key":     {values: []string{"mode=replace"}, texts: []string{"signingKeys.secretName: mode replace signs tokens", "keys import --secret=sakeeper-system/sakeeper-signing-keys"}},
		"a key without replace":     {values: []string{"signingKeys.secretName=x"}, texts: []string{"signingKeys.secretName: only mode replace", "mode is coexist: unset it, or set mode=replace"}},
		"replicas of a DaemonSet":   {values: append(slices.Clone(replace), "controllers.replicas=3"), texts: []string{"controllers.replicas: mode replace has one pod on each node"}},
		"clients of no webhook":     {values: []string{"webhookClients=true"}, texts: []string{"webhookClients: mode coexist has no webhook", "mode=coexist-webhook"}},
		"tracking by nothing":       {values: []string{"authenticator.trackLegacyTokens=true"}, texts: []string{"authenticator.enabled=true"}},
		"templates without anybody": {values: []string{"mode=none", "accountTemplates=true"}, texts: []string{"accountTemplates: mode none runs no controllers", "mode=managed-tokens"}},
		"a policy for no templates": {values: []string{"policies.accountTemplates=true"}, texts: []string{"policies.accountTemplates: there are no templates", "accountTemplates=true"}},
		"copies for no templates":   {values: []string{"pullSecretSourceNamespaces={registry}"}, texts: []string{"pullSecretSourceNamespaces: there are no templates"}},
		"copies from no namespace":  {values: []string{"accountTemplates=true", "pullSecretSourceNamespaces={a/b}"}, texts: []string{"at '/pullSecretSourceNamespaces/0'"}},
		"two at once": {
			values: []string{"mode=coexist-webhook", "tokenGeneration=all", "tokenVolumesFromSecrets=true", "webhooksWhenReady=true"},
			texts:  []string{"- tokenGeneration: only mode replace", "- tokenVolumesFromSecrets: only", "- webhooksWhenReady: only"},
		},
		"a namespace like a number":  {in: "123", texts: []string{"namespace 123: YAML takes it for float64"}},
		"the namespace of everybody": {in: "default", texts: []string{"namespace default:", "--namespace=sakeeper-system --create-namespace"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in := namespace
			if test.in != "" {
				in = test.in
			}
			_, err := helm(t, templateArgs(t, in, test.values...)...)
			expectRefused(t, err, test.texts...)
		})
	}
}

// TestOldAPIServersAreRefused: before anything is installed.
func TestOldAPIServersAreRefused(t *testing.T) {
	tests := map[string]struct{ version, values, want string }{
		"all":             {"1.29.9", "mode=managed-tokens", "requires kubeVersion: >=1.30.0-0"},
		"coexist":         {"1.33.5", "mode=coexist", "mode coexist needs Kubernetes 1.34, and this is v1.33.5: set mode=coexist-webhook"},
		"a policy":        {"1.33.5", "mode=none,policies.tokenLimits=true", "policies.tokenLimits needs Kubernetes 1.34"},
		"a mutation":      {"1.35.9-eks-1", "policies.accountDefaults=true", "policies.accountDefaults needs Kubernetes 1.36"},
		"not the webhook": {"1.30.1-gke.1", "mode=coexist-webhook", ""},
		"not the policy":  {"1.34.0-eks-1", "mode=coexist", ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := helm(t, "template", "sakeeper", chart(t), "--namespace="+namespace, "--kube-version="+test.version, "--set", test.values)
			if test.want != "" {
				expectRefused(t, err, test.want)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
}
