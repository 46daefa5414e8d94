package e2e

import (
	"context"
	"fmt"
	"syscall"
	"testing"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

func TestLongKilledAtAnyMomentItEndsInTheSameState(t *testing.T) {
	p := newControlPlane(t)
	args := p.sakeeperArgs(t, "--leader-elect=false")
	// The number of requests before it is killed: from right after its start to half of the
	// work.
	moments := []int{0, 1, 2, 4, 6, 8, 11, 14, 17, 20, 23, 26}
	for round, moment := range moments {
		mark := mustMark(t, p.ControlPlane)
		s := startSakeeper(t, args)
		load, ctx := errgroup.WithContext(t.Context())
		load.Go(func() error { return burden(ctx, p.client, roundNamespace(round)) })
		eventually(t, "the moment to kill", func(context.Context) error {
			if got := len(requests(t, p.ControlPlane, mark, "")); got < moment {
				return fmt.Errorf("%d of %d requests", got, moment)
			}
			return nil
		})
		must(t, s.Signal(syscall.SIGKILL))
		_ = s.Wait() // it was killed
		must(t, load.Wait())
	}

	startReadySakeeper(t, args)
	for round := range moments {
		expectBurdenCarried(t, p, roundNamespace(round))
	}
	mark := mustMark(t, p.ControlPlane)
	newNamespace(t, p.client)
	if got := requests(t, p.ControlPlane, mark, roundNamespace(0)); len(got) != 0 {
		t.Errorf("it does not come to rest: %+v", got)
	}
}

func roundNamespace(round int) string { return fmt.Sprintf("round-%d", round) }

// Of the accounts that burden creates, the first three are deleted, the Secrets of the next
// three are deleted, and the rest is not changed.
const burdenAccounts = 10

func burdenSecret(i int) string { return fmt.Sprintf("a%d-token-bcdfg", i) }

func burden(ctx context.Context, client kubernetes.Interface, namespace string) error {
	core := client.CoreV1()
	if _, err := core.Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{}); err != nil {
		return err
	}
	for i := range burdenAccounts {
		if _, err := core.ServiceAccounts(namespace).Create(ctx, &corev1.ServiceAccount{
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("a%d", i)},
			Secrets:    []corev1.ObjectReference{{Name: burdenSecret(i)}, {Name: "mine"}},
		}, metav1.CreateOptions{}); err != nil {
			return err
		}
		if _, err := core.Secrets(namespace).Create(ctx, tokenSecret(burdenSecret(i), fmt.Sprintf("a%d", i)), metav1.CreateOptions{}); err != nil {
			return err
		}
	}
	for i := range 3 {
		if err := core.ServiceAccounts(namespace).Delete(ctx, fmt.Sprintf("a%d", i), metav1.DeleteOptions{}); err != nil {
			return err
		}
		if err := core.Secrets(namespace).Delete(ctx, burdenSecret(3+i), metav1.DeleteOptions{}); err != nil {
			return err
		}
	}
	err := core.ServiceAccounts(namespace).Delete(ctx, "default", metav1.DeleteOptions{})
	if apierrors.IsNotFound(err) {
		return nil // it was not created yet
	}
	return err
}

func expectBurdenCarried(t *testing.T, p controlPlane, namespace string) {
	t.Helper()
	expectAccount(t, p.client, namespace, "default")
	expectRootCA(t, p.client, namespace, p.Admin.CAData)
	for i := range burdenAccounts {
		name := fmt.Sprintf("a%d", i)
		switch {
		case i < 3:
			expectGone(t, p.client, namespace, burdenSecret(i))
		case i < 6:
			expectReferences(t, p.client, namespace, name, "mine")
		default:
			account := expectReferences(t, p.client, namespace, name, burdenSecret(i), "mine")
			secret := expectFilled(t, p.client, namespace, burdenSecret(i), account, p.Admin.CAData)
			expectUser(t, p.ControlPlane, secret, "system:serviceaccount:"+namespace+":"+name)
		}
	}
}
