package tokencleaner

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/sakeeper/sakeeper/pkg/keys"
	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane/controlplanetest"
	"github.com/sakeeper/sakeeper/pkg/token"
)

// controlPlane is a real API server on which the cleaner has only the permissions in doc.go.
type controlPlane struct {
	*controlplanetest.Cluster
	t       *testing.T
	cleaner *rest.Config
	signer  *token.Signer
}

const (
	cleanerNamespace = "sakeeper-system"
	cleanerAccount   = "cleaner"
)

func newControlPlane(t *testing.T) *controlPlane {
	t.Helper()
	p := &controlPlane{Cluster: controlplanetest.Start(t), t: t}
	p.signer = token.NewSigner(func() *keys.Set { return p.Keys })
	var err error
	p.cleaner, err = p.ServiceAccount(cleanerNamespace, cleanerAccount)
	must(t, err)
	p.grant()
	return p
}

func (p *controlPlane) grant() {
	p.t.Helper()
	rule := controlplanetest.Rule
	cleaner := rbacv1.Subject{Kind: "ServiceAccount", Namespace: cleanerNamespace, Name: cleanerAccount}
	p.Grant(p.t, cleanerAccount, cleaner, rule("secrets", "list", "watch", "patch", "delete"), rule("serviceaccounts", "list", "watch", "patch"),
		rule("namespaces", "list", "watch"), rule("pods", "list"))
	tracking := rule("configmaps", "get")
	tracking.ResourceNames = []string{"kube-apiserver-legacy-service-account-token-tracking"}
	meta, rbac := metav1.ObjectMeta{Name: cleanerAccount}, p.Client.RbacV1()
	_, errRole := rbac.Roles("kube-system").Create(p.t.Context(), &rbacv1.Role{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{tracking}}, metav1.CreateOptions{})
	_, errBinding := rbac.RoleBindings("kube-system").Create(p.t.Context(), &rbacv1.RoleBinding{
		ObjectMeta: meta, Subjects: []rbacv1.Subject{cleaner}, RoleRef: rbacv1.RoleRef{Kind: "Role", Name: cleanerAccount},
	}, metav1.CreateOptions{})
	must(p.t, errors.Join(errRole, errBinding))
	p.AwaitAllowed(p.t, cleaner, "kube-system", tracking)
}

// tracking returns the tracking ConfigMap, which the API server creates.
func (p *controlPlane) tracking() *corev1.ConfigMap {
	p.t.Helper()
	var found *corev1.ConfigMap
	p.eventually("the tracking config map", func(ctx context.Context) (err error) {
		found, err = p.Client.CoreV1().ConfigMaps("kube-system").Get(ctx, trackingName, metav1.GetOptions{})
		return err
	})
	return found
}

func (p *controlPlane) trackSince(date time.Time) {
	p.t.Helper()
	found := p.tracking()
	found.Data["since"] = date.Format(time.DateOnly)
	_, err := p.Client.CoreV1().ConfigMaps("kube-system").Update(p.t.Context(), found, metav1.UpdateOptions{})
	must(p.t, err)
}

func (p *controlPlane) namespace(name string, opts ...testkit.Option) {
	p.t.Helper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
	for _, opt := range opts {
		opt(namespace)
	}
	_, err := p.Client.CoreV1().Namespaces().Create(p.t.Context(), namespace, metav1.CreateOptions{})
	must(p.t, err)
}

// robot creates an account and its token Secrets. The account refers to all of them except
// those whose name begins with "hand".
func (p *controlPlane) robot(namespace string, secrets ...*corev1.Secret) {
	p.t.Helper()
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "robot"}}
	for _, s := range secrets {
		if s.Name[:4] != "hand" {
			account.Secrets = append(account.Secrets, corev1.ObjectReference{Name: s.Name})
		}
	}
	account, err := p.Client.CoreV1().ServiceAccounts(namespace).Create(p.t.Context(), account, metav1.CreateOptions{})
	must(p.t, err)
	for _, s := range secrets {
		compact, err := p.signer.SignLegacy(p.t.Context(), token.LegacyClaims{
			Namespace: namespace, SecretName: s.Name, ServiceAccountName: "robot", ServiceAccountUID: string(account.UID),
		})
		must(p.t, err)
		s.Namespace = namespace
		testkit.WithAccountUID(account.UID)(s)
		testkit.WithData("token", compact)(s)
		_, err = p.Client.CoreV1().Secrets(namespace).Create(p.t.Context(), s, metav1.CreateOptions{})
		must(p.t, err)
	}
}

// realSecret is a token Secret of robot for [controlPlane.robot].
func realSecret(name string, opts ...testkit.Option) *corev1.Secret {
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}, Type: corev1.SecretTypeServiceAccountToken}
	for _, opt := range append([]testkit.Option{testkit.WithAccount("robot")}, opts...) {
		opt(s)
	}
	return s
}

func (p *controlPlane) pod(namespace, name, secret string) {
	p.t.Helper()
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Spec: podsReferringTo("", secret).Items[0].Spec}
	pod.Spec.Volumes[0].Name = "token"
	pod.Spec.Containers = []corev1.Container{{Name: "c", Image: "i"}}
	_, err := p.Client.CoreV1().Pods(namespace).Create(p.t.Context(), pod, metav1.CreateOptions{})
	must(p.t, err)
}

// use has the API server review the token of a Secret, which records a use.
func (p *controlPlane) use(ctx context.Context, namespace, name string) (authenticationv1.TokenReviewStatus, error) {
	secret, err := p.Client.CoreV1().Secrets(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return authenticationv1.TokenReviewStatus{}, err
	}
	return p.Review(ctx, secret)
}

// secrets returns the labels of all token Secrets of a namespace, by name.
func (p *controlPlane) secrets(ctx context.Context, namespace string) (map[string]map[string]string, error) {
	list, err := p.Client.CoreV1().Secrets(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	labels := map[string]map[string]string{}
	for _, s := range list.Items {
		labels[s.Name] = s.Labels
	}
	return labels, nil
}

func (p *controlPlane) expectSecrets(step, namespace string, want map[string]map[string]string) {
	p.t.Helper()
	got, err := p.secrets(p.t.Context(), namespace)
	must(p.t, err)
	if diff := cmp.Diff(want, got); diff != "" {
		p.t.Errorf("%s: secrets of %s (-want +got):\n%s", step, namespace, diff)
	}
}

func (p *controlPlane) eventually(what string, check func(ctx context.Context) error) {
	p.t.Helper()
	controlplanetest.Eventually(p.t, what, check)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func expectNotFound(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return fmt.Errorf("want NotFound, got: %w", err)
}
