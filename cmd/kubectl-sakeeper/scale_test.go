package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/sakeeper/sakeeper/pkg/kube"
	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
)

// TestScale prints how long the built plugin takes on a large cluster, and its memory. INVENTORY_SCALE
// is the part of 100,000 Secrets, 20,000 of them with tokens, 5,000 accounts, 3,000 bindings and
// 20,000 pods: 1 for all of it, 0.1 for a tenth. It needs bin/kubectl-sakeeper.
func TestScale(t *testing.T) {
	scale, err := strconv.ParseFloat(os.Getenv("INVENTORY_SCALE"), 64)
	if err != nil {
		t.Skip("a measurement that takes minutes: set INVENTORY_SCALE to make it")
	}
	cp, err := controlplane.Start(controlplane.Options{Dir: t.TempDir()})
	mustNil(t, err)
	t.Cleanup(func() {
		if err := cp.Stop(); err != nil {
			t.Error(err)
		}
	})
	s := &seeded{ControlPlane: cp, keyIDs: map[string]string{}}
	config := rest.CopyConfig(cp.Admin)
	config.QPS = -1
	kube.PreferProtobuf(config)
	s.client = kubernetes.NewForConfigOrDie(config)
	s.own, _ = s.signers(t)
	tokens := s.seedLarge(t, scale)

	root, err := controlplane.RepositoryRoot()
	mustNil(t, err)
	kubeconfig, err := cp.Kubeconfig("admin.kubeconfig", cp.Admin)
	mustNil(t, err)
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), filepath.Join(root, "bin", "kubectl-sakeeper"), "--kubeconfig", kubeconfig, "tokens", "-A")
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	start := time.Now()
	mustNil(t, cmd.Start())
	peak := peakMemory(cmd.Process.Pid)
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v: %s", err, &stderr)
	}
	took, memory := time.Since(start), <-peak
	if memory == 0 {
		t.Error("the memory was not read")
	}
	if took > 30*time.Second {
		t.Errorf("%v are more than 30 s", took)
	}
	t.Logf("%d tokens in %v, with %d MiB of memory and %v of CPU", tokens, took.Round(10*time.Millisecond), memory, (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Round(10*time.Millisecond))
	if lines := strings.Count(stdout.String(), "\n"); lines != tokens+1 {
		t.Errorf("got %d lines, want %d", lines, tokens+1)
	}
	if memory > 250 {
		t.Errorf("%d MiB are more than 250", memory)
	}
}

// peakMemory sends the highest resident memory of a process, in MiB, when it has ended. The Maxrss that
// the kernel reports of a child would be at least that of this process, which it is forked from.
func peakMemory(pid int) <-chan int {
	peak := make(chan int, 1)
	go func() {
		most := 0
		for {
			status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
			_, after, found := strings.Cut(string(status), "VmHWM:")
			if err != nil || !found { // it has ended
				peak <- most >> 10
				return
			}
			if kib, err := strconv.Atoi(strings.Fields(after)[0]); err == nil {
				most = kib
			}
			time.Sleep(20 * time.Millisecond) // the kernel keeps the maximum between two readings
		}
	}()
	return peak
}

// seedLarge creates the objects, and returns the number of tokens.
func (s *seeded) seedLarge(t *testing.T, scale float64) int {
	t.Helper()
	n := func(all int) int { return int(float64(all) * scale) }
	const namespaces = 50
	namespace := func(i int) string { return fmt.Sprintf("team-%d", i%namespaces) }
	many := func(count int, create func(ctx context.Context, i int) error) {
		group, ctx := errgroup.WithContext(t.Context())
		group.SetLimit(16)
		for i := range count {
			group.Go(func() error { return create(ctx, i) })
		}
		mustNil(t, group.Wait())
	}
	core, rbac, opts := s.client.CoreV1(), s.client.RbacV1(), metav1.CreateOptions{}
	many(namespaces, func(ctx context.Context, i int) error {
		_, err := core.Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace(i)}}, opts)
		return err
	})
	accounts := n(5000)
	many(accounts, func(ctx context.Context, i int) error {
		_, err := core.ServiceAccounts(namespace(i)).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("account-%d", i)}}, opts)
		return err
	})
	rules := []rbacv1.PolicyRule{{Verbs: []string{"get", "list"}, APIGroups: []string{""}, Resources: []string{"secrets", "configmaps"}}}
	many(n(3000), func(ctx context.Context, i int) error {
		meta := metav1.ObjectMeta{Name: fmt.Sprintf("binding-%d", i)}
		if _, err := rbac.Roles(namespace(i)).Create(ctx, &rbacv1.Role{ObjectMeta: meta, Rules: rules}, opts); err != nil {
			return err
		}
		_, err := rbac.RoleBindings(namespace(i)).Create(ctx, &rbacv1.RoleBinding{
			ObjectMeta: meta, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: meta.Name},
			Subjects: []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: namespace(i), Name: fmt.Sprintf("account-%d", i)}},
		}, opts)
		return err
	})
	compact := s.token(t, s.tokenOfNobody(t), "nobody", corev1.ServiceAccountTokenKey)
	tokens := n(20000)
	many(n(100000), func(ctx context.Context, i int) error {
		secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("secret-%d", i)}, Data: map[string][]byte{"data": bytes.Repeat([]byte("x"), 1000)}}
		if i < tokens-1 { // one is there already
			secret.Type = corev1.SecretTypeServiceAccountToken
			secret.Annotations = map[string]string{corev1.ServiceAccountNameKey: fmt.Sprintf("account-%d", i%accounts)}
			secret.Data[corev1.ServiceAccountTokenKey] = []byte(compact)
		}
		_, err := core.Secrets(namespace(i)).Create(ctx, secret, opts)
		return err
	})
	many(n(20000), func(ctx context.Context, i int) error {
		_, err := core.Pods(namespace(i)).Create(ctx, &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("pod-%d", i)},
			Spec: corev1.PodSpec{
				Containers: []corev1.Container{{Name: "app", Image: "app"}},
				Volumes:    []corev1.Volume{{Name: "token", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: fmt.Sprintf("secret-%d", i)}}}},
			},
		}, opts)
		return err
	})
	return tokens
}

// tokenOfNobody creates a token Secret, whose token all others have, and returns its namespace: to
// sign 20,000 would take longer than the rest.
func (s *seeded) tokenOfNobody(t *testing.T) string {
	t.Helper()
	s.account(t, "default/nobody")
	s.legacy(t, s.own, "default/nobody", "nobody", nil)
	return "default"
}
