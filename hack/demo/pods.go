package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/sakeeper/sakeeper/pkg/podadmission/rules"
	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
)

func (t *tour) podBefore(ctx context.Context) error {
	t.steps.title("A pod is created without any ServiceAccount admission: it gets no token")
	pod, err := t.createPod(ctx, "before")
	if err != nil {
		return err
	}
	t.steps.done("pod before: %s", describe(pod))
	return nil
}

func (t *tour) podAfter(ctx context.Context) (err error) {
	t.steps.title("sakeeper webhook starts, with its own identity, and a pod like that is created again")
	w, err := controlplane.NewWebhook()
	if err != nil {
		return err
	}
	if err := t.cp.InstallWebhook(ctx, w); err != nil {
		return err
	}
	args, err := t.cp.WebhookArgs(w)
	if err != nil {
		return err
	}
	webhook, err := controlplane.StartSakeeper(t.binary, append(args, "--shutdown-delay-duration=0s"), nil)
	if err != nil {
		return err
	}
	// It runs until the end of the tour, which creates no more pods.
	t.stop = append(t.stop, webhook.Stop)
	if err := webhook.WaitReady(ctx); err != nil {
		return errors.Join(err, fmt.Errorf("its log:\n%s", webhook.Logs()))
	}
	t.steps.done("the API server trusts its certificate")
	t.steps.begin()
	pod, err := t.createPod(ctx, "after")
	if err != nil {
		return err
	}
	t.steps.done("pod after: %s", describe(pod))
	if pod.Spec.ServiceAccountName != "default" || len(pod.Spec.Volumes) != 1 {
		return errors.New("the webhook did not set the ServiceAccount and the token volume")
	}
	return nil
}

// podRefused limits the Secrets of the account's pods by an admission policy, and tries to create one
// with a Secret that the account does not list, where the in-tree plugin would not look.
func (t *tour) podRefused(ctx context.Context) error {
	t.steps.title("An admission policy limits the Secrets of pods, without a process: one is refused")
	if err := t.cp.Install(ctx, "policies/secret-references"); err != nil {
		return err
	}
	if _, err := t.client.CoreV1().ServiceAccounts(namespace).Patch(ctx, "default", types.MergePatchType,
		fmt.Appendf(nil, `{"metadata":{"annotations":{%q:"true"}}}`, rules.EnforceAnnotation), metav1.PatchOptions{}); err != nil {
		return err
	}
	// API servers look for new policies once a second. Until then the pod is admitted, without effect.
	var refusal error
	err := wait.PollUntilContextCancel(ctx, 20*time.Millisecond, true, func(ctx context.Context) (bool, error) {
		_, refusal = t.client.CoreV1().Pods(namespace).Create(ctx, newPod("curious", corev1.Volume{
			Name: "disk", VolumeSource: corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{
				Driver: "disks.example.com", NodePublishSecretRef: &corev1.LocalObjectReference{Name: "payroll"},
			}},
		}), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if refusal != nil && !apierrors.IsForbidden(refusal) {
			return false, refusal
		}
		return refusal != nil, nil
	})
	if err != nil {
		return err
	}
	t.steps.done("the API server:")
	t.steps.say("%v", refusal)
	return nil
}

func (t *tour) createPod(ctx context.Context, name string) (*corev1.Pod, error) {
	return t.client.CoreV1().Pods(namespace).Create(ctx, newPod(name), metav1.CreateOptions{})
}

// createFirstPod creates a namespace, and at once a pod in it.
func (t *tour) createFirstPod(ctx context.Context, namespace string) (*corev1.Pod, error) {
	t.steps.begin()
	if _, err := t.client.CoreV1().Namespaces().Create(ctx,
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{}); err != nil {
		return nil, err
	}
	return t.client.CoreV1().Pods(namespace).Create(ctx, newPod("first"), metav1.CreateOptions{})
}

func newPod(name string, volumes ...corev1.Volume) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "example.com/main"}}, Volumes: volumes},
	}
}

// describe returns the ServiceAccount, volumes and mounts of a pod.
func describe(pod *corev1.Pod) string {
	if pod.Spec.ServiceAccountName == "" && len(pod.Spec.Volumes) == 0 {
		return "no ServiceAccount, no token"
	}
	parts := []string{"ServiceAccount " + pod.Spec.ServiceAccountName}
	for _, volume := range pod.Spec.Volumes {
		parts = append(parts, "volume "+volume.Name)
	}
	for _, mount := range pod.Spec.Containers[0].VolumeMounts {
		parts = append(parts, "at "+mount.MountPath)
	}
	for _, secret := range pod.Spec.ImagePullSecrets {
		parts = append(parts, "pull secret "+secret.Name)
	}
	return strings.Join(parts, ", ")
}
