package e2e

import (
	"context"
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
)

// expectOneToken waits until the account refers to exactly one token Secret, which is its only one,
// and returns it. The reference to a former one may go later than that.
func expectOneToken(t *testing.T, p controlPlane, namespace, name string) *corev1.Secret {
	t.Helper()
	var secret string
	eventually(t, "reference of "+namespace+"/"+name, func(ctx context.Context) error {
		account, err := p.client.CoreV1().ServiceAccounts(namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if len(account.Secrets) != 1 || !cache.IsGeneratedName(name, account.Secrets[0].Name) {
			return fmt.Errorf("refers to %v", account.Secrets)
		}
		secret = account.Secrets[0].Name
		got := tokensOf(t, p.client, namespace, name)
		if len(got) > 1 {
			t.Fatalf("%s/%s refers to %s and has %d token secrets", namespace, name, secret, len(got))
		}
		if len(got) == 0 || got[0].Name != secret {
			return fmt.Errorf("refers to %s, which is not there", secret)
		}
		return nil
	})
	return expectFilled(t, p.client, namespace, secret, expectAccount(t, p.client, namespace, name), p.Admin.CAData)
}

func tokensOf(t *testing.T, client kubernetes.Interface, namespace, account string) []corev1.Secret {
	t.Helper()
	list, err := client.CoreV1().Secrets(namespace).List(t.Context(), metav1.ListOptions{FieldSelector: "type=kubernetes.io/service-account-token"})
	must(t, err)
	var own []corev1.Secret
	for _, secret := range list.Items {
		if secret.Annotations[corev1.ServiceAccountNameKey] == account {
			own = append(own, secret)
		}
	}
	return own
}

func TestEveryAccountGetsATokenWhereThatIsAskedFor(t *testing.T) {
	p := newControlPlane(t)
	must(t, p.Install(t.Context(), "token-generation"))
	s := startReadySakeeper(t, p.sakeeperArgs(t, "--auto-generate-token-secrets=all"))
	namespace := newNamespace(t, p.client)
	first := expectOneToken(t, p, namespace, "default")
	expectUser(t, p.ControlPlane, first, "system:serviceaccount:"+namespace+":default")

	mark := mustMark(t, p.ControlPlane)
	mustCreateAccount(t, p.client, namespace, "robot")
	expectOneToken(t, p, namespace, "robot")
	counts := controlplane.Count(requests(t, p.ControlPlane, mark, namespace))
	if counts["create secrets"] != 1 || counts["patch serviceaccounts"] != 1 || counts["update secrets"]+counts["patch secrets"] != 0 {
		t.Errorf("requests %v: a Secret should be complete at creation, and then referred to", counts)
	}

	// A deleted token is replaced by one with another name.
	must(t, p.client.CoreV1().Secrets(namespace).Delete(t.Context(), first.Name, metav1.DeleteOptions{}))
	var second *corev1.Secret
	eventually(t, "another secret", func(context.Context) error {
		second = nil
		for _, secret := range tokensOf(t, p.client, namespace, "default") {
			second = &secret
		}
		if second == nil || second.Name == first.Name {
			return fmt.Errorf("there is %v", second)
		}
		return nil
	})
	second = expectOneToken(t, p, namespace, "default")

	// A restart creates none.
	must(t, s.Stop())
	mark = mustMark(t, p.ControlPlane)
	startReadySakeeper(t, p.sakeeperArgs(t, "--auto-generate-token-secrets=all"))
	other := newNamespace(t, p.client)
	expectOneToken(t, p, other, "default")
	if got := expectOneToken(t, p, namespace, "default"); got.Name != second.Name {
		t.Errorf("after a restart the token is %s, not %s", got.Name, second.Name)
	}
	if counts := controlplane.Count(requests(t, p.ControlPlane, mark, namespace)); counts["create secrets"] != 0 {
		t.Errorf("after a restart: %v", counts)
	}
}

func TestLabelledAccountsGetAToken(t *testing.T) {
	p := newControlPlane(t)
	must(t, p.Install(t.Context(), "token-generation"))
	startReadySakeeper(t, p.sakeeperArgs(t, "--auto-generate-token-secrets=labelled"))
	namespace := newNamespace(t, p.client)
	_, err := p.client.CoreV1().ServiceAccounts(namespace).Create(t.Context(), &corev1.ServiceAccount{
		ObjectMeta: metav1.ObjectMeta{Name: "robot", Labels: map[string]string{api.AutoTokenLabel: "true"}},
	}, metav1.CreateOptions{})
	must(t, err)
	expectOneToken(t, p, namespace, "robot")
	if got := tokensOf(t, p.client, namespace, "default"); len(got) > 0 {
		t.Errorf("default has %d token secrets, and no label", len(got))
	}
}
