// Package controlplanetest starts a control plane for the tests of a package. The other packages of
// a real cluster (a kubelet, a scheduler, other controllers) are absent, as in package controlplane.
package controlplanetest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/sakeeper/sakeeper/pkg/cabundle"
	"github.com/sakeeper/sakeeper/pkg/keys"
	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
)

// Cluster is a control plane, a client of its admin, and what it signs and trusts. It is safe for
// concurrent use.
type Cluster struct {
	*controlplane.ControlPlane

	Client kubernetes.Interface
	// Keys has the key that signs tokens, and CA the certificate of the API server.
	Keys *keys.Set
	CA   cabundle.Bundle
}

// Start starts a control plane, and stops it after the test.
func Start(t *testing.T) *Cluster {
	t.Helper()
	c, stop, err := start(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// Run runs the tests of a package that share a control plane, and returns the exit code for TestMain.
// It calls use with the control plane before them.
func Run(m *testing.M, use func(*Cluster)) int {
	dir, err := os.MkdirTemp("", "sakeeper-")
	code := 1
	if err == nil {
		code, err = runIn(m, dir, use)
		err = errors.Join(err, os.RemoveAll(dir))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "control plane:", err)
		return 1
	}
	return code
}

func runIn(m *testing.M, dir string, use func(*Cluster)) (code int, err error) {
	c, stop, err := start(dir)
	if err != nil {
		return 1, err
	}
	use(c)
	code = m.Run()
	return code, stop()
}

func start(dir string) (c *Cluster, stop func() error, err error) {
	cp, err := controlplane.Start(controlplane.Options{Dir: dir})
	if err != nil {
		return nil, nil, err
	}
	admin := rest.CopyConfig(cp.Admin)
	admin.QPS = -1
	client, errClient := kubernetes.NewForConfig(admin)
	pem, errFile := os.ReadFile(cp.SigningKeyFile)
	key, errKey := keys.ParsePrivate(pem)
	ca, errCA := cabundle.Parse(cp.Admin.CAData)
	if err := errors.Join(errClient, errFile, errKey, errCA); err != nil {
		return nil, nil, errors.Join(err, cp.Stop())
	}
	return &Cluster{ControlPlane: cp, Client: client, Keys: keys.NewSet(key), CA: ca}, cp.Stop, nil
}

// Rule allows verbs on a resource of the core group.
func Rule(resource string, verbs ...string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{resource}, Verbs: verbs}
}

// Grant creates a ClusterRole of that name with rules, binds it to subject, and waits until the API
// server allows what the rules say.
func (c *Cluster) Grant(t *testing.T, name string, subject rbacv1.Subject, rules ...rbacv1.PolicyRule) {
	t.Helper()
	meta := metav1.ObjectMeta{Name: name}
	_, errRole := c.Client.RbacV1().ClusterRoles().Create(t.Context(), &rbacv1.ClusterRole{ObjectMeta: meta, Rules: rules}, metav1.CreateOptions{})
	_, errBinding := c.Client.RbacV1().ClusterRoleBindings().Create(t.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: meta, Subjects: []rbacv1.Subject{subject}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name},
	}, metav1.CreateOptions{})
	if err := errors.Join(errRole, errBinding); err != nil {
		t.Fatal(err)
	}
	c.AwaitAllowed(t, subject, "", rules...)
}

// AwaitAllowed waits until the API server allows subject what rules say, in a namespace or, if that is
// empty, in all: the API server authorizes by a cache, which a role reaches after it was created.
func (c *Cluster) AwaitAllowed(t *testing.T, subject rbacv1.Subject, namespace string, rules ...rbacv1.PolicyRule) {
	t.Helper()
	user := subject.Name
	if subject.Kind == rbacv1.ServiceAccountKind {
		user = "system:serviceaccount:" + subject.Namespace + ":" + subject.Name
	}
	for _, rule := range rules {
		for _, verb := range rule.Verbs {
			for _, resource := range rule.Resources {
				asked := &authorizationv1.ResourceAttributes{Namespace: namespace, Verb: verb, Group: rule.APIGroups[0], Resource: resource}
				if len(rule.ResourceNames) > 0 {
					asked.Name = rule.ResourceNames[0]
				}
				c.awaitAllowed(t, user, asked)
			}
		}
	}
}

func (c *Cluster) awaitAllowed(t *testing.T, user string, asked *authorizationv1.ResourceAttributes) {
	t.Helper()
	Eventually(t, fmt.Sprintf("the right of %s to %s %s", user, asked.Verb, asked.Resource), func(ctx context.Context) error {
		review, err := c.Client.AuthorizationV1().SubjectAccessReviews().Create(ctx, &authorizationv1.SubjectAccessReview{
			Spec: authorizationv1.SubjectAccessReviewSpec{User: user, ResourceAttributes: asked},
		}, metav1.CreateOptions{})
		if err == nil && !review.Status.Allowed {
			err = errors.New("not allowed")
		}
		return err
	})
}

// Review returns what the API server says about the token in secret.
func (c *Cluster) Review(ctx context.Context, secret *corev1.Secret) (authenticationv1.TokenReviewStatus, error) {
	review, err := c.Client.AuthenticationV1().TokenReviews().Create(ctx, &authenticationv1.TokenReview{
		Spec: authenticationv1.TokenReviewSpec{Token: string(secret.Data[corev1.ServiceAccountTokenKey])},
	}, metav1.CreateOptions{})
	if err != nil {
		return authenticationv1.TokenReviewStatus{}, err
	}
	return review.Status, nil
}

// Eventually waits until check returns nil. It fails the test with check's last error after two
// minutes, in which an API server of a busy machine does everything that a test waits for.
func Eventually(t *testing.T, what string, check func(ctx context.Context) error) {
	t.Helper()
	testkit.Await(t, 10*time.Millisecond, 2*time.Minute, what, check)
}
