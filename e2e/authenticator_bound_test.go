package e2e

import (
	"context"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sakeeper/sakeeper/pkg/issuer"
	"github.com/sakeeper/sakeeper/pkg/keys"
	"github.com/sakeeper/sakeeper/pkg/token"
)

// TestAuthenticatorChecksWebhookConfigurations with tokens as Kubernetes 1.37 issues them if the
// feature gate APIServerWebhookAuthenticationToken is on. They are signed here, with the key of the
// API server, because the gate is off by default.
func TestAuthenticatorChecksWebhookConfigurations(t *testing.T) {
	r := startAuthenticator(t, planeIssuer+issuer.JWKSPath)
	namespace := newNamespace(t, shared.client)
	account := mustCreateAccount(t, shared.client, namespace, "robot")
	loader, err := keys.Files{PrivateKeyFile: shared.cp.SigningKeyFile}.Open()
	must(t, err)
	sign := func(bound string) string {
		t.Helper()
		now := time.Now().Unix()
		payload := base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil,
			`{"aud":[%[1]q],"exp":%[3]d,"iat":%[2]d,"iss":%[1]q,"kubernetes.io":{"namespace":%[4]q,"serviceaccount":{"name":"robot","uid":%[5]q}%[6]s},"nbf":%[2]d,"sub":"system:serviceaccount:%[4]s:robot"}`,
			planeIssuer, now, now+600, namespace, account.UID, bound))
		segments, err := token.NewSigner(loader.Get).Sign(payload)
		must(t, err)
		return segments.Header + "." + payload + "." + segments.Signature
	}
	const attested = `,"attestations":{"admissionReviewAPIGroups":["apps"]}`
	registrations := shared.client.AdmissionregistrationV1()
	validating, err := registrations.ValidatingWebhookConfigurations().Create(t.Context(), &admissionregistrationv1.ValidatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{})
	must(t, err)
	mutating, err := registrations.MutatingWebhookConfigurations().Create(t.Context(), &admissionregistrationv1.MutatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{})
	must(t, err)
	tokens := map[string]string{
		"validating": sign(fmt.Sprintf(`,"validatingwebhookconfiguration":{"name":%q,"uid":%q}`, namespace, validating.UID) + attested),
		"mutating":   sign(fmt.Sprintf(`,"mutatingwebhookconfiguration":{"name":%q,"uid":%q}`, namespace, mutating.UID) + attested),
	}
	answers := func(compact string, want bool) func(context.Context) error {
		return func(ctx context.Context) error {
			status, err := r.ask(ctx, compact)
			if err == nil && status.Authenticated != want {
				err = fmt.Errorf("accepted: %t, %s", status.Authenticated, status.Error)
			}
			return err
		}
	}
	for kind, compact := range tokens {
		eventually(t, "a token for a "+kind+" webhook configuration is accepted", answers(compact, true))
	}
	status, err := r.ask(t.Context(), tokens["validating"])
	must(t, err)
	if got := fmt.Sprint(status.User.Extra["authentication.kubernetes.io/validatingwebhookconfiguration-uid"]); !strings.Contains(got, string(validating.UID)) {
		t.Errorf("extra of the user: %v", status.User.Extra)
	}
	if err := answers(sign(`,"deployment":{"name":"d","uid":"u"}`), false)(t.Context()); err != nil {
		t.Errorf("a token for an unknown kind: %v", err)
	}
	must(t, registrations.ValidatingWebhookConfigurations().Delete(t.Context(), namespace, metav1.DeleteOptions{}))
	must(t, registrations.MutatingWebhookConfigurations().Delete(t.Context(), namespace, metav1.DeleteOptions{}))
	for kind, compact := range tokens {
		if err := answers(compact, false)(t.Context()); err != nil {
			t.Errorf("a token for a %s webhook configuration that is gone: %v", kind, err)
		}
	}
}
