package cache

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	toolscache "k8s.io/client-go/tools/cache"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/testkit/leaks"
)

func TestMain(m *testing.M) { leaks.Main(m) }

// newInformers makes one of each kind.
func newInformers(t *testing.T, client kubernetes.Interface) map[string]toolscache.SharedIndexInformer {
	t.Helper()
	namespaces, err := Namespaces(client)
	mustNil(t, err)
	accounts, err := ServiceAccounts(client)
	mustNil(t, err)
	secrets, err := TokenSecrets(client, nil)
	mustNil(t, err)
	rootCAs, err := RootCAs(client)
	mustNil(t, err)
	return map[string]toolscache.SharedIndexInformer{"namespaces": namespaces, "serviceaccounts": accounts, "secrets": secrets, "configmaps": rootCAs}
}

func mustNil(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// run runs the informers until they have synced and all is quiet.
func run(t *testing.T, informers map[string]toolscache.SharedIndexInformer) {
	t.Helper()
	var all []func(context.Context) error
	for _, informer := range informers {
		all = append(all, testkit.Informer(informer))
	}
	defer testkit.Start(t.Context(), t, all...)()
	for _, informer := range informers {
		<-informer.HasSyncedChecker().Done()
	}
	synctest.Wait()
}

func TestWhatIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rich := []testkit.Option{
			testkit.WithLabel("app", "ci"), testkit.WithAnnotation(lastApplied, "{}"), testkit.WithManagedFields(), testkit.Deleting(),
		}
		namespace := testkit.Namespace("team", append(rich, testkit.Terminating())...)
		account := testkit.ServiceAccount("team/robot", append(rich, testkit.WithReferences("one", "two"))...)
		account.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "registry"}}
		secret := testkit.Secret("team/s", testkit.WithAccount("robot"), testkit.WithData("token", "eyJ"))
		rootCA := testkit.ConfigMap("team/"+api.RootCAConfigMap, testkit.WithData("ca.crt", "a CA"))

		informers := newInformers(t, fake.NewClientset(namespace, account, secret, rootCA))
		run(t, informers)

		want := map[string][]any{
			"namespaces":      {&corev1.Namespace{ObjectMeta: reducedMeta(namespace), Status: corev1.NamespaceStatus{Phase: corev1.NamespaceTerminating}}},
			"serviceaccounts": {&corev1.ServiceAccount{ObjectMeta: reducedMeta(account), Secrets: account.Secrets}},
			"secrets":         {NewTokenSecret(secret, nil)},
			"configmaps":      {NewRootCA(rootCA)},
		}
		got := map[string][]any{}
		for resource, informer := range informers {
			got[resource] = informer.GetStore().List()
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
	})
}

func TestWhatIsFetched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		got := map[string][]string{}
		client := fake.NewClientset()
		note := func(action clienttesting.Action, fields string) {
			got[action.GetResource().Resource] = append(got[action.GetResource().Resource], action.GetVerb()+" "+action.GetNamespace()+"/"+fields)
		}
		client.PrependReactor("list", "*", func(action clienttesting.Action) (bool, runtime.Object, error) {
			note(action, action.(clienttesting.ListActionImpl).GetListOptions().FieldSelector)
			return false, nil, nil
		})
		client.PrependWatchReactor("*", func(action clienttesting.Action) (bool, watch.Interface, error) {
			note(action, action.(clienttesting.WatchActionImpl).GetListOptions().FieldSelector)
			return false, nil, nil
		})
		run(t, newInformers(t, client))

		want := map[string][]string{
			"namespaces":      {"list /", "watch /"},
			"serviceaccounts": {"list /", "watch /"},
			"secrets":         {"list /type=kubernetes.io/service-account-token", "watch /type=kubernetes.io/service-account-token"},
			"configmaps":      {"list /metadata.name=kube-root-ca.crt", "watch /metadata.name=kube-root-ca.crt"},
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
	})
}

func TestTokenSecretsAreFoundByAccount(t *testing.T) {
	secrets, err := TokenSecrets(&fake.Clientset{}, nil)
	mustNil(t, err)
	for _, s := range []*corev1.Secret{
		testkit.Secret("team/one", testkit.WithAccount("robot")),
		testkit.Secret("team/two", testkit.WithAccount("robot"), testkit.WithData("token", "eyJ")),
		testkit.Secret("team/of-another", testkit.WithAccount("default")),
		testkit.Secret("other/namesake", testkit.WithAccount("robot")),
		testkit.Secret("team/without-account"),
	} {
		mustNil(t, secrets.GetStore().Add(NewTokenSecret(s, nil)))
	}
	found, err := secrets.GetTypedIndexer().ByTypedIndex(ByAccount, "team/robot")
	mustNil(t, err)
	var got []string
	for _, s := range found {
		got = append(got, s.Namespace+"/"+s.Name)
	}
	slices.Sort(got)
	if diff := cmp.Diff([]string{"team/one", "team/two"}, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// capture is an informer that hands out its transform.
type capture struct {
	toolscache.SharedIndexInformer
	transform toolscache.TransformFunc
}

func (c *capture) SetTransform(f toolscache.TransformFunc) error {
	c.transform = f
	return nil
}

func TestTheTransformMaySeeItsOwnResult(t *testing.T) {
	informer := &capture{}
	_, err := Transformed(informer, func(s *corev1.Secret) *TokenSecret { return NewTokenSecret(s, nil) })
	mustNil(t, err)
	for name, in := range map[string]*corev1.Secret{
		"filled":   testkit.Secret("team/s", testkit.WithAccount("robot"), testkit.WithData("token", "eyJ")),
		"unfilled": testkit.Secret("team/s", testkit.WithAccount("robot")),
	} {
		t.Run(name, func(t *testing.T) {
			once, err := informer.transform(in)
			mustNil(t, err)
			twice, err := informer.transform(once)
			mustNil(t, err)
			if diff := cmp.Diff(once, twice); diff != "" {
				t.Errorf("-once +twice:\n%s", diff)
			}
		})
	}
	t.Run("another type is an error", func(t *testing.T) {
		if got, err := informer.transform(testkit.Namespace("team")); err == nil {
			t.Errorf("got %v", got)
		}
	})
}
