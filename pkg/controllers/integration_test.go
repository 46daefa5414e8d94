package controllers_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	coreinformers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/controllers"
	"github.com/sakeeper/sakeeper/pkg/keys"
	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane/controlplanetest"
)

func TestWithARealAPIServer(t *testing.T) {
	c := controlplanetest.Start(t)
	t.Run("a suite serves a cluster", func(t *testing.T) { aSuiteServesACluster(t, c) })
	t.Run("a warm standby reads, and writes when it leads", func(t *testing.T) { aWarmStandbyServesWhenItLeads(t, c) })
	t.Run("deletions are confirmed where the caller's informers are filtered", func(t *testing.T) { deletionsAreConfirmed(t, c) })
}

func options(cp *controlplanetest.Cluster) controllers.Options {
	return controllers.Options{
		Config: cp.Admin,
		Keys:   controllers.KeyFiles(keys.Files{PrivateKeyFile: cp.SigningKeyFile}),
		RootCA: controllers.CAFile(cp.CAFile),
	}
}

func mustNew(t *testing.T, o controllers.Options) *controllers.Suite {
	t.Helper()
	suite, err := controllers.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return suite
}

func mustCreate[T any](t *testing.T, create func(context.Context, T, metav1.CreateOptions) (T, error), object T) T {
	t.Helper()
	created, err := create(t.Context(), object, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return created
}

func tokenSecret(name, account string) *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{corev1.ServiceAccountNameKey: account}},
		Type:       corev1.SecretTypeServiceAccountToken,
	}
}

// filled returns the token in a Secret of the namespace default, or an error if there is none yet.
func filled(ctx context.Context, client kubernetes.Interface, name string) (string, error) {
	secret, err := client.CoreV1().Secrets("default").Get(ctx, name, metav1.GetOptions{})
	if err == nil && len(secret.Data[corev1.ServiceAccountTokenKey]) == 0 {
		err = errors.New("it has no token")
	}
	if err != nil {
		return "", err
	}
	return string(secret.Data[corev1.ServiceAccountTokenKey]), nil
}

func aSuiteServesACluster(t *testing.T, cp *controlplanetest.Cluster) {
	client := cp.Client
	registry := prometheus.NewRegistry()
	allowed := make(chan struct{})
	o := options(cp)
	o.Registerer = registry
	o.Elect = func(ctx context.Context, lead func(context.Context) error) error {
		<-allowed
		return lead(ctx)
	}
	suite := mustNew(t, o)
	stop := testkit.Start(t.Context(), t, suite.Start)
	if err := suite.Ready(); err == nil {
		t.Error("it is ready before it may work")
	}
	close(allowed)
	controlplanetest.Eventually(t, "readiness", func(context.Context) error { return suite.Ready() })

	mustCreate(t, client.CoreV1().Secrets("default").Create, tokenSecret("token", "default"))
	var token string
	controlplanetest.Eventually(t, "a token", func(ctx context.Context) (err error) {
		token, err = filled(ctx, client, "token")
		return err
	})
	// The API server's own cache may have the Secret without its token still.
	controlplanetest.Eventually(t, "a review of the token", func(ctx context.Context) error {
		review, err := client.AuthenticationV1().TokenReviews().Create(ctx, &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token}}, metav1.CreateOptions{})
		if err == nil && review.Status.User.Username != "system:serviceaccount:default:default" {
			err = fmt.Errorf("the API server takes it for that of %q: %s", review.Status.User.Username, review.Status.Error)
		}
		return err
	})
	controlplanetest.Eventually(t, "the root CA of every namespace", func(ctx context.Context) error {
		found, err := client.CoreV1().ConfigMaps("").List(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + api.RootCAConfigMap})
		if err == nil && len(found.Items) < 4 { // default and the three of Kubernetes
			err = fmt.Errorf("there are %d", len(found.Items))
		}
		return err
	})
	stop()

	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if !strings.HasPrefix(family.GetName(), "sakeeper_") {
			t.Errorf("the registry has %s, which is not ours", family.GetName())
		}
	}
}

func aWarmStandbyServesWhenItLeads(t *testing.T, cp *controlplanetest.Cluster) {
	leads := make(chan struct{})
	o := options(cp)
	o.Config = rest.CopyConfig(o.Config)
	o.Config.UserAgent = "warm-standby"
	o.WarmStandby = true
	o.Elect = func(ctx context.Context, lead func(context.Context) error) error {
		select {
		case <-ctx.Done():
			return nil
		case <-leads:
			return lead(ctx)
		}
	}
	begin, err := cp.Audit.Mark(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	suite := mustNew(t, o)
	defer testkit.Start(t.Context(), t, suite.Run)()
	mustCreate(t, cp.Client.CoreV1().Secrets("default").Create, tokenSecret("standby", "default"))
	for _, resource := range []string{"namespaces", "serviceaccounts", "secrets", "configmaps"} {
		controlplanetest.Eventually(t, "a watch of "+resource, func(ctx context.Context) error {
			requests, err := cp.Audit.Since(ctx, begin, func(r controlplane.Request) bool {
				return strings.HasPrefix(r.UserAgent, "warm-standby") && r.Verb == "watch" && r.Object.Resource == resource
			})
			if err == nil && len(requests) == 0 {
				err = errors.New("there is none")
			}
			return err
		})
	}
	written, err := cp.Audit.Since(t.Context(), begin, func(r controlplane.Request) bool {
		return strings.HasPrefix(r.UserAgent, "warm-standby") && r.Verb != "get" && r.Verb != "list" && r.Verb != "watch"
	})
	if err != nil || len(written) > 0 {
		t.Errorf("a standby wrote: %v, error %v", controlplane.Count(written), err)
	}
	if err := suite.Ready(); err == nil {
		t.Error("it is ready before it works")
	}
	close(leads)
	controlplanetest.Eventually(t, "a token", func(ctx context.Context) error {
		_, err := filled(ctx, cp.Client, "standby")
		return err
	})
	controlplanetest.Eventually(t, "readiness", func(context.Context) error { return suite.Ready() })
}

// deletionsAreConfirmed: an account that leaves the filter of the caller is no account that is gone.
func deletionsAreConfirmed(t *testing.T, cp *controlplanetest.Cluster) {
	client := cp.Client
	accounts := coreinformers.NewFilteredServiceAccountInformer(client, "", 0, toolscache.Indexers{}, func(o *metav1.ListOptions) { o.LabelSelector = "team=blue" })
	o := options(cp)
	o.Controllers = []string{"serviceaccount-token-controller"}
	o.Namespaces = coreinformers.NewNamespaceInformer(client, 0, toolscache.Indexers{})
	o.ServiceAccounts = accounts
	suite := mustNew(t, o)
	defer testkit.Start(t.Context(), t, suite.Run, testkit.Informer(o.Namespaces), testkit.Informer(accounts))()

	core := client.CoreV1()
	for _, name := range []string{"stays", "goes"} {
		mustCreate(t, core.ServiceAccounts("default").Create, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"team": "blue"}}})
		mustCreate(t, core.Secrets("default").Create, tokenSecret(name, name))
	}
	mustCreate(t, core.ServiceAccounts("default").Create, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "other"}})
	mustCreate(t, core.Secrets("default").Create, tokenSecret("other", "other"))
	for _, name := range []string{"stays", "goes", "other"} {
		controlplanetest.Eventually(t, "a token of "+name, func(ctx context.Context) error {
			_, err := filled(ctx, client, name)
			return err
		})
	}

	_, err := core.ServiceAccounts("default").Patch(t.Context(), "stays", types.MergePatchType, []byte(`{"metadata":{"labels":{"team":"red"}}}`), metav1.PatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := core.ServiceAccounts("default").Delete(t.Context(), "goes", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	controlplanetest.Eventually(t, "the Secret of the account that is gone", func(ctx context.Context) error {
		secrets, err := core.Secrets("default").List(ctx, metav1.ListOptions{})
		for _, secret := range secrets.Items {
			if secret.Name == "goes" {
				err = errors.Join(err, errors.New("it is still there"))
			}
		}
		return err
	})
	for _, name := range []string{"stays", "other"} {
		if _, err := filled(t.Context(), client, name); err != nil {
			t.Errorf("the Secret of the account %s: %v", name, err)
		}
	}
}
