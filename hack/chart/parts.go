package main

import "strings"

// A part is a file of templates.
type part struct {
	// dir is the directory of a kustomization below manifests.
	dir string
	// when is the condition under which its objects are rendered.
	when string
	// variants are other forms of these objects.
	variants []variant
}

// A variant is what kustomize makes of other directories, in the place of that of the part.
type variant struct {
	dirs []string
	when string
}

const hasWebhook = `has .Values.mode (list "coexist-webhook" "replace")`

// parts are all of them. The overlay coexist is its two components.
var parts = []part{
	{dir: "components/managed-tokens", when: `has .Values.mode (list "coexist" "managed-tokens")`},
	{dir: "components/policies/secret-references", when: `or (eq .Values.mode "coexist") .Values.policies.secretReferences`},
	{dir: "overlays/coexist-webhook", when: `eq .Values.mode "coexist-webhook"`, variants: []variant{
		{dirs: []string{"overlays/coexist-webhook", "components/webhook-clients"}, when: ".Values.webhookClients"},
	}},
	{dir: "overlays/replace", when: `eq .Values.mode "replace"`, variants: []variant{
		{dirs: []string{"overlays/replace", "components/webhook-clients"}, when: ".Values.webhookClients"},
		{dirs: []string{"overlays/replace", "components/webhooks-when-ready"}, when: ".Values.webhooksWhenReady"},
	}},
	{dir: "components/token-requests", when: `and .Values.tokenRequests (eq .Values.mode "replace")`},
	{dir: "components/token-generation", when: `ne .Values.tokenGeneration "none"`},
	{dir: "components/token-volumes-from-secrets", when: ".Values.tokenVolumesFromSecrets"},
	{dir: "components/account-templates", when: ".Values.accountTemplates"},
	{dir: "components/policies/account-templates", when: ".Values.policies.accountTemplates"},
	{dir: "components/pull-secret-copies", when: ".Values.pullSecretSourceNamespaces"},
	{dir: "components/token-inventory", when: ".Values.inventoryInterval"},
	{dir: "components/policies/token-limits", when: ".Values.policies.tokenLimits"},
	{dir: "components/policies/account-defaults", when: ".Values.policies.accountDefaults"},
	{dir: "components/policies/token-seconds", when: ".Values.policies.tokenSeconds"},
	{dir: "base/authenticator", when: ".Values.authenticator.enabled"},
	{dir: "components/track-legacy-tokens", when: ".Values.authenticator.trackLegacyTokens"},
	{dir: "components/monitoring-without-webhook", when: ".Values.monitoring", variants: []variant{
		{dirs: []string{"components/monitoring"}, when: hasWebhook},
	}},
}

// notInChart are the other directories of manifests, and why no part has them.
var notInChart = map[string]string{
	"overlays/coexist":               "its two components are parts",
	"overlays/static-pod":            "its pods are files on nodes",
	"overlays/outside":               "it has no pods",
	"components/no-pods":             "as overlays/outside",
	"components/in-tree-controllers": "in overlays/replace",
	"components/webhook-identity":    "kubectl apply -k adds it to any replace",
}

// file returns the path of the templates in the chart.
func (p part) file() string {
	_, name, _ := strings.Cut(p.dir, "/")
	return "templates/" + strings.ReplaceAll(name, "/", "-") + ".yaml"
}

// template returns the objects of the part, with its condition and those of its variants.
func (p part) template(root string) (string, error) {
	base, err := render(root, p.dir)
	if err != nil {
		return "", err
	}
	var edits []edit
	for _, v := range p.variants {
		lines, err := render(root, v.dirs...)
		if err != nil {
			return "", err
		}
		edits = append(edits, diff(base, lines, v.when))
	}
	return "{{- /* Made by `make manifests` from manifests/" + p.dir + ": change it there. */}}\n" +
		"{{- if " + p.when + " }}\n" +
		strings.Join(merge(base, edits), "\n") +
		"\n{{- end }}\n", nil
}
