package e2e

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sakeeper/sakeeper/pkg/servingcert/pki"
	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
)

// webhookPatches are JSON patches of the webhook's configurations that its role allows, and the policy
// webhook-identity does not: one for each field but caBundle.
func webhookPatches() map[string]string {
	set := func(path, value string) string {
		return fmt.Sprintf(`[{"op":"add","path":%q,"value":%s}]`, path, value)
	}
	first := func(field, value string) string { return set("/webhooks/0/"+field, value) }
	return map[string]string{
		"name":                    first("name", `"other.pods.sakeeper.io"`),
		"clientConfig":            first("clientConfig", `{"url":"https://127.0.0.1:1/"}`),
		"url":                     first("clientConfig/url", `"https://127.0.0.1:1/"`),
		"rules":                   first("rules/0/resources", `["pods","secrets"]`),
		"failurePolicy":           first("failurePolicy", `"Ignore"`),
		"matchPolicy":             first("matchPolicy", `"Exact"`),
		"matchConditions":         first("matchConditions", `[]`),
		"namespaceSelector":       first("namespaceSelector", `{"matchLabels":{"a":"b"}}`),
		"objectSelector":          first("objectSelector", `{"matchLabels":{"a":"b"}}`),
		"sideEffects":             first("sideEffects", `"NoneOnDryRun"`),
		"timeoutSeconds":          first("timeoutSeconds", `30`),
		"admissionReviewVersions": first("admissionReviewVersions", `["v1","v1beta1"]`),
		"one webhook less":        `[{"op":"remove","path":"/webhooks"}]`,
		"one webhook more":        `[{"op":"copy","from":"/webhooks/0","path":"/webhooks/1"},{"op":"replace","path":"/webhooks/1/name","value":"more.pods.sakeeper.io"}]`,
		"labels":                  set("/metadata/labels", `{"a":"b"}`),
		"annotations":             set("/metadata/annotations", `{"a":"b"}`),
		"finalizers":              set("/metadata/finalizers", `["example.com/stay"]`),
		"ownerReferences":         set("/metadata/ownerReferences", `[{"apiVersion":"v1","kind":"Namespace","name":"gone","uid":"gone"}]`),
	}
}

// TestTheWebhooksIdentityChangesOnlyItsBundles with the component webhook-identity. The webhook runs
// with it, and renews its certificates.
func TestTheWebhooksIdentityChangesOnlyItsBundles(t *testing.T) {
	p := newControlPlane(t)
	startWebhook(t, p)
	namespace := newTeam(t, p, "team")
	expectToken(t, expectAdmitted(t, p.client, namespace, "before"))
	identity, err := p.ServiceAccount(controlplane.Namespace, controlplane.WebhookAccount)
	must(t, err)
	registrations := mustClient(t, identity).AdmissionregistrationV1()
	try := func(ctx context.Context, patch string) (mutating, validating error) {
		dryRun := metav1.PatchOptions{DryRun: []string{metav1.DryRunAll}}
		_, mutating = registrations.MutatingWebhookConfigurations().Patch(ctx, "sakeeper-webhook", types.JSONPatchType, []byte(patch), dryRun)
		_, validating = registrations.ValidatingWebhookConfigurations().Patch(ctx, "sakeeper-webhook", types.JSONPatchType, []byte(patch), dryRun)
		return mutating, validating
	}
	for name, patch := range webhookPatches() {
		if mutating, validating := try(t.Context(), patch); mutating != nil || validating != nil {
			t.Errorf("%s, without the policy: %v, %v", name, mutating, validating)
		}
	}

	must(t, p.RunKubectl(t.Context(), "apply", "-k", "../manifests/components/webhook-identity"))
	refused := func(err error) error {
		if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "sakeeper-webhook may change nothing but clientConfig.caBundle") {
			return fmt.Errorf("not refused: %w", errors.Join(err, errors.ErrUnsupported))
		}
		return nil
	}
	patches := webhookPatches()
	eventually(t, "the policy is in effect", func(ctx context.Context) error {
		mutating, validating := try(ctx, patches["rules"])
		return errors.Join(refused(mutating), refused(validating))
	})
	for name, patch := range patches {
		mutating, validating := try(t.Context(), patch)
		if err := errors.Join(refused(mutating), refused(validating)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if mutating, _ := try(t.Context(), `[{"op":"add","path":"/webhooks/0/reinvocationPolicy","value":"Never"}]`); refused(mutating) != nil {
		t.Errorf("reinvocationPolicy: %v", mutating)
	}
	// The admin is not concerned, and the webhook still puts its bundles back and renews its certificates.
	must(t, p.RunKubectl(t.Context(), "label", "mutatingwebhookconfiguration/sakeeper-webhook", "a=b"))
	expectBundlesComeBack(t, p)
	expectRenewed(t, p, pki.Pair{})
	expectToken(t, expectAdmitted(t, p.client, namespace, "after"))
}

// TestThePolicyOfTheWebhooksIdentityKnowsEveryField: a field that a later release adds must be added
// to the policy too.
func TestThePolicyOfTheWebhooksIdentityKnowsEveryField(t *testing.T) {
	t.Parallel()
	patches := webhookPatches()
	for _, kind := range []reflect.Type{reflect.TypeFor[admissionregistrationv1.MutatingWebhook](), reflect.TypeFor[admissionregistrationv1.ValidatingWebhook]()} {
		for field := range kind.Fields() {
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			if _, ok := patches[name]; !ok && name != "reinvocationPolicy" {
				t.Errorf("no patch of %s.%s", kind.Name(), name)
			}
		}
	}
}
