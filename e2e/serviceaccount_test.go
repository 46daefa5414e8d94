package e2e

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
)

func TestNamespaceGetsDefaultServiceAccountAndRootCAWithOneRequestEach(t *testing.T) {
	t.Parallel()
	mark := mustMark(t, shared.cp)
	namespace := newNamespace(t, shared.client)
	expectRootCA(t, shared.client, namespace, shared.cp.Admin.CAData)

	got := controlplane.Count(requests(t, shared.cp, mark, namespace))
	want := map[string]int{"create serviceaccounts": 1, "create configmaps": 1}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}

func TestNamespacesFromBeforeTheStartGetTheirServiceAccount(t *testing.T) {
	t.Parallel()
	// The API server created these namespaces before sakeeper started.
	for _, namespace := range []string{"default", "kube-system", "kube-public", "kube-node-lease"} {
		expectAccount(t, shared.client, namespace, "default")
	}
}

func TestDeletedServiceAccountComesBack(t *testing.T) {
	t.Parallel()
	namespace := newNamespace(t, shared.client)
	old := expectAccount(t, shared.client, namespace, "default")
	must(t, shared.client.CoreV1().ServiceAccounts(namespace).Delete(t.Context(), "default", metav1.DeleteOptions{}))
	eventually(t, "new default service account", func(ctx context.Context) error {
		account, err := shared.client.CoreV1().ServiceAccounts(namespace).Get(ctx, "default", metav1.GetOptions{})
		if err == nil && account.UID == old.UID {
			return errors.New("still the old one")
		}
		return err
	})
}

func TestExistingServiceAccountIsLeftAsItIs(t *testing.T) {
	t.Parallel()
	namespace := newNamespace(t, shared.client)
	account := expectAccount(t, shared.client, namespace, "default")
	account.Labels = map[string]string{"mine": "yes"}
	account.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "pull"}}
	mark := mustMark(t, shared.cp)
	changed, err := shared.client.CoreV1().ServiceAccounts(namespace).Update(t.Context(), account, metav1.UpdateOptions{})
	must(t, err)
	// A second namespace shows that the change was handled: watch events arrive in order.
	newNamespace(t, shared.client)
	if got := requests(t, shared.cp, mark, namespace); len(got) != 0 {
		t.Errorf("requests after a change by a user: %+v", got)
	}
	got := expectAccount(t, shared.client, namespace, "default")
	if got.ResourceVersion != changed.ResourceVersion {
		t.Errorf("service account was changed to %+v", got)
	}
}

func TestTerminatingNamespaceGetsNothingAndIsNotRetried(t *testing.T) {
	t.Parallel()
	namespace := newNamespace(t, shared.client)
	expectRootCA(t, shared.client, namespace, shared.cp.Admin.CAData)
	// An object with a finalizer keeps the namespace terminating.
	_, err := shared.client.CoreV1().ConfigMaps(namespace).Create(t.Context(), &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "stuck", Finalizers: []string{"example.com/stuck"}},
	}, metav1.CreateOptions{})
	must(t, err)
	must(t, shared.client.CoreV1().Namespaces().Delete(t.Context(), namespace, metav1.DeleteOptions{}))
	eventually(t, "default service account is gone", func(ctx context.Context) error {
		_, err := shared.client.CoreV1().ServiceAccounts(namespace).Get(ctx, "default", metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return errors.Join(err, errors.New("still there"))
	})

	mark := mustMark(t, shared.cp)
	must(t, removeFinalizers(t, namespace, "stuck"))
	eventually(t, "namespace is gone", func(ctx context.Context) error {
		_, err := shared.client.CoreV1().Namespaces().Get(ctx, namespace, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return errors.Join(err, errors.New("still there"))
	})
	if got := requests(t, shared.cp, mark, namespace); len(got) != 0 {
		t.Errorf("requests in a terminating namespace: %+v", got)
	}

	t.Run("its next life begins anew", func(t *testing.T) {
		_, err := shared.client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{})
		must(t, err)
		expectAccount(t, shared.client, namespace, "default")
		expectRootCA(t, shared.client, namespace, shared.cp.Admin.CAData)
	})
}

func removeFinalizers(t *testing.T, namespace, configMap string) error {
	t.Helper()
	_, err := shared.client.CoreV1().ConfigMaps(namespace).Patch(t.Context(), configMap, types.MergePatchType,
		[]byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{})
	return err
}
