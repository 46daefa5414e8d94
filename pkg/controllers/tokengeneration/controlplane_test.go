package tokengeneration

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

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
	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane/controlplanetest"
	"github.com/sakeeper/sakeeper/pkg/token"
)

// generator is the user name of the controller. It has the RBAC rules that doc.go names.
const generator = "generator"

// controlPlane is a real API server.
type controlPlane struct{ *controlplanetest.Cluster }

func newControlPlane(t *testing.T) controlPlane {
	t.Helper()
	p := controlPlane{controlplanetest.Start(t)}
	p.Grant(t, generator, rbacv1.Subject{Kind: rbacv1.UserKind, Name: generator}, controlplanetest.Rule("secrets", "list", "watch", "create", "delete"),
		controlplanetest.Rule("serviceaccounts", "list", "watch", "patch"), controlplanetest.Rule("namespaces", "list", "watch"))
	return p
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
	check, errCheck := signingkey.New(signingkey.Config{
		Client: client.CoreV1().RESTClient(), Keys: func() *keys.Set { return p.Keys }, Signer: token.NewSigner(func() *keys.Set { return p.Keys }),
		Recorder: record.NewFakeRecorder(100), Process: &corev1.ObjectReference{}, Clock: clock.RealClock{},
	})
	must(t, errors.Join(errClient, errMeta, errCheck))
	c := newController(t, client, meta, func(cfg *Config) {
		cfg.Mode, cfg.Tokens, cfg.CA = mode, check, func() cabundle.Bundle { return p.CA }
	})
	c.requestTimeout = 100 * time.Millisecond
	check.OnChange(c.EnqueueAll)
	stop = testkit.Start(ctx, t, check.Run, c.Run, testkit.Informer(c.cfg.Namespaces), testkit.Informer(c.cfg.Secrets), testkit.Informer(c.cfg.ServiceAccounts))
	controlplanetest.Eventually(t, "ready", func(context.Context) error {
		if !c.Ready() {
			return errors.New("not ready")
		}
		return check.Ready() // until then no token is made, and each try would list the Secrets again
	})
	return stop
}

func unchanged(*rest.Config) {}

// newNamespace creates a namespace with the ServiceAccount default.
func (p controlPlane) newNamespace(t *testing.T, labels map[string]string) string {
	t.Helper()
	name := "t-" + utilrand.String(8)
	_, err := p.Client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}, metav1.CreateOptions{})
	must(t, err)
	p.newAccount(t, name, "default", nil)
	return name
}

func (p controlPlane) newAccount(t *testing.T, namespace, name string, labels map[string]string) {
	t.Helper()
	_, err := p.Client.CoreV1().ServiceAccounts(namespace).Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}, metav1.CreateOptions{})
	must(t, err)
}

// expectToken waits until the last reference of the account is the only token Secret that
// names it, and the API server accepts the token.
func (p controlPlane) expectToken(t *testing.T, namespace, name string) *corev1.Secret {
	t.Helper()
	var secret *corev1.Secret
	controlplanetest.Eventually(t, "token of "+namespace+"/"+name, func(ctx context.Context) error {
		account, err := p.Client.CoreV1().ServiceAccounts(namespace).Get(ctx, name, metav1.GetOptions{})
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
	if !cache.IsGeneratedName(name, secret.Name) || string(secret.Data["ca.crt"]) != string(p.CA.PEM()) || string(secret.Data["namespace"]) != namespace {
		t.Errorf("secret %s is not complete", secret.Name)
	}
	p.expectUser(t, secret, "system:serviceaccount:"+namespace+":"+name)
	return secret
}

// tokens returns the Secrets that name the account.
func (p controlPlane) tokens(ctx context.Context, namespace, account string) ([]corev1.Secret, error) {
	list, err := p.Client.CoreV1().Secrets(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(list.Items, func(s corev1.Secret) bool { return s.Annotations[corev1.ServiceAccountNameKey] != account }), nil
}

// expectUser waits until the token in secret is that of user; empty: until it is rejected. The
// caches of the API server may lag.
func (p controlPlane) expectUser(t *testing.T, secret *corev1.Secret, user string) {
	t.Helper()
	controlplanetest.Eventually(t, "review of the token in "+secret.Name, func(ctx context.Context) error {
		status, err := p.Review(ctx, secret)
		if err == nil && status.User.Username != user {
			err = fmt.Errorf("it is that of %q", status.User.Username)
		}
		return err
	})
}

func (p controlPlane) delete(t *testing.T, secret *corev1.Secret) {
	t.Helper()
	must(t, p.Client.CoreV1().Secrets(secret.Namespace).Delete(t.Context(), secret.Name, metav1.DeleteOptions{}))
}
