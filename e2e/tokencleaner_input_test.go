package e2e

import (
	"context"
	"errors"
	"fmt"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/token"
)

// eagerCleaner has the flags for a period of a second instead of a year.
func eagerCleaner() []string {
	return []string{"--legacy-service-account-token-clean-up-period=1s", "--legacy-service-account-token-clean-up-interval=1s"}
}

// mustSetTracking sets the data of the API server's ConfigMap about the tracking of legacy
// tokens, once it exists.
func mustSetTracking(t *testing.T, client kubernetes.Interface, data string) {
	t.Helper()
	eventually(t, "the record of uses", func(ctx context.Context) error {
		_, err := client.CoreV1().ConfigMaps(metav1.NamespaceSystem).Patch(ctx, "kube-apiserver-legacy-service-account-token-tracking",
			types.MergePatchType, []byte(`{"data":`+data+`}`), metav1.PatchOptions{})
		return err
	})
}

// expectEventIn is expectEvent for an object of another namespace.
func expectEventIn(t *testing.T, client kubernetes.Interface, namespace, object, reason string) {
	t.Helper()
	eventually(t, "event "+reason+" on "+namespace+"/"+object, func(ctx context.Context) error {
		events, err := client.CoreV1().Events(namespace).List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.name=" + object + ",reason=" + reason})
		if err == nil && len(events.Items) == 0 {
			err = errors.New("none")
		}
		return err
	})
}

// TestACleanerThatCannotTellWhatIsUnusedDoesNothing: the cleaner marks an unused Secret only
// once the date in the ConfigMap is valid and old enough. The API server replaces an invalid date
// by that of today.
func TestACleanerThatCannotTellWhatIsUnusedDoesNothing(t *testing.T) {
	for name, data := range map[string]string{
		"no since": `{"since":null}`, "a date of tomorrow": fmt.Sprintf(`{"since":%q}`, day(-1)), "no date": `{"since":"long ago"}`,
	} {
		t.Run(name, func(t *testing.T) {
			p := newControlPlane(t)
			mustSetTracking(t, p.client, data)
			account := mustCreateAccount(t, p.client, metav1.NamespaceDefault, "robot", "unused")
			s := startReadySakeeper(t, p.sakeeperArgs(t, eagerCleaner()...))
			mustCreateSecret(t, p.client, metav1.NamespaceDefault, tokenSecret("unused", "robot"))
			expectFilled(t, p.client, metav1.NamespaceDefault, "unused", account, p.Admin.CAData) // other controllers still work
			expectMetric(t, s, `sakeeper_token_clean_up_secrets{verdict="untracked"} 1`)
			if name == "a date of tomorrow" {
				expectEventIn(t, p.client, metav1.NamespaceSystem, "kube-apiserver-legacy-service-account-token-tracking", "UnusableTokenTracking")
			}
			secret, err := p.client.CoreV1().Secrets(metav1.NamespaceDefault).Get(t.Context(), "unused", metav1.GetOptions{})
			must(t, err)
			if value, ok := secret.Labels[token.InvalidSinceLabel]; ok {
				t.Errorf("it was marked: %q", value)
			}
			mustBackdateTracking(t, p.client)
			expectMarked(t, p.client, metav1.NamespaceDefault, "unused")
		})
	}
}

func TestBadSettingsOfOneSecretKeepTheCleanerFromNothing(t *testing.T) {
	p := newControlPlane(t)
	mustBackdateTracking(t, p.client)
	const namespace = metav1.NamespaceDefault
	account := mustCreateAccount(t, p.client, namespace, "robot", "garbled", "unused")
	startReadySakeeper(t, p.sakeeperArgs(t))
	for _, name := range []string{"bad-duration", "negative", "bad-keep", "garbled", "unused"} {
		secret := tokenSecret(name, "robot")
		switch name {
		case "bad-duration":
			secret.Annotations[api.CleanUpUnusedAnnotation] = "90 days"
		case "negative":
			secret.Annotations[api.CleanUpUnusedAnnotation] = "-1h"
		case "bad-keep":
			secret.Annotations[api.KeepAnnotation] = "perhaps"
		case "garbled":
			secret.Labels = map[string]string{token.InvalidSinceLabel: "yesterday"}
		}
		mustCreateSecret(t, p.client, namespace, secret)
		expectFilled(t, p.client, namespace, name, account, p.Admin.CAData)
	}
	other := newNamespace(t, p.client)
	_, err := p.client.CoreV1().Namespaces().Patch(t.Context(), other, types.MergePatchType,
		fmt.Appendf(nil, `{"metadata":{"annotations":{%q:"soon"}}}`, api.CleanUpUnusedAnnotation), metav1.PatchOptions{})
	must(t, err)
	mustCreateAccount(t, p.client, other, "robot")
	mustCreateSecret(t, p.client, other, tokenSecret("by-hand", "robot"))

	startReadySakeeper(t, p.sakeeperArgs(t, append(eagerCleaner(), "--leader-elect=false")...))
	for _, name := range []string{"bad-duration", "negative", "bad-keep"} {
		expectEvent(t, p.client, name, "InvalidCleanUpSetting")
	}
	expectEvent(t, p.client, other, "InvalidCleanUpSetting")
	expectMarked(t, p.client, namespace, "unused")
	eventually(t, "the garbled mark is written anew", func(ctx context.Context) error {
		secret, err := p.client.CoreV1().Secrets(namespace).Get(ctx, "garbled", metav1.GetOptions{})
		if err == nil && !isToday(secret.Labels[token.InvalidSinceLabel]) {
			err = fmt.Errorf("it is %q", secret.Labels[token.InvalidSinceLabel])
		}
		return err
	})
	for _, name := range []string{"bad-duration", "negative", "bad-keep"} {
		secret, err := p.client.CoreV1().Secrets(namespace).Get(t.Context(), name, metav1.GetOptions{})
		must(t, err)
		if value, ok := secret.Labels[token.InvalidSinceLabel]; ok {
			t.Errorf("secret %s was marked: %q", name, value)
		}
	}
}

// TestGenerationAndCleanUpDoNotChaseEachOther: a token that was cleaned up is not generated
// again, even after a restart, until a user requests it.
func TestGenerationAndCleanUpDoNotChaseEachOther(t *testing.T) {
	p := newControlPlane(t)
	must(t, p.Install(t.Context(), "token-generation"))
	mustBackdateTracking(t, p.client)
	args := append(eagerCleaner(), "--auto-generate-token-secrets=all")
	s := startReadySakeeper(t, p.sakeeperArgs(t, args...))
	namespace := newNamespace(t, p.client)
	mustCreateAccount(t, p.client, namespace, "robot")
	var cleaned string
	eventually(t, "the token of robot is marked", func(context.Context) error {
		for _, secret := range tokensOf(t, p.client, namespace, "robot") {
			if secret.Labels[token.InvalidSinceLabel] != "" {
				cleaned = secret.Name
				return nil
			}
		}
		return errors.New("not yet")
	})
	_, err := p.client.CoreV1().Secrets(namespace).Patch(t.Context(), cleaned, types.MergePatchType,
		fmt.Appendf(nil, `{"metadata":{"labels":{%q:%q}}}`, token.InvalidSinceLabel, day(3)), metav1.PatchOptions{})
	must(t, err)
	expectGone(t, p.client, namespace, cleaned)

	expectNone := func(what string) {
		t.Helper()
		other := newNamespace(t, p.client) // when its accounts have tokens, the earlier ones were handled
		expectOneToken(t, p, other, "default")
		if got := tokensOf(t, p.client, namespace, "robot"); len(got) > 0 {
			t.Errorf("%s: robot has the token %s, after %s was cleaned up", what, got[0].Name, cleaned)
		}
	}
	expectNone("at once")
	must(t, s.Stop())
	startReadySakeeper(t, p.sakeeperArgs(t, args...))
	expectNone("after a restart")

	_, err = p.client.CoreV1().ServiceAccounts(namespace).Patch(t.Context(), "robot", types.MergePatchType,
		fmt.Appendf(nil, `{"metadata":{"labels":{%q:"true"}}}`, api.AutoTokenLabel), metav1.PatchOptions{})
	must(t, err)
	eventually(t, "who asks for a token gets one", func(context.Context) error {
		if got := tokensOf(t, p.client, namespace, "robot"); len(got) != 1 {
			return fmt.Errorf("%d tokens", len(got))
		}
		return nil
	})
}
