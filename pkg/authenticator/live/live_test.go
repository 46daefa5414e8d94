package live_test

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	metadatafake "k8s.io/client-go/metadata/fake"
	clienttesting "k8s.io/client-go/testing"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/utils/clock"

	"github.com/sakeeper/sakeeper/pkg/authenticator"
	"github.com/sakeeper/sakeeper/pkg/authenticator/live"
	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/token"
)

func partial(kind, namespace, name string, uid types.UID) *metav1.PartialObjectMetadata {
	return &metav1.PartialObjectMetadata{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: kind},
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: uid, Annotations: map[string]string{"kubectl": "a copy of data"}},
	}
}

func webhookConfiguration(kind, name string, uid types.UID) *metav1.PartialObjectMetadata {
	made := partial(kind, "", name, uid)
	made.APIVersion = "admissionregistration.k8s.io/v1"
	return made
}

// requests lists the get requests.
func requests(actions []clienttesting.Action) string {
	var list []string
	for _, action := range actions {
		if get, ok := action.(clienttesting.GetAction); ok {
			list = append(list, "get "+action.GetResource().Resource+" "+get.GetNamespace()+"/"+get.GetName())
		}
	}
	return strings.Join(list, ", ")
}

// alive returns the liveness of a cache for which a probe was answered.
func alive(t *testing.T, informer toolscache.SharedIndexInformer) *cache.Liveness {
	t.Helper()
	liveness, err := cache.NewLiveness(informer, func(context.Context, string) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	informer.GetStore().Bookmark("7")
	testkit.Await(t, time.Millisecond, time.Minute, "the probe", func(ctx context.Context) error {
		if !liveness.Alive(ctx) {
			return errors.New("not alive")
		}
		return nil
	})
	return liveness
}

func TestClusterReadsObjectsThatAreNotCached(t *testing.T) {
	scheme := metadatafake.NewTestScheme()
	if err := metav1.AddMetaToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	meta := metadatafake.NewSimpleMetadataClient(scheme,
		partial("ServiceAccount", "team", "robot", "u-robot"), partial("Pod", "team", "app", "u-app"), partial("Secret", "team", "bound", "u-bound"), partial("Node", "", "node-1", "u-node"),
		webhookConfiguration("ValidatingWebhookConfiguration", "check", "u-check"), webhookConfiguration("MutatingWebhookConfiguration", "change", "u-change"))
	client := fake.NewClientset(testkit.Secret("team/new", testkit.WithData("token", "new token")))
	cached, err := cache.TokenSecrets(client, nil)
	if err != nil {
		t.Fatal(err)
	}
	old := testkit.Secret("team/old", testkit.WithData("token", "old token"))
	if err := cached.GetStore().Add(cache.NewTokenSecret(old, nil)); err != nil {
		t.Fatal(err)
	}
	accounts, err := live.CacheServiceAccounts(meta)
	if err != nil {
		t.Fatal(err)
	}
	if err := accounts.GetStore().Add(partial("ServiceAccount", "team", "cached", "u-cached")); err != nil {
		t.Fatal(err)
	}
	dead := live.Cluster{Metadata: meta, Secrets: client.CoreV1(), ServiceAccounts: accounts, TokenSecrets: cached}
	c := dead
	c.ServiceAccountsLiveness, c.TokenSecretsLiveness = alive(t, accounts), alive(t, cached)
	ctx := t.Context()
	object := func(found authenticator.Object, err error) (types.UID, error) {
		if err != nil {
			return "", err
		}
		return found.GetUID(), nil
	}
	sum := func(found authenticator.Secret, err error) (types.UID, error) {
		for _, text := range []string{"old token", "new token"} {
			if err == nil && found.Sum == sha256.Sum256([]byte(text)) {
				return types.UID(text), nil
			}
		}
		return "", err
	}
	for name, tc := range map[string]struct {
		read         func() (types.UID, error)
		want         types.UID
		wantRequests string
	}{
		"a cached account":         {func() (types.UID, error) { return object(c.ServiceAccount(ctx, "team", "cached")) }, "u-cached", ""},
		"an account that is new":   {func() (types.UID, error) { return object(c.ServiceAccount(ctx, "team", "robot")) }, "u-robot", "get serviceaccounts team/robot"},
		"no account":               {func() (types.UID, error) { return object(c.ServiceAccount(ctx, "team", "none")) }, "", "get serviceaccounts team/none"},
		"a pod":                    {func() (types.UID, error) { return object(c.Pod(ctx, "team", "app")) }, "u-app", "get pods team/app"},
		"a bound Secret":           {func() (types.UID, error) { return object(c.BoundSecret(ctx, "team", "bound")) }, "u-bound", "get secrets team/bound"},
		"a node":                   {func() (types.UID, error) { return object(c.Node(ctx, "node-1")) }, "u-node", "get nodes /node-1"},
		"a validating webhook":     {func() (types.UID, error) { return object(c.ValidatingWebhookConfiguration(ctx, "check")) }, "u-check", "get validatingwebhookconfigurations /check"},
		"a mutating webhook":       {func() (types.UID, error) { return object(c.MutatingWebhookConfiguration(ctx, "change")) }, "u-change", "get mutatingwebhookconfigurations /change"},
		"a webhook of that kind":   {func() (types.UID, error) { return object(c.MutatingWebhookConfiguration(ctx, "check")) }, "", "get mutatingwebhookconfigurations /check"},
		"a webhook that is a path": {func() (types.UID, error) { return object(c.ValidatingWebhookConfiguration(ctx, "a/b")) }, "", ""},
		"a cached account of a cache that is not alive": {func() (types.UID, error) { return object(dead.ServiceAccount(ctx, "team", "cached")) }, "", "get serviceaccounts team/cached"},
		"a cached token of a cache that is not alive":   {func() (types.UID, error) { return sum(dead.TokenSecret(ctx, "team", "old")) }, "", "get secrets team/old"},
		"a cached token":          {func() (types.UID, error) { return sum(c.TokenSecret(ctx, "team", "old")) }, "old token", ""},
		"a token that is new":     {func() (types.UID, error) { return sum(c.TokenSecret(ctx, "team", "new")) }, "new token", "get secrets team/new"},
		"no token":                {func() (types.UID, error) { return sum(c.TokenSecret(ctx, "team", "none")) }, "", "get secrets team/none"},
		"a name that is a path":   {func() (types.UID, error) { return object(c.Pod(ctx, "team", "../../nodes/node-1")) }, "", ""},
		"a namespace that is one": {func() (types.UID, error) { return sum(c.TokenSecret(ctx, "a/b", "new")) }, "", ""},
	} {
		meta.ClearActions()
		client.ClearActions()
		got, err := tc.read()
		if got != tc.want || (err == nil) != (tc.want != "") || (err != nil && !apierrors.IsNotFound(err)) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		if diff := cmp.Diff(tc.wantRequests, requests(append(meta.Actions(), client.Actions()...))); diff != "" {
			t.Errorf("%s: requests (-want +got):\n%s", name, diff)
		}
	}
}

// TestTheTrackerRecordsADayOnce, with the UID and version of the Secret that was used.
func TestTheTrackerRecordsADayOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := fake.NewClientset()
		var patches []string
		fail := error(nil)
		client.PrependReactor("patch", "secrets", func(action clienttesting.Action) (bool, runtime.Object, error) {
			patch := action.(clienttesting.PatchAction)
			var content map[string]any
			if err := json.Unmarshal(patch.GetPatch(), &content); err != nil {
				t.Error(err)
			}
			text, _ := json.Marshal(content["metadata"])
			patches = append(patches, patch.GetName()+" "+string(text))
			return true, &corev1.Secret{}, fail
		})
		tracker := live.NewTracker(client.CoreV1(), clock.RealClock{})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- tracker.Run(ctx) }()
		use := func(name, lastUsed string) {
			object := &metav1.ObjectMeta{Namespace: "team", Name: name, UID: types.UID("u-" + name), ResourceVersion: "7"}
			if lastUsed != "" {
				object.Labels = map[string]string{token.LastUsedLabel: lastUsed}
			}
			tracker.Used(authenticator.Secret{Object: object})
			synctest.Wait()
		}
		expect := func(what string, want ...string) {
			t.Helper()
			if diff := cmp.Diff(want, patches); diff != "" {
				t.Errorf("%s (-want +got):\n%s", what, diff)
			}
			patches = nil
		}
		const first = `{"labels":{"kubernetes.io/legacy-token-last-used":"2000-01-01"},"resourceVersion":"7","uid":"u-a"}`
		use("a", "")
		use("a", "")
		expect("the first use of a day", "a "+first)
		use("b", "2000-01-01")
		use("b", "2000-01-02")
		expect("recorded by another writer, whose clock may be ahead")
		fail = testkit.Conflict()
		use("c", "1999-12-31")
		fail = nil
		use("c", "1999-12-31")
		expect("a conflict", "c "+strings.Replace(first, "u-a", "u-c", 1), "c "+strings.Replace(first, "u-a", "u-c", 1))
		time.Sleep(24 * time.Hour)
		use("a", "2000-01-01")
		expect("the next day", "a "+strings.Replace(first, "01-01", "01-02", 1))
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
