package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
)

func TestSecretWithoutServiceAccountIsDeletedAfterALiveLook(t *testing.T) {
	t.Parallel()
	namespace := newNamespace(t, shared.client)
	mark := mustMark(t, shared.cp)
	orphan := tokenSecret("orphan", "nobody")
	orphan.Annotations[corev1.ServiceAccountUIDKey] = "00000000-0000-0000-0000-000000000000"
	mustCreateSecret(t, shared.client, namespace, orphan)
	expectGone(t, shared.client, namespace, "orphan")
	if diff := cmp.Diff(map[string]int{"get serviceaccounts": 1, "delete secrets": 1}, controlplane.Count(requests(t, shared.cp, mark, namespace))); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}

func TestSecretOfAnotherUIDIsDeleted(t *testing.T) {
	t.Parallel()
	namespace := newNamespace(t, shared.client)
	mustCreateAccount(t, shared.client, namespace, "builder")
	secret := tokenSecret("builder-token", "builder")
	secret.Annotations[corev1.ServiceAccountUIDKey] = "00000000-0000-0000-0000-000000000000"
	mustCreateSecret(t, shared.client, namespace, secret)
	expectGone(t, shared.client, namespace, "builder-token")
}

// TestSecretThatIsCreatedBeforeItsServiceAccountIsFilled creates 60 pairs, the Secret first.
func TestSecretThatIsCreatedBeforeItsServiceAccountIsFilled(t *testing.T) {
	t.Parallel()
	namespace := newNamespace(t, shared.client)
	core := shared.client.CoreV1()
	for i := 0; i < 60; {
		// So few at a time that the accounts of all come in time also on a busy machine.
		var names []string
		created := time.Now()
		for range 6 {
			name := fmt.Sprint("n", i+len(names))
			mustCreateSecret(t, shared.client, namespace, tokenSecret(name, name))
			names = append(names, name)
		}
		time.Sleep(time.Second) // the controller has seen the Secrets
		for _, name := range names {
			mustCreateAccount(t, shared.client, namespace, name)
		}
		if took := time.Since(created); took > 4*time.Second {
			t.Logf("after %v, the Secrets may have been deleted, as those without an account are", took)
			for _, name := range names {
				must(t, core.ServiceAccounts(namespace).Delete(t.Context(), name, metav1.DeleteOptions{}))
				expectGone(t, shared.client, namespace, name)
			}
			continue
		}
		i += len(names)
		for _, name := range names {
			expectFilled(t, shared.client, namespace, name, expectAccount(t, shared.client, namespace, name), shared.cp.Admin.CAData)
		}
	}
}

func TestSecretWhoseServiceAccountNeverAppearsIsDeletedAfterFiveSeconds(t *testing.T) {
	t.Parallel()
	namespace := newNamespace(t, shared.client)
	mark, created := mustMark(t, shared.cp), time.Now()
	mustCreateSecret(t, shared.client, namespace, tokenSecret("orphan", "nobody"))
	expectGone(t, shared.client, namespace, "orphan")
	if took := time.Since(created); took < 5*time.Second {
		t.Errorf("deleted after %v", took)
	}
	if diff := cmp.Diff(map[string]int{"get serviceaccounts": 2, "delete secrets": 1}, controlplane.Count(requests(t, shared.cp, mark, namespace))); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
	expectNamespaceEvent(t, shared.client, namespace, "Deleted token secret orphan, because its service account nobody does not exist")
}

// TestRestoredSecretOfAFormerServiceAccountIsDeletedWithAnEvent restores a Secret after its account
// was created again.
func TestRestoredSecretOfAFormerServiceAccountIsDeletedWithAnEvent(t *testing.T) {
	t.Parallel()
	namespace := newNamespace(t, shared.client)
	former := mustCreateAccount(t, shared.client, namespace, "one")
	mustCreateSecret(t, shared.client, namespace, tokenSecret("one", "one"))
	backup := expectFilled(t, shared.client, namespace, "one", former, shared.cp.Admin.CAData)
	must(t, shared.client.CoreV1().ServiceAccounts(namespace).Delete(t.Context(), "one", metav1.DeleteOptions{}))
	expectGone(t, shared.client, namespace, "one")
	account := mustCreateAccount(t, shared.client, namespace, "one")
	expectSettled(t, shared.client, namespace)
	backup.ObjectMeta = metav1.ObjectMeta{Name: "one", Annotations: backup.Annotations}
	mustCreateSecret(t, shared.client, namespace, backup)
	expectGone(t, shared.client, namespace, "one")
	expectNamespaceEvent(t, shared.client, namespace, fmt.Sprintf(
		"Deleted token secret one, because it is for another UID of service account one: it names %s, and the account has %s", former.UID, account.UID))
	if !strings.Contains(shared.sakeeper.Logs(), namespace+`/one" reason="service account has another UID"`) {
		t.Error("the log does not say that the account has another UID")
	}
}

func TestDeletedServiceAccountTakesItsSecretsAndNoOthers(t *testing.T) {
	t.Parallel()
	namespace := newNamespace(t, shared.client)
	builder := mustCreateAccount(t, shared.client, namespace, "builder")
	other := mustCreateAccount(t, shared.client, namespace, "builder2")
	opaque := mustCreateSecret(t, shared.client, namespace, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{
		Name: "builder-opaque", Annotations: map[string]string{corev1.ServiceAccountNameKey: "builder", corev1.ServiceAccountUIDKey: string(builder.UID)},
	}})
	for i := range 3 {
		mustCreateSecret(t, shared.client, namespace, tokenSecret(fmt.Sprintf("builder-%d", i), "builder"))
	}
	mustCreateSecret(t, shared.client, namespace, tokenSecret("builder2-0", "builder2"))
	for i := range 3 {
		expectFilled(t, shared.client, namespace, fmt.Sprintf("builder-%d", i), builder, shared.cp.Admin.CAData)
	}
	expectFilled(t, shared.client, namespace, "builder2-0", other, shared.cp.Admin.CAData)

	mark := mustMark(t, shared.cp)
	must(t, shared.client.CoreV1().ServiceAccounts(namespace).Delete(t.Context(), "builder", metav1.DeleteOptions{}))
	for i := range 3 {
		expectGone(t, shared.client, namespace, fmt.Sprintf("builder-%d", i))
	}
	// The deletion of that UID was seen, so no live read is needed.
	if diff := cmp.Diff(map[string]int{"delete secrets": 3}, controlplane.Count(requests(t, shared.cp, mark, namespace))); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
	for _, name := range []string{opaque.Name, "builder2-0"} {
		if _, err := shared.client.CoreV1().Secrets(namespace).Get(t.Context(), name, metav1.GetOptions{}); err != nil {
			t.Errorf("secret of another account: %v", err)
		}
	}
}

func TestRecreatedServiceAccountKeepsItsNewSecretsAndLosesTheOldOnes(t *testing.T) {
	t.Parallel()
	namespace := newNamespace(t, shared.client)
	accounts := shared.client.CoreV1().ServiceAccounts(namespace)
	for round := range 5 {
		account := mustCreateAccount(t, shared.client, namespace, "builder")
		if round > 0 {
			expectGone(t, shared.client, namespace, fmt.Sprintf("round-%d", round-1))
		}
		name := fmt.Sprintf("round-%d", round)
		mustCreateSecret(t, shared.client, namespace, tokenSecret(name, "builder"))
		filled := expectFilled(t, shared.client, namespace, name, account, shared.cp.Admin.CAData)
		expectUser(t, shared.cp, filled, "system:serviceaccount:"+namespace+":builder")
		if round < 4 {
			must(t, accounts.Delete(t.Context(), "builder", metav1.DeleteOptions{}))
		}
	}
	expectSettled(t, shared.client, namespace)
	if _, err := shared.client.CoreV1().Secrets(namespace).Get(t.Context(), "round-4", metav1.GetOptions{}); err != nil {
		t.Errorf("secret of the living account: %v", err)
	}
}

// TestManySecretsWithoutAccountsAtTheStartAreDeletedLate: a list that leaves so many Secrets without
// their accounts may be wrong.
func TestManySecretsWithoutAccountsAtTheStartAreDeletedLate(t *testing.T) {
	t.Parallel()
	p := newControlPlane(t)
	const n, saved = 25, "s0"
	namespace := "left"
	_, err := p.client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{})
	must(t, err)
	for i := range n {
		secret := tokenSecret(fmt.Sprintf("s%d", i), fmt.Sprintf("a%d", i))
		if i > 0 {
			secret.Annotations[corev1.ServiceAccountUIDKey] = "00000000-0000-0000-0000-000000000000"
		}
		mustCreateSecret(t, p.client, namespace, secret)
	}
	began := time.Now()
	startReadySakeeper(t, p.sakeeperArgs(t))
	time.Sleep(7 * time.Second) // longer than a single Secret has, shorter than these have
	account := mustCreateAccount(t, p.client, namespace, "a0")
	secrets, err := p.client.CoreV1().Secrets(namespace).List(t.Context(), metav1.ListOptions{})
	must(t, err)
	if len(secrets.Items) != n {
		t.Errorf("%d of %d Secrets are left", len(secrets.Items), n)
	}
	eventually(t, "all but one are deleted", func(ctx context.Context) error {
		secrets, err := p.client.CoreV1().Secrets(namespace).List(ctx, metav1.ListOptions{})
		if err == nil && len(secrets.Items) != 1 {
			return fmt.Errorf("%d are left", len(secrets.Items))
		}
		return err
	})
	if took := time.Since(began); took < 12*time.Second {
		t.Errorf("it took %v", took)
	}
	expectFilled(t, p.client, namespace, saved, account, p.Admin.CAData)
}
