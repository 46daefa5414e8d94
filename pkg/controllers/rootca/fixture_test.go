package rootca

import (
	"errors"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/clock"

	"github.com/sakeeper/sakeeper/pkg/cabundle"
	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/testkit/leaks"
)

func TestMain(m *testing.M) { leaks.Main(m) }

// fixture is a controller whose caches the test fills and whose writes all get the same
// response.
type fixture struct {
	*Controller
	client   *fake.Clientset
	recorder *record.FakeRecorder
}

func newFixture(t *testing.T, response error, cached ...metav1.Object) fixture {
	t.Helper()
	f := fixture{client: &fake.Clientset{}, recorder: record.NewFakeRecorder(100)}
	f.recorder.IncludeObject = true
	f.client.AddReactor("*", "*", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, &corev1.ConfigMap{}, response
	})
	f.Controller = newController(t, f.client, f.recorder, testkit.Bundle)
	for _, obj := range cached {
		var err error
		if cm, ok := obj.(*corev1.ConfigMap); ok {
			err = f.cfg.RootCAs.GetStore().Add(cache.NewRootCA(cm))
		} else {
			err = f.cfg.Namespaces.GetStore().Add(obj)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return f
}

func newController(t *testing.T, client *fake.Clientset, recorder record.EventRecorder, ca func() cabundle.Bundle) *Controller {
	t.Helper()
	cfg := Config{Client: client.CoreV1(), CA: ca, Recorder: recorder, Clock: clock.RealClock{}, Workers: 10}
	var errNamespaces, errRootCAs error
	cfg.Namespaces, errNamespaces = cache.Namespaces(client)
	cfg.RootCAs, errRootCAs = cache.RootCAs(client)
	c, err := New(cfg)
	if err := errors.Join(errNamespaces, errRootCAs, err); err != nil {
		t.Fatal(err)
	}
	testkit.EndQueue(t, c)
	return c
}

// configMap is team/kube-root-ca.crt as it should be, changed by opts.
func configMap(opts ...testkit.Option) *corev1.ConfigMap {
	return testkit.ConfigMap("team/kube-root-ca.crt", append([]testkit.Option{
		testkit.WithData("ca.crt", string(testkit.Bundle().PEM())), testkit.WithAnnotation("kubernetes.io/description", Description),
	}, opts...)...)
}

func createRequest(namespace string, ca cabundle.Bundle) testkit.Request {
	return testkit.Request{
		Verb: "create", Resource: "configmaps", Name: namespace + "/kube-root-ca.crt",
		Body: &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: namespace, Name: "kube-root-ca.crt",
				Annotations: map[string]string{"kubernetes.io/description": "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters."},
			},
			Data: map[string]string{"ca.crt": string(ca.PEM())},
		},
	}
}

// updateRequest is the PUT that repairs configMap(opts...).
func updateRequest(opts ...testkit.Option) testkit.Request {
	return testkit.Request{Verb: "update", Resource: "configmaps", Name: "team/kube-root-ca.crt", Body: configMap(opts...)}
}

// patchRequest is the patch that repairs a ConfigMap of which not everything is cached. It
// removes keys from data.
func patchRequest(keys ...string) testkit.Request {
	metadata := map[string]any{
		"uid": string(testkit.ConfigMapUID), "resourceVersion": testkit.ResourceVersion,
		"annotations": map[string]any{"kubernetes.io/description": Description},
	}
	data := map[string]any{"ca.crt": string(testkit.Bundle().PEM())}
	for _, key := range keys {
		data[key] = nil
	}
	return testkit.Request{
		Verb: "patch", Resource: "configmaps", Name: "team/kube-root-ca.crt",
		Body: map[string]any{"metadata": metadata, "data": data},
	}
}
