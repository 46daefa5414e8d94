package upgrade

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/token"
)

// team is the namespace with objects of all kinds.
const team = "team"

// withTokens are the Secrets of team with a plain token, and its key.
var withTokens = map[string]string{"legacy": corev1.ServiceAccountTokenKey, "managed": corev1.ServiceAccountTokenKey, "custom": "credential"}

// unknown is a name of a label or annotation that no revision knows yet.
const unknown = api.AnnotationPrefix + "of-a-newer-revision"

// create makes the namespace team and its objects, and waits until they are complete.
func (p plane) create(t *testing.T) {
	t.Helper()
	p.newNamespace(t, team, map[string]string{api.TokenRequestsLabel: api.TokenRequestsAllowed, unknown: "yes"})
	p.waitAccount(t, team)
	p.newAccount(t, team, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "robot", Annotations: map[string]string{unknown: "yes"}}})
	for _, secret := range secrets() {
		_, err := p.client.CoreV1().Secrets(team).Create(t.Context(), secret, metav1.CreateOptions{})
		must(t, err)
	}
	for secret, key := range map[string]string{
		"legacy": "token", "marked": "token", "managed": "token", "custom": "credential", "kubeconfig": "kubeconfig", "argocd": "config", "unknown": "token",
	} {
		eventually(t, "secret "+secret, func(ctx context.Context) error {
			_, err := p.tokenIn(ctx, secret, key)
			return err
		})
	}
	eventually(t, "kube-root-ca.crt", func(ctx context.Context) error {
		_, err := p.client.CoreV1().ConfigMaps(team).Patch(ctx, api.RootCAConfigMap, types.MergePatchType,
			fmt.Appendf(nil, `{"metadata":{"labels":{%q:"yes"}}}`, unknown), metav1.PatchOptions{})
		return err
	})
}

// secrets are Secrets of robot: with a token that does not expire, and with one that does in each
// format. Two have something wrong.
func secrets() []*corev1.Secret {
	managed := func(name string, more map[string]string) *corev1.Secret {
		annotations := map[string]string{api.ServiceAccountAnnotation: "robot"}
		maps.Copy(annotations, more)
		return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{api.TokenLabel: api.TokenManaged}, Annotations: annotations}}
	}
	return []*corev1.Secret{
		legacySecret("legacy", "robot", nil),
		legacySecret("marked", "robot", map[string]string{api.KeepAnnotation: "true", api.ResignAnnotation: "never", api.CleanUpUnusedAnnotation: "8760h", unknown: "yes"}),
		managed("managed", nil),
		managed("custom", map[string]string{api.FormatAnnotation: "custom", api.TokenKeyAnnotation: "credential"}),
		managed("kubeconfig", map[string]string{api.FormatAnnotation: "kubeconfig", api.ServerAnnotation: "https://api.example.com:6443"}),
		managed("argocd", map[string]string{api.FormatAnnotation: "argocd-cluster", api.ServerAnnotation: "https://api.example.com:6443"}),
		managed("unknown", map[string]string{unknown: "yes"}),
		managed("nobody", map[string]string{api.ServiceAccountAnnotation: "nobody"}),
	}
}

// legacySecret returns one that gets a token that does not expire.
func legacySecret(name, account string, more map[string]string) *corev1.Secret {
	annotations := map[string]string{corev1.ServiceAccountNameKey: account}
	maps.Copy(annotations, more)
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: annotations}, Type: corev1.SecretTypeServiceAccountToken}
}

// rotate asks for another token of a managed Secret, which the process that leads must answer.
func (p plane) rotate(t *testing.T, secret string) {
	t.Helper()
	p.waitRotated(t, secret, p.askToRotate(t, secret))
}

// askToRotate returns the id of the token until now.
func (p plane) askToRotate(t *testing.T, secret string) (former string) {
	t.Helper()
	found, err := p.client.CoreV1().Secrets(team).Get(t.Context(), secret, metav1.GetOptions{})
	must(t, err)
	_, err = p.client.CoreV1().Secrets(team).Patch(t.Context(), secret, types.MergePatchType,
		fmt.Appendf(nil, `{"metadata":{"annotations":{%q:"after %s"}}}`, api.RotateAnnotation, found.ResourceVersion), metav1.PatchOptions{})
	must(t, err)
	return found.Annotations[api.CredentialIDAnnotation]
}

// waitRotated waits until the token is another one, and returns its id.
func (p plane) waitRotated(t *testing.T, secret, former string) (id string) {
	t.Helper()
	eventually(t, "another token in "+secret, func(ctx context.Context) error {
		found, err := p.client.CoreV1().Secrets(team).Get(ctx, secret, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if id = found.Annotations[api.CredentialIDAnnotation]; id == former {
			return errors.New("it is the same")
		}
		return nil
	})
	return id
}

// kinds are the kinds of objects that sakeeper writes or reads.
func kinds() []schema.GroupVersionResource {
	return []schema.GroupVersionResource{
		{Version: "v1", Resource: "namespaces"}, {Version: "v1", Resource: "serviceaccounts"}, {Version: "v1", Resource: "secrets"}, {Version: "v1", Resource: "configmaps"},
		{Group: "sakeeper.io", Version: "v1alpha1", Resource: "serviceaccounttemplates"},
		{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "validatingadmissionpolicies"},
		{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "validatingadmissionpolicybindings"},
	}
}

// objects returns the namespace team with its objects, and all that are in no namespace, without what
// every write changes. Of field managers only that of templates is kept: it says what a template set.
// Values of Secrets are sums, so that a difference shows no token.
func (p plane) objects(t *testing.T) map[string]map[string]any {
	t.Helper()
	client, err := dynamic.NewForConfig(p.Admin)
	must(t, err)
	all := map[string]map[string]any{}
	for _, kind := range kinds() {
		list, err := client.Resource(kind).List(t.Context(), metav1.ListOptions{})
		if apierrors.IsNotFound(err) {
			continue // the kind is not defined
		}
		must(t, err)
		for _, object := range list.Items {
			if object.GetNamespace() == team || object.GetName() == team || object.GetNamespace() == "" && kind.Resource != "namespaces" {
				all[kind.Resource+" "+object.GetName()] = bare(object)
			}
		}
	}
	return all
}

// userObjects are objects without the policies, which are those of an overlay, and without what is wrong:
// not every revision writes that, nor at once.
func (p plane) userObjects(t *testing.T) map[string]map[string]any {
	t.Helper()
	all := p.objects(t)
	maps.DeleteFunc(all, func(name string, _ map[string]any) bool { return strings.HasPrefix(name, "validatingadmissionpolic") })
	for _, object := range all {
		unstructured.RemoveNestedField(object, "metadata", "annotations", api.ProblemAnnotation)
	}
	return all
}

func bare(object unstructured.Unstructured) map[string]any {
	object.SetResourceVersion("")
	var managers []metav1.ManagedFieldsEntry
	for _, manager := range object.GetManagedFields() {
		if manager.Manager == api.TemplateFieldManager {
			manager.Time = nil
			managers = append(managers, manager)
		}
	}
	object.SetManagedFields(managers)
	labels := object.GetLabels()
	delete(labels, token.LastUsedLabel) // the API server's
	if len(labels) == 0 {
		labels = nil
	}
	object.SetLabels(labels)
	if data, found, _ := unstructured.NestedStringMap(object.Object, "data"); found {
		for key, value := range data {
			data[key] = fmt.Sprintf("%x", sha256.Sum256([]byte(value)))
		}
		_ = unstructured.SetNestedStringMap(object.Object, data, "data") // a map of strings cannot fail
	}
	return object.Object
}

// expectSame fails where objects have changed, but for those Secrets whose token was rotated.
func expectSame(t *testing.T, when string, want, got map[string]map[string]any, rotated ...string) {
	t.Helper()
	want, got = maps.Clone(want), maps.Clone(got)
	for _, secret := range rotated {
		delete(want, "secrets "+secret)
		delete(got, "secrets "+secret)
	}
	if diff := cmp.Diff(slices.Sorted(maps.Keys(want)), slices.Sorted(maps.Keys(got))); diff != "" {
		t.Errorf("objects %s (-want +got):\n%s", when, diff)
	}
	for name, object := range want {
		if diff := cmp.Diff(object, got[name]); diff != "" && got[name] != nil {
			t.Errorf("%s %s (-want +got):\n%s", name, when, diff)
		}
	}
}
