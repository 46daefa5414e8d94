package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
)

const hardened = `{
  "apiVersion": "sakeeper.io/v1alpha1", "kind": "ServiceAccountTemplate", "metadata": {"name": "hardened"},
  "spec": {"serviceAccountSelector": {}, "automountServiceAccountToken": false, "imagePullSecrets": [{"name": "registry"}]}
}`

// template creates the first pod of a namespace before and after a ServiceAccountTemplate, which an
// admission policy applies to accounts when they are created.
func (t *tour) template(ctx context.Context) error {
	t.steps.title("A ServiceAccountTemplate: the first pod of a namespace, without it and with it")
	pod, err := t.createFirstPod(ctx, "team-b")
	if err != nil {
		return err
	}
	t.steps.done("team-b: %s", describe(pod))
	if err := t.cp.Install(ctx, "policies/account-templates"); err != nil {
		return err
	}
	t.steps.begin()
	if err := t.client.CoreV1().RESTClient().Post().AbsPath("/apis/sakeeper.io/v1alpha1/serviceaccounttemplates").
		SetHeader("Content-Type", runtime.ContentTypeJSON).Body([]byte(hardened)).Do(ctx).Error(); err != nil {
		return err
	}
	// API servers look for new policies once a second.
	err = wait.PollUntilContextCancel(ctx, 20*time.Millisecond, true, func(ctx context.Context) (bool, error) {
		account, err := t.client.CoreV1().ServiceAccounts(namespace).Create(ctx,
			&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "probe"}}, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return err == nil && account.AutomountServiceAccountToken != nil, err
	})
	if err != nil {
		return fmt.Errorf("wait for the policy: %w", err)
	}
	t.steps.done("serviceaccounttemplate hardened: no token, and a pull secret")
	if pod, err = t.createFirstPod(ctx, "team-c"); err != nil {
		return err
	}
	t.steps.done("team-c: %s", describe(pod))
	if len(pod.Spec.Volumes) > 0 || len(pod.Spec.ImagePullSecrets) != 1 {
		return errors.New("the first pod of the namespace is not as the template says")
	}
	return nil
}
