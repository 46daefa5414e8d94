package tokengeneration

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilrand "k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/ktesting"
	"k8s.io/utils/clock"

	"github.com/sakeeper/sakeeper/pkg/cabundle"
	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/keys"
	"github.com/sakeeper/sakeeper/pkg/signingkey"
	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
	"github.com/sakeeper/sakeeper/pkg/token"
)

// generator is the user name of the controller. It has the RBAC rules that doc.go names.
const generator = "generator"

// controlPlane is a real API server with its signing key and CA.
type controlPlane struct {
	*controlplane.ControlPlane
	admin kubernetes.Interface
	keys  *keys.Set
	ca    cabundle.Bundle
}

func newControlPlane(t *testing.T) controlPlane {
	t.Helper()
	cp, err := controlplane.Start(controlplane.Options{Dir: t.TempDir()})
	must(t, err)
	t.Cleanup(func() { must(t, cp.Stop()) })
	p := controlPlane{ControlPlane: cp}
	p.admin, err = kubernetes.NewForConfig(cp.Admin)
	must(t, err)
	pem, err := os.ReadFile(cp.SigningKeyFile)
	must(t, err)
	key, err := keys.ParsePrivate(pem)
	must(t, err)
	p.keys = keys.NewSet(key)
	p.ca, err = cabundle.Parse(cp.Admin.CAData)
	must(t, err)
	p.grant(t)
	return p
}

func (p controlPlane) grant(t *testing.T) {
	t.Helper()
	rule := func(resource string, verbs ...string) rbacv1.PolicyRule {
		return rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{resource}, Verbs: verbs}
	}
	_, err := p.admin.RbacV1().ClusterRoles().Create(t.Context(), &rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{Name: generator},
		Rules: []rbacv1.PolicyRule{
			rule("secrets", "list", "watch", "create", "delete"), rule("serviceaccounts", "list", "watch", "patch"), rule("namespaces", "list", "watch"),
		},
	}, metav1.CreateOptions{})
	must(t, err)
	_, err = p.admin.RbacV1().ClusterRoleBindings().Create(t.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: generator},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: generator},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.UserKind, Name: generator}},
	}, metav1.CreateOptions{})
	must(t, err)
}

// start runs the controller as a process does, until stop is called.
func (p controlPlane) start(t *testing.T, mode Mode, with func(*rest.Config)) (stop func()) {
	t.Helper()
	ctx := klog.NewContext(t.Context(), ktesting.NewLogger(t, ktesting.NewConfig(ktesting.Verbosity(2))))
	config, err := p.User(generator)
	must(t, err)
	with(config)
	client, errClient := kubernetes.NewForConfig(config)
	meta, errMeta := metadata.NewForConfig(config)
	must(t, errors.Join(errClient, errMeta))
	check, err := signingkey.New(signingkey.Config{
		Client: client.CoreV1().RESTClient(), Keys: func() *keys.Set { return p.keys }, Signer: token.NewSigner(func() *keys.Set { return p.keys }),
		Recorder: record.NewFakeRecorder(100), Process: &corev1.ObjectReference{}, Clock: clock.RealClock{},
	})
	must(t, err)
	c := newController(t, client, meta, func(cfg *Config) {
		cfg.Mode, cfg.Tokens, cfg.CA = mode, check, func() cabundle.Bundle { return p.ca }
	})
	c.requestTimeout = 100 * time.Millisecond
	check.OnChange(c.EnqueueAll)
	stop = testkit.Start(ctx, t, check.Run, c.Run, testkit.Informer(c.cfg.Namespaces), testkit.Informer(c.cfg.Secrets), testkit.Informer(c.cfg.ServiceAccounts))
	eventually(t, "ready", func(context.Context) error {
		if !c.Ready() {
			return errors.New("not ready")
		}
		return nil
	})
	return stop
}

func unchanged(*rest.Config) {}

// eventually waits until check returns nil.
func eventually(t *testing.T, what string, check func(ctx context.Context) error) {
	t.Helper()
	testkit.Await(t, 10*time.Millisecond, 30*time.Second, what, check)
}

// newNamespace creates a namespace with the ServiceAccount default.
func (p controlPlane) newNamespace(t *testing.T, labels map[string]string) string {
	t.Helper()
	name := "t-" + utilrand.String(8)
	_, err := p.admin.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}, metav1.CreateOptions{})
	must(t, err)
	p.newAccount(t, name, "default", nil)
	return name
}

func (p controlPlane) newAccount(t *testing.T, namespace, name string, labels map[string]string) {
	t.Helper()
	_, err := p.admin.CoreV1().ServiceAccounts(namespace).Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}, metav1.CreateOptions{})
	must(t, err)
}

// expectToken waits until the last reference of the account is the only token Secret that
// names it, and the API server accepts the token.
func (p controlPlane) expectToken(t *testing.T, namespace, name string) *corev1.Secret {
	t.Helper()
	var secret *corev1.Secret
	eventually(t, "token of "+namespace+"/"+name, func(ctx context.Context) error {
		account, err := p.admin.CoreV1().ServiceAccounts(namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		all, err := p.tokens(ctx, namespace, name)
		if err != nil {
			return err
		}
		if len(all) != 1 || len(account.Secrets) == 0 || account.Secrets[len(account.Secrets)-1].Name != all[0].Name {
			return fmt.Errorf("refers to %v, and there are %d", account.Secrets, len(all))
		}
		secret = &all[0]
		return nil
	})
	if !cache.IsGeneratedName(name, secret.Name) || string(secret.Data["ca.crt"]) != string(p.ca.PEM()) || string(secret.Data["namespace"]) != namespace {
		t.Errorf("secret %s is not complete", secret.Name)
	}
	eventually(t, "review", func(ctx context.Context) error { // the API server's own caches may lag
		if user := p.review(ctx, t, secret); user != "system:serviceaccount:"+namespace+":"+name {
			return fmt.Errorf("the token is that of %q", user)
		}
		return nil
	})
	return secret
}

// tokens returns the Secrets that name the account.
func (p controlPlane) tokens(ctx context.Context, namespace, account string) ([]corev1.Secret, error) {
	list, err := p.admin.CoreV1().Secrets(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(list.Items, func(s corev1.Secret) bool { return s.Annotations[corev1.ServiceAccountNameKey] != account }), nil
}

func (p controlPlane) review(ctx context.Context, t *testing.T, secret *corev1.Secret) string {
	t.Helper()
	review, err := p.admin.AuthenticationV1().TokenReviews().Create(ctx, &authenticationv1.TokenReview{
		Spec: authenticationv1.TokenReviewSpec{Token: string(secret.Data["token"])},
	}, metav1.CreateOptions{})
	must(t, err)
	return review.Status.User.Username
}

func (p controlPlane) delete(t *testing.T, secret *corev1.Secret) {
	t.Helper()
	must(t, p.admin.CoreV1().Secrets(secret.Namespace).Delete(t.Context(), secret.Name, metav1.DeleteOptions{}))
}
