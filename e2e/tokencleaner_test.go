package e2e

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/token"
)

// day is the date so many days ago, in the format of labels.
func day(days int) string { return time.Now().UTC().AddDate(0, 0, -days).Format(time.DateOnly) }

// isToday returns true if date was today's when it was written just now: midnight may have passed.
func isToday(date string) bool { return date == day(0) || date == day(1) }

// mustBackdateTracking sets an old date in the API server's ConfigMap about the tracking of
// legacy tokens, which the API server creates some seconds after its start.
func mustBackdateTracking(t *testing.T, client kubernetes.Interface) {
	t.Helper()
	mustSetTracking(t, client, fmt.Sprintf(`{"since":%q}`, day(30)))
}

func mustLabelSecret(t *testing.T, client kubernetes.Interface, name, label, value string) {
	t.Helper()
	patch := fmt.Appendf(nil, `{"metadata":{"labels":{%q:%q}}}`, label, value)
	_, err := client.CoreV1().Secrets(metav1.NamespaceDefault).Patch(t.Context(), name, types.MergePatchType, patch, metav1.PatchOptions{})
	must(t, err)
}

func expectMarked(t *testing.T, client kubernetes.Interface, namespace, name string) {
	t.Helper()
	eventually(t, "secret "+namespace+"/"+name+" is marked", func(ctx context.Context) error {
		secret, err := client.CoreV1().Secrets(namespace).Get(ctx, name, metav1.GetOptions{})
		if err == nil && secret.Labels[token.InvalidSinceLabel] == "" {
			err = errors.New("no label")
		}
		return err
	})
}

func expectEvent(t *testing.T, client kubernetes.Interface, object, reason string) {
	t.Helper()
	expectEventIn(t, client, metav1.NamespaceDefault, object, reason)
}

// TestUnusedTokensAreMarkedAndDeleted has a period of a second instead of a year, and labels
// with old dates.
func TestUnusedTokensAreMarkedAndDeleted(t *testing.T) {
	p := newControlPlane(t)
	const namespace = metav1.NamespaceDefault
	mustBackdateTracking(t, p.client)
	account := mustCreateAccount(t, p.client, namespace, "robot", "unused", "used", "mounted", "kept")
	first := startReadySakeeper(t, p.sakeeperArgs(t)) // with a period of a year
	secrets := map[string]*corev1.Secret{}
	for _, name := range []string{"used", "unused", "mounted", "kept", "by-hand", "by-hand-unwanted"} {
		secret := tokenSecret(name, "robot")
		switch name {
		case "kept":
			secret.Annotations[api.KeepAnnotation] = "true"
		case "by-hand-unwanted":
			secret.Annotations[api.CleanUpUnusedAnnotation] = "1s"
		}
		mustCreateSecret(t, p.client, namespace, secret)
		secrets[name] = expectFilled(t, p.client, namespace, name, account, p.Admin.CAData)
	}
	_, err := p.client.CoreV1().Pods(namespace).Create(t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "pod"},
		Spec: corev1.PodSpec{
			ServiceAccountName: "robot", AutomountServiceAccountToken: new(bool),
			Containers: []corev1.Container{{Name: "c", Image: "i"}},
			Volumes:    []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "mounted"}}}},
		},
	}, metav1.CreateOptions{})
	must(t, err)
	expectUser(t, p.ControlPlane, secrets["used"], "system:serviceaccount:default:robot")
	must(t, first.Stop())

	dry := startReadySakeeper(t, p.sakeeperArgs(t, append(eagerCleaner(), "--legacy-service-account-token-clean-up-dry-run")...))
	expectEvent(t, p.client, "unused", "WouldMarkUnusedToken")
	must(t, dry.Stop())
	if secret, err := p.client.CoreV1().Secrets(namespace).Get(t.Context(), "unused", metav1.GetOptions{}); err != nil || secret.Labels[token.InvalidSinceLabel] != "" {
		t.Errorf("a dry run changed something: %v %v", secret.Labels, err)
	}

	s := startReadySakeeper(t, p.sakeeperArgs(t, eagerCleaner()...))
	for _, name := range []string{"unused", "by-hand-unwanted"} {
		expectMarked(t, p.client, namespace, name)
		expectEvent(t, p.client, name, "MarkedUnusedToken")
		mustLabelSecret(t, p.client, name, token.InvalidSinceLabel, day(3))
		expectGone(t, p.client, namespace, name)
		expectEvent(t, p.client, name, "DeletedUnusedToken")
	}
	for _, name := range []string{"used", "mounted", "kept", "by-hand"} {
		secret, err := p.client.CoreV1().Secrets(namespace).Get(t.Context(), name, metav1.GetOptions{})
		must(t, err)
		if secret.Labels[token.InvalidSinceLabel] != "" {
			t.Errorf("secret %s is marked", name)
		}
	}
	// A marked token that is used again is kept.
	mustLabelSecret(t, p.client, "used", token.LastUsedLabel, day(3))
	expectMarked(t, p.client, namespace, "used")
	mustLabelSecret(t, p.client, "used", token.LastUsedLabel, day(0))
	mustLabelSecret(t, p.client, "used", token.InvalidSinceLabel, day(3))
	// An invalid date is kept, and reported by an event.
	mustLabelSecret(t, p.client, "kept", token.LastUsedLabel, "yesterday")
	_, err = p.client.CoreV1().Secrets(namespace).Patch(t.Context(), "kept", types.MergePatchType,
		fmt.Appendf(nil, `{"metadata":{"annotations":{%q:null}}}`, api.KeepAnnotation), metav1.PatchOptions{})
	must(t, err)
	expectEvent(t, p.client, "kept", "UnreadableLastUsed")
	for _, name := range []string{"used", "kept"} {
		if _, err := p.client.CoreV1().Secrets(namespace).Get(t.Context(), name, metav1.GetOptions{}); err != nil {
			t.Errorf("secret %s: %v", name, err)
		}
	}
	must(t, s.Stop())
}
