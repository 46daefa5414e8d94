package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/sakeeper/sakeeper/pkg/api"
)

const managedSecret = "ci-token"

// managedToken creates a Secret that requests a token that expires.
func (t *tour) managedToken(ctx context.Context) error {
	t.steps.title("A Secret requests a token that expires and is renewed")
	_, err := t.client.CoreV1().Namespaces().Patch(ctx, namespace, types.MergePatchType,
		fmt.Appendf(nil, `{"metadata":{"labels":{%q:%q}}}`, api.TokenRequestsLabel, api.TokenRequestsAllowed), metav1.PatchOptions{})
	if err != nil {
		return err
	}
	secrets, err := t.watch(ctx, "secrets", managedSecret)
	if err != nil {
		return err
	}
	t.steps.begin()
	if _, err := t.client.CoreV1().Secrets(namespace).Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{
		Name:        managedSecret,
		Labels:      map[string]string{api.TokenLabel: api.TokenManaged},
		Annotations: map[string]string{api.ServiceAccountAnnotation: "default", api.LifetimeAnnotation: "1h"},
	}}, metav1.CreateOptions{}); err != nil {
		return err
	}
	filled, err := until(ctx, secrets, func(_ watch.EventType, s *corev1.Secret) bool { return tokenOf(s) != "" })
	if err != nil {
		return err
	}
	if err := t.bear(filled); err != nil {
		return err
	}
	name, err := t.whoAmI(ctx)
	if err != nil {
		return err
	}
	t.steps.done("secret %s: a token of %s until %s", managedSecret, name, filled.Annotations[api.ExpiresAtAnnotation])
	return nil
}

// rotate requests a renewal by the annotation. Otherwise it would happen only when most of the
// hour has passed.
func (t *tour) rotate(ctx context.Context) error {
	t.steps.title("A user requests another token, which otherwise comes before the old one expires")
	old, err := t.client.CoreV1().Secrets(namespace).Get(ctx, managedSecret, metav1.GetOptions{})
	if err != nil {
		return err
	}
	secrets, err := t.watch(ctx, "secrets", managedSecret)
	if err != nil {
		return err
	}
	t.steps.begin()
	if _, err := t.client.CoreV1().Secrets(namespace).Patch(ctx, managedSecret, types.MergePatchType,
		fmt.Appendf(nil, `{"metadata":{"annotations":{%q:%q}}}`, api.RotateAnnotation, time.Now().Format(time.RFC3339)), metav1.PatchOptions{}); err != nil {
		return err
	}
	renewed, err := until(ctx, secrets, func(_ watch.EventType, s *corev1.Secret) bool { return tokenOf(s) != tokenOf(old) })
	if err != nil {
		return err
	}
	if err := t.bear(renewed); err != nil {
		return err
	}
	if _, err := t.whoAmI(ctx); err != nil {
		return err
	}
	t.steps.done("secret %s: another token, %s", managedSecret, renewed.Annotations[api.CredentialIDAnnotation])
	return nil
}

// reportFile is beside the binaries, where it stays.
func (t *tour) reportFile() string { return filepath.Join(filepath.Dir(t.binary), "report.html") }

// fromHere returns a path that is relative to the working directory, if the file is below it.
func fromHere(path string) string {
	here, err := os.Getwd()
	if err != nil {
		return path
	}
	if relative, err := filepath.Rel(here, path); err == nil && filepath.IsLocal(relative) {
		return relative
	}
	return path
}

// inventory lists the tokens that there are now, and writes the report.
func (t *tour) inventory(ctx context.Context) error {
	t.steps.title("kubectl sakeeper tokens: which tokens there are, and what could be done with each")
	kubeconfig, err := t.cp.Kubeconfig("inventory.kubeconfig", t.cp.Admin)
	if err != nil {
		return err
	}
	plugin := func(args ...string) ([]byte, error) {
		return exec.CommandContext(ctx, filepath.Join(filepath.Dir(t.binary), "kubectl-sakeeper"), append(args, "--all-namespaces", "--kubeconfig", kubeconfig)...).Output()
	}
	t.steps.begin()
	table, err := plugin("tokens")
	if err != nil {
		return fmt.Errorf("kubectl sakeeper tokens: %w", err)
	}
	t.steps.done("as the administrator")
	for line := range strings.Lines(string(table)) {
		t.steps.say("%s", strings.TrimSuffix(line, "\n"))
	}
	page, err := plugin("report")
	if err != nil {
		return fmt.Errorf("kubectl sakeeper report: %w", err)
	}
	return os.WriteFile(t.reportFile(), page, 0o600)
}

func (t *tour) revoke(ctx context.Context) error {
	t.steps.title("The Secret is deleted: that revokes its token")
	t.steps.begin()
	if err := t.client.CoreV1().Secrets(namespace).Delete(ctx, managedSecret, metav1.DeleteOptions{}); err != nil {
		return err
	}
	return t.untilRefused(ctx)
}

func tokenOf(s *corev1.Secret) string { return string(s.Data[corev1.ServiceAccountTokenKey]) }

// bear sets the token and the CA in a Secret as the credentials of [tour.whoAmI].
func (t *tour) bear(s *corev1.Secret) (err error) {
	config := rest.AnonymousClientConfig(t.cp.Admin)
	config.CAData = s.Data[corev1.ServiceAccountRootCAKey]
	config.BearerToken = tokenOf(s)
	t.bearer, err = kubernetes.NewForConfig(config)
	return err
}
