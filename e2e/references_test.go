package e2e

import (
	"context"
	"fmt"
	"slices"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
)

func references(account *corev1.ServiceAccount) []string {
	names := []string{}
	for _, ref := range account.Secrets {
		names = append(names, ref.Name)
	}
	return names
}

func expectReferences(t *testing.T, client kubernetes.Interface, namespace, name string, want ...string) *corev1.ServiceAccount {
	t.Helper()
	if want == nil {
		want = []string{}
	}
	var account *corev1.ServiceAccount
	eventually(t, "references of "+namespace+"/"+name, func(ctx context.Context) (err error) {
		account, err = client.CoreV1().ServiceAccounts(namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if diff := cmp.Diff(want, references(account)); diff != "" {
			return fmt.Errorf("(-want +got):\n%s", diff)
		}
		return nil
	})
	return account
}

func TestDeletedSecretDropsItsReferenceAndNoOther(t *testing.T) {
	t.Parallel()
	namespace := newNamespace(t, shared.client)
	account := mustCreateAccount(t, shared.client, namespace, "builder", "first", "mine", "second", "later")
	for _, name := range []string{"first", "second"} {
		mustCreateSecret(t, shared.client, namespace, tokenSecret(name, "builder"))
		expectFilled(t, shared.client, namespace, name, account, shared.cp.Admin.CAData)
	}
	mustCreateSecret(t, shared.client, namespace, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "mine"}})
	mark := mustMark(t, shared.cp)
	must(t, shared.client.CoreV1().Secrets(namespace).Delete(t.Context(), "first", metav1.DeleteOptions{}))
	// "mine" is not a token Secret, and "later" does not exist yet.
	expectReferences(t, shared.client, namespace, "builder", "mine", "second", "later")
	if diff := cmp.Diff(map[string]int{"patch serviceaccounts": 1}, controlplane.Count(requests(t, shared.cp, mark, namespace))); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}

// TestTwoHundredDeletedSecretsCostAtMostTenWrites stops the process while the Secrets are deleted, so that
// it sees the deletions one after the other, however long a busy machine takes for each of them.
func TestTwoHundredDeletedSecretsCostAtMostTenWrites(t *testing.T) {
	const n = 200
	p := newControlPlane(t)
	s := startReadySakeeper(t, p.sakeeperArgs(t, "--leader-elect=false"))
	namespace := newNamespace(t, p.client)
	names := make([]string, 0, n)
	for i := range n {
		names = append(names, fmt.Sprintf("s%03d", i))
	}
	account := mustCreateAccount(t, p.client, namespace, "builder", slices.Concat(names, []string{"mine"})...)
	for _, name := range names {
		mustCreateSecret(t, p.client, namespace, tokenSecret(name, "builder"))
	}
	for _, name := range names {
		expectFilled(t, p.client, namespace, name, account, p.Admin.CAData)
	}
	mark := mustMark(t, p.ControlPlane)
	must(t, s.Signal(syscall.SIGSTOP))
	for _, name := range names {
		must(t, p.client.CoreV1().Secrets(namespace).Delete(t.Context(), name, metav1.DeleteOptions{}))
	}
	must(t, s.Signal(syscall.SIGCONT))
	expectReferences(t, p.client, namespace, "builder", "mine")
	counts := controlplane.Count(requests(t, p.ControlPlane, mark, namespace))
	t.Logf("requests for %d deleted secrets: %v", n, counts)
	if counts["patch serviceaccounts"] > 10 || len(counts) != 1 {
		t.Errorf("requests = %v, want at most 10 patches and nothing else", counts)
	}
}

func TestReferenceToARecreatedSecretStays(t *testing.T) {
	t.Parallel()
	namespace := newNamespace(t, shared.client)
	account := mustCreateAccount(t, shared.client, namespace, "builder", "again", "gone")
	for _, name := range []string{"again", "gone"} {
		mustCreateSecret(t, shared.client, namespace, tokenSecret(name, "builder"))
		expectFilled(t, shared.client, namespace, name, account, shared.cp.Admin.CAData)
	}
	for _, name := range []string{"again", "gone"} {
		must(t, shared.client.CoreV1().Secrets(namespace).Delete(t.Context(), name, metav1.DeleteOptions{}))
	}
	mustCreateSecret(t, shared.client, namespace, tokenSecret("again", "builder"))
	expectFilled(t, shared.client, namespace, "again", account, shared.cp.Admin.CAData)
	expectReferences(t, shared.client, namespace, "builder", "again")
}

func TestGeneratedReferenceToNothingGoesAndOthersStay(t *testing.T) {
	t.Parallel()
	namespace := newNamespace(t, shared.client)
	// An Opaque Secret with a name like a generated one: it exists, so its reference stays.
	mustCreateSecret(t, shared.client, namespace, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "builder-token-zzzzz"}, Data: map[string][]byte{"k": []byte("v")}})
	mark := mustMark(t, shared.cp)
	mustCreateAccount(t, shared.client, namespace, "builder", "builder-token-bcdfg", "builder-token-zzzzz", "builder-token-other", "other-token-bcdfg", "mine")
	expectReferences(t, shared.client, namespace, "builder", "builder-token-zzzzz", "builder-token-other", "other-token-bcdfg", "mine")
	if got := controlplane.Count(requests(t, shared.cp, mark, namespace)); got["patch serviceaccounts"] != 1 || got["get secrets"] < 2 {
		t.Errorf("requests: %v", got)
	}
}

func TestSecretsMayFollowTheAccountThatRefersToThem(t *testing.T) {
	t.Parallel()
	namespace := newNamespace(t, shared.client)
	// The order of kubectl apply with a file that has the account first.
	account := mustCreateAccount(t, shared.client, namespace, "restored", "restored-token-bcdfg")
	mustCreateSecret(t, shared.client, namespace, tokenSecret("restored-token-bcdfg", "restored"))
	mustCreateAccount(t, shared.client, namespace, "later", "later-token-bcdfg")
	expectFilled(t, shared.client, namespace, "restored-token-bcdfg", account, shared.cp.Admin.CAData)
	expectReferences(t, shared.client, namespace, "later")
	// References are checked in the order in which accounts were written.
	expectReferences(t, shared.client, namespace, "restored", "restored-token-bcdfg")
}
