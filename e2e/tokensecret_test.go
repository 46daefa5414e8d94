package e2e

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/controllers/tokensecret"
	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
)

func mustCreateAccount(t *testing.T, client kubernetes.Interface, namespace, name string, secrets ...string) *corev1.ServiceAccount {
	t.Helper()
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}
	for _, secret := range secrets {
		account.Secrets = append(account.Secrets, corev1.ObjectReference{Name: secret})
	}
	account, err := client.CoreV1().ServiceAccounts(namespace).Create(t.Context(), account, metav1.CreateOptions{})
	must(t, err)
	return account
}

func tokenSecret(name, account string) *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{corev1.ServiceAccountNameKey: account}},
		Type:       corev1.SecretTypeServiceAccountToken,
	}
}

func mustCreateSecret(t *testing.T, client kubernetes.Interface, namespace string, secret *corev1.Secret) *corev1.Secret {
	t.Helper()
	created, err := client.CoreV1().Secrets(namespace).Create(t.Context(), secret, metav1.CreateOptions{})
	must(t, err)
	return created
}

// expectFilled waits until the Secret has all data of a token Secret.
func expectFilled(t *testing.T, client kubernetes.Interface, namespace, name string, account *corev1.ServiceAccount, ca []byte) *corev1.Secret {
	t.Helper()
	var secret *corev1.Secret
	eventually(t, "filled secret "+namespace+"/"+name, func(ctx context.Context) (err error) {
		secret, err = client.CoreV1().Secrets(namespace).Get(ctx, name, metav1.GetOptions{})
		switch {
		case err != nil:
			return err
		case len(secret.Data["token"]) == 0:
			return errors.New("no token")
		case string(secret.Data["ca.crt"]) != string(ca):
			return errors.New("wrong ca.crt")
		case string(secret.Data["namespace"]) != namespace:
			return fmt.Errorf("namespace is %q", secret.Data["namespace"])
		case secret.Annotations[corev1.ServiceAccountUIDKey] != string(account.UID):
			return fmt.Errorf("uid annotation is %q", secret.Annotations[corev1.ServiceAccountUIDKey])
		}
		return nil
	})
	return secret
}

func expectGone(t *testing.T, client kubernetes.Interface, namespace, name string) {
	t.Helper()
	eventually(t, "secret "+namespace+"/"+name+" is gone", func(ctx context.Context) error {
		_, err := client.CoreV1().Secrets(namespace).Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return errors.Join(err, errors.New("still there"))
	})
}

// expectUser checks which user the API server has for the token of the Secret.
func expectUser(t *testing.T, cp *controlplane.ControlPlane, secret *corev1.Secret, want string) {
	t.Helper()
	config := rest.AnonymousClientConfig(cp.Admin)
	config.CAData, config.BearerToken = secret.Data["ca.crt"], string(secret.Data["token"])
	client := mustClient(t, config)
	// The API server's own cache of ServiceAccounts may not have a new one yet.
	eventually(t, "the token is accepted", func(ctx context.Context) error {
		self, err := client.AuthenticationV1().SelfSubjectReviews().Create(ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
		if err == nil && self.Status.UserInfo.Username != want {
			t.Errorf("the token's bearer is %q, want %q", self.Status.UserInfo.Username, want)
		}
		return err
	})
}

func TestTokenSecretIsFilledWithOnePutAndAuthenticates(t *testing.T) {
	t.Parallel()
	namespace := newNamespace(t, shared.client)
	account := mustCreateAccount(t, shared.client, namespace, "builder")
	mark := mustMark(t, shared.cp)
	unfilled := tokenSecret("builder-token", "builder")
	unfilled.Labels = map[string]string{"mine": "yes"}
	unfilled.Annotations["mine"] = "yes"
	unfilled.Data = map[string][]byte{"mine": []byte("yes")}
	created := mustCreateSecret(t, shared.client, namespace, unfilled)

	filled := expectFilled(t, shared.client, namespace, "builder-token", account, shared.cp.Admin.CAData)
	if filled.UID != created.UID || filled.Labels["mine"] != "yes" || filled.Annotations["mine"] != "yes" || string(filled.Data["mine"]) != "yes" {
		t.Errorf("what the user wrote was lost: %+v", filled.ObjectMeta)
	}
	if diff := cmp.Diff(map[string]int{"update secrets": 1}, controlplane.Count(requests(t, shared.cp, mark, namespace))); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
	expectUser(t, shared.cp, filled, "system:serviceaccount:"+namespace+":builder")
}

func TestTokenSecretIsRepairedAndKeepsItsToken(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		change func(*corev1.Secret)
		want   map[string]int
	}{
		"another ca.crt": {
			change: func(s *corev1.Secret) { s.Data["ca.crt"] = []byte("wrong") },
			want:   map[string]int{"patch secrets": 1},
		},
		"no ca.crt": {
			change: func(s *corev1.Secret) { delete(s.Data, "ca.crt") },
			want:   map[string]int{"patch secrets": 1},
		},
		"no namespace": {
			change: func(s *corev1.Secret) { delete(s.Data, "namespace") },
			want:   map[string]int{"patch secrets": 1},
		},
		"another namespace": {
			change: func(s *corev1.Secret) { s.Data["namespace"] = []byte("elsewhere") },
			want:   map[string]int{"patch secrets": 1},
		},
		"no ca.crt and no uid annotation": {
			change: func(s *corev1.Secret) {
				delete(s.Data, "ca.crt")
				delete(s.Annotations, corev1.ServiceAccountUIDKey)
			},
			want: map[string]int{"patch secrets": 1},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			namespace := newNamespace(t, shared.client)
			account := mustCreateAccount(t, shared.client, namespace, "builder")
			mustCreateSecret(t, shared.client, namespace, tokenSecret("builder-token", "builder"))
			filled := expectFilled(t, shared.client, namespace, "builder-token", account, shared.cp.Admin.CAData)
			token := string(filled.Data["token"])

			tt.change(filled)
			mark := mustMark(t, shared.cp)
			_, err := shared.client.CoreV1().Secrets(namespace).Update(t.Context(), filled, metav1.UpdateOptions{})
			must(t, err)
			repaired := expectFilled(t, shared.client, namespace, "builder-token", account, shared.cp.Admin.CAData)
			if string(repaired.Data["token"]) != token {
				t.Error("the token changed")
			}
			if diff := cmp.Diff(tt.want, controlplane.Count(requests(t, shared.cp, mark, namespace))); diff != "" {
				t.Errorf("requests (-want +got):\n%s", diff)
			}
		})
	}
}

func TestTokenThatWasTakenAwayIsMadeAgain(t *testing.T) {
	t.Parallel()
	namespace := newNamespace(t, shared.client)
	account := mustCreateAccount(t, shared.client, namespace, "builder")
	mustCreateSecret(t, shared.client, namespace, tokenSecret("builder-token", "builder"))
	filled := expectFilled(t, shared.client, namespace, "builder-token", account, shared.cp.Admin.CAData)
	filled.Data = nil
	_, err := shared.client.CoreV1().Secrets(namespace).Update(t.Context(), filled, metav1.UpdateOptions{})
	must(t, err)
	again := expectFilled(t, shared.client, namespace, "builder-token", account, shared.cp.Admin.CAData)
	expectUser(t, shared.cp, again, "system:serviceaccount:"+namespace+":builder")
}

func TestMissingUIDAnnotationAloneIsNoReasonToWrite(t *testing.T) {
	t.Parallel()
	namespace := newNamespace(t, shared.client)
	account := mustCreateAccount(t, shared.client, namespace, "builder")
	mustCreateSecret(t, shared.client, namespace, tokenSecret("builder-token", "builder"))
	filled := expectFilled(t, shared.client, namespace, "builder-token", account, shared.cp.Admin.CAData)
	delete(filled.Annotations, corev1.ServiceAccountUIDKey)
	mark := mustMark(t, shared.cp)
	_, err := shared.client.CoreV1().Secrets(namespace).Update(t.Context(), filled, metav1.UpdateOptions{})
	must(t, err)
	expectSettled(t, shared.client, namespace)
	if got := requests(t, shared.cp, mark, namespace); len(got) != 1 || got[0].Object.Name != "barrier" {
		t.Errorf("requests: %+v", got)
	}
}

// expectSettled waits until the token controller has handled every Secret of the namespace: it
// creates one more, and waits until it is filled.
func expectSettled(t *testing.T, client kubernetes.Interface, namespace string) {
	t.Helper()
	account := expectAccount(t, client, namespace, "default")
	mustCreateSecret(t, client, namespace, tokenSecret("barrier", "default"))
	expectFilled(t, client, namespace, "barrier", account, shared.cp.Admin.CAData)
}

// TestRestoredTokenOfAFormerServiceAccountIsReplaced restores a Secret without the UID annotation, whose
// token names the UID of the former account.
func TestRestoredTokenOfAFormerServiceAccountIsReplaced(t *testing.T) {
	t.Parallel()
	namespace := newNamespace(t, shared.client)
	former := mustCreateAccount(t, shared.client, namespace, "two")
	mustCreateSecret(t, shared.client, namespace, tokenSecret("two", "two"))
	backup := expectFilled(t, shared.client, namespace, "two", former, shared.cp.Admin.CAData)
	must(t, shared.client.CoreV1().ServiceAccounts(namespace).Delete(t.Context(), "two", metav1.DeleteOptions{}))
	expectGone(t, shared.client, namespace, "two")
	mustCreateAccount(t, shared.client, namespace, "two")
	restored := tokenSecret("two", "two")
	restored.Data = backup.Data
	mustCreateSecret(t, shared.client, namespace, restored)
	expectReplaced(t, namespace, "two", "two", string(backup.Data["token"]))
}

func TestTokenOfAnotherSecretOrAccountIsReplacedAtOnce(t *testing.T) {
	t.Parallel()
	namespace := newNamespace(t, shared.client)
	for _, name := range []string{"builder", "other"} {
		account := mustCreateAccount(t, shared.client, namespace, name)
		mustCreateSecret(t, shared.client, namespace, tokenSecret(name, name))
		expectFilled(t, shared.client, namespace, name, account, shared.cp.Admin.CAData)
	}
	mark := mustMark(t, shared.cp)
	for _, source := range []string{"builder", "other"} { // another Secret of the same account, and another account
		found, err := shared.client.CoreV1().Secrets(namespace).Get(t.Context(), source, metav1.GetOptions{})
		must(t, err)
		target := tokenSecret("copy-of-"+source, "builder")
		target.Data = map[string][]byte{"token": found.Data["token"]}
		mustCreateSecret(t, shared.client, namespace, target)
		expectReplaced(t, namespace, target.Name, "builder", string(found.Data["token"]))
	}
	for _, r := range requests(t, shared.cp, mark, "") {
		if r.Object.Resource == "secrets" && r.Verb == "get" && r.Object.Namespace == namespace {
			t.Errorf("request %+v: no review is needed", r)
		}
	}
}

// expectReplaced waits until the Secret has another token than the former one, and that works.
func expectReplaced(t *testing.T, namespace, name, account, former string) {
	t.Helper()
	var secret *corev1.Secret
	eventually(t, "another token", func(ctx context.Context) (err error) {
		secret, err = shared.client.CoreV1().Secrets(namespace).Get(ctx, name, metav1.GetOptions{})
		if err == nil && (string(secret.Data["token"]) == former || len(secret.Data["ca.crt"]) == 0) {
			return errors.New("still the former one")
		}
		return err
	})
	expectUser(t, shared.cp, secret, "system:serviceaccount:"+namespace+":"+account)
}

func TestNamesThatNoObjectCanHaveAreToldAndNotRetried(t *testing.T) {
	t.Parallel()
	p := newControlPlane(t)
	s := startReadySakeeper(t, p.sakeeperArgs(t))
	namespace := newNamespace(t, p.client)
	names := []string{"a/b", "..", ".", "%2e"}
	for i, name := range names {
		mustCreateSecret(t, p.client, namespace, tokenSecret(fmt.Sprintf("odd%d", i), name))
	}
	mustCreateAccount(t, p.client, namespace, "app", "")
	eventually(t, "one event for each", func(ctx context.Context) error {
		events, err := p.client.CoreV1().Events(namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		got := map[string]int32{}
		for _, event := range events.Items {
			got[event.InvolvedObject.Name+" "+event.Reason] += max(event.Count, 1)
		}
		want := map[string]int32{"app " + api.ReasonUnusableSecretReference: 1}
		for i := range names {
			want[fmt.Sprintf("odd%d ", i)+api.ReasonImpossibleServiceAccount] = 1
		}
		if diff := cmp.Diff(want, got); diff != "" {
			return fmt.Errorf("(-want +got):\n%s", diff)
		}
		return nil
	})
	expectMetric(t, s, `sakeeper_failing_keys{controller="`+tokensecret.Name+`"} 0`)
	expectMetric(t, s, `sakeeper_failing_keys{controller="serviceaccount-token-references"} 0`)
}

func expectNamespaceEvent(t *testing.T, client kubernetes.Interface, namespace, message string) {
	t.Helper()
	eventually(t, "event "+message, func(ctx context.Context) error {
		events, err := client.CoreV1().Events(namespace).List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.kind=Namespace,involvedObject.name=" + namespace})
		if err != nil {
			return err
		}
		var got []string
		for _, event := range events.Items {
			if event.Type == corev1.EventTypeWarning && event.Reason == api.ReasonDeletedTokenSecret && event.Message == message {
				return nil
			}
			got = append(got, event.Message)
		}
		return fmt.Errorf("events %q", got)
	})
}

// TestOpaqueSecretThatNamesAServiceAccountIsTold changes the Secret until it has the event: the
// watch for it may begin after the controllers are ready.
func TestOpaqueSecretThatNamesAServiceAccountIsTold(t *testing.T) {
	t.Parallel()
	namespace := newNamespace(t, shared.client)
	mistaken := tokenSecret("s", "default")
	mistaken.Type = corev1.SecretTypeOpaque
	mustCreateSecret(t, shared.client, namespace, mistaken)
	events := shared.client.CoreV1().Events(namespace)
	changes := 0
	eventually(t, "event", func(ctx context.Context) error {
		changes++
		patch := fmt.Appendf(nil, `{"metadata":{"labels":{"changed":"%d"}}}`, changes)
		if _, err := shared.client.CoreV1().Secrets(namespace).Patch(ctx, "s", types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
			return err
		}
		found, err := events.List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.name=s"})
		if err != nil {
			return err
		}
		if len(found.Items) != 1 || found.Items[0].Count != 1 || found.Items[0].Reason != api.ReasonWrongSecretType {
			return fmt.Errorf("events %v", found.Items)
		}
		return nil
	})
	secret, err := shared.client.CoreV1().Secrets(namespace).Get(t.Context(), "s", metav1.GetOptions{})
	must(t, err)
	if len(secret.Data) > 0 {
		t.Error("it was filled")
	}
}

func TestImmutableSecretGetsOneEventAndHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	namespace := newNamespace(t, shared.client)
	account := mustCreateAccount(t, shared.client, namespace, "builder")
	mark := mustMark(t, shared.cp)
	immutable := tokenSecret("immutable", "builder")
	immutable.Immutable = new(true)
	mustCreateSecret(t, shared.client, namespace, immutable)
	mustCreateSecret(t, shared.client, namespace, tokenSecret("good", "builder"))
	expectFilled(t, shared.client, namespace, "good", account, shared.cp.Admin.CAData)

	var events *corev1.EventList
	eventually(t, "event on the immutable secret", func(ctx context.Context) (err error) {
		events, err = shared.client.CoreV1().Events(namespace).List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.name=immutable"})
		if err == nil && len(events.Items) == 0 {
			return errors.New("none yet")
		}
		return err
	})
	eventually(t, "retries after the event", func(context.Context) error {
		tries := 0
		for _, r := range requests(t, shared.cp, mark, namespace) {
			if r.Verb == "update" && r.Object.Name == "immutable" {
				tries++
			}
		}
		if tries < 4 {
			return fmt.Errorf("%d tries", tries)
		}
		return nil
	})
	expectMetric(t, shared.sakeeper, `sakeeper_failing_keys{controller="`+tokensecret.Name+`"} 1`)
	events, err := shared.client.CoreV1().Events(namespace).List(t.Context(), metav1.ListOptions{FieldSelector: "involvedObject.name=immutable"})
	must(t, err)
	if len(events.Items) != 1 || events.Items[0].Count != 1 || events.Items[0].Type != corev1.EventTypeWarning || events.Items[0].Reason != api.ReasonFailedUpdateTokenSecret {
		t.Errorf("events: %+v", events.Items)
	}
}

func TestUnreadableTokenStaysUntilItIsReviewed(t *testing.T) {
	t.Parallel()
	namespace := newNamespace(t, shared.client)
	account := mustCreateAccount(t, shared.client, namespace, "builder")
	secret := tokenSecret("odd", "builder")
	secret.Data = map[string][]byte{"token": []byte("not a token"), "namespace": []byte("elsewhere")}
	mustCreateSecret(t, shared.client, namespace, secret)
	var got *corev1.Secret
	eventually(t, "ca.crt is added, and namespace repaired", func(ctx context.Context) (err error) {
		got, err = shared.client.CoreV1().Secrets(namespace).Get(ctx, "odd", metav1.GetOptions{})
		if err == nil && (len(got.Data["ca.crt"]) == 0 || string(got.Data["namespace"]) != namespace) {
			return errors.New("not yet")
		}
		return err
	})
	if string(got.Data["token"]) != "not a token" {
		t.Errorf("what a user wrote was changed: %q", got.Data)
	}
	if got.Annotations[corev1.ServiceAccountUIDKey] != string(account.UID) {
		t.Errorf("annotations: %v", got.Annotations)
	}
}
