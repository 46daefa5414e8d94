package pullsecretcopy

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sakeeper/sakeeper/pkg/api/v1alpha1"
	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane/controlplanetest"
)

func TestWithARealAPIServer(t *testing.T) {
	p := newControlPlane(t)
	t.Run("a bad source is refused", p.testValidation)
	t.Run("one write makes a copy, none follows a restart, and what nobody names is deleted", p.testLife)
	t.Run("what changed while no controller ran", p.testChangesMeanwhile)
	t.Run("what others change in a copy is put right", p.testRepair)
	t.Run("a copy that is immutable, and one of another type, are replaced", p.testReplace)
	t.Run("a copy stays while its source is missing", p.testMissingSource)
	t.Run("sources that cannot be used are named", p.testBadSources)
	t.Run("a Secret that is no copy is left alone", p.testForeignSecret)
	t.Run("of two templates, the second by name is told", p.testConflict)
	t.Run("with rights in two namespaces alone", p.testNamespacedRights)
	t.Run("a definition without sources", p.testOldDefinition) // the last
}

func (p controlPlane) testValidation(t *testing.T) {
	type object = map[string]any
	cases := map[string]struct {
		in   any
		want string // empty: it is accepted
	}{
		"a source":                            {in: object{"namespace": "central", "name": "registry.example.com"}},
		"a source without a namespace":        {in: object{"name": "registry"}, want: "copyFrom.namespace: Required value"},
		"a source without a name":             {in: object{"namespace": "central"}, want: "copyFrom.name: Required value"},
		"a namespace that cannot be":          {in: object{"namespace": "a.b", "name": "registry"}, want: "should match"},
		"a namespace that is too long":        {in: object{"namespace": strings.Repeat("a", 64), "name": "registry"}, want: "Too long"},
		"a name that no Secret can have":      {in: object{"namespace": "central", "name": "A_b"}, want: "should match"},
		"an empty name":                       {in: object{"namespace": "central", "name": ""}, want: "should be at least 1 chars long"},
		"a source that is no object":          {in: "central/registry", want: "must be of type object"},
		"a source without namespace and name": {in: object{}, want: "Required value"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			template := randomName()
			err := p.tryCreate(t.Context(), template, object{"namespaceSelector": object{"matchLabels": object{"no": "namespace"}}, "imagePullSecrets": []object{{"name": "registry", "copyFrom": tc.in}}})
			defer p.remove(t, template)
			if tc.want == "" && err != nil || tc.want != "" && (!apierrors.IsInvalid(err) || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

func (p controlPlane) testLife(t *testing.T) {
	source, first, second := p.newSource(t, "one"), p.newNamespace(t, randomName()), p.newNamespace(t, randomName())
	r := p.run(t)
	mark := p.mark(t)
	p.create(t, "life", named("registry", central, source), first, second, central)
	for _, namespace := range []string{first, second, central} {
		p.expectCopy(t, namespace, "registry", "one")
	}
	p.expectCondition(t, "life", "Copied", "3 copies")
	got := p.requests(t, mark)
	if got["create secrets"] != 3 || got["get secrets"] == 0 || got["get secrets"] > 3 || len(got) != 2 {
		t.Errorf("requests for three copies: %v", got)
	}
	r.stop()

	mark = p.mark(t)
	r = p.run(t)
	p.expectCondition(t, "life", "Copied", "3 copies")
	if got := p.requests(t, mark); len(got) > 0 {
		t.Errorf("requests after a restart: %v", got)
	}
	p.patchSecret(t, central, source, map[string]any{"data": contents(corev1.SecretTypeDockerConfigJson, "two")})
	for _, namespace := range []string{first, second, central} {
		p.expectCopy(t, namespace, "registry", "two")
	}
	if got := p.requests(t, mark); got["patch secrets"] != 3 || got["get secrets"] > 3 || len(got) != 2 {
		t.Errorf("requests after a change of the source: %v", got)
	}
	p.change(t, "life", `{"imagePullSecrets":[{"name":"other","copyFrom":{"namespace":"central","name":"`+source+`"}}]}`)
	p.expectCopy(t, first, "other", "two")
	p.expectNoSecret(t, first, "registry")
	p.change(t, "life", `{"namespaceSelector":{"matchExpressions":null,"matchLabels":{"kubernetes.io/metadata.name":"`+first+`"}}}`)
	p.expectNoSecret(t, second, "other")
	p.expectCopy(t, first, "other", "two")
	p.change(t, "life", `{"imagePullSecrets":[{"name":"other"}]}`)
	p.expectNoSecret(t, first, "other")
	p.expectCondition(t, "life", "", "")
	r.stop()
}

func (p controlPlane) testChangesMeanwhile(t *testing.T) {
	source, other, first, second := p.newSource(t, "one"), p.newSource(t, "other"), p.newNamespace(t, randomName()), p.newNamespace(t, randomName())
	r := p.run(t)
	p.create(t, "goes", named("registry", central, source), first)
	p.create(t, "stays", named("registry", central, other), second)
	p.expectCopy(t, first, "registry", "one")
	p.expectCopy(t, second, "registry", "other")
	r.stop()
	p.remove(t, "goes")
	p.patchSecret(t, central, other, map[string]any{"data": contents(corev1.SecretTypeDockerConfigJson, "changed")})
	r = p.run(t)
	p.expectNoSecret(t, first, "registry")
	p.expectCopy(t, second, "registry", "changed")
	r.stop()
}

func (p controlPlane) testRepair(t *testing.T) {
	source, namespace := p.newSource(t, "one"), p.newNamespace(t, randomName())
	r := p.run(t)
	defer r.stop()
	p.create(t, "repair", named("registry", central, source), namespace)
	before := p.expectCopy(t, namespace, "registry", "one")
	for name, change := range map[string]map[string]any{
		"the credentials": {"data": contents(corev1.SecretTypeDockerConfigJson, "wrong")},
		"the notes":       {"metadata": map[string]any{"annotations": map[string]any{"sakeeper.io/copied-from": "nowhere", "sakeeper.io/copied-version": nil}}},
		"who owns what":   {"metadata": map[string]any{"managedFields": []any{map[string]any{}}}},
	} {
		t.Run(name, func(t *testing.T) {
			p.patchSecret(t, namespace, "registry", change)
			controlplanetest.Eventually(t, "it is right again", func(ctx context.Context) error {
				secret, err := p.Client.CoreV1().Secrets(namespace).Get(ctx, "registry", metav1.GetOptions{})
				if err != nil {
					return err
				}
				owned := false
				for _, entry := range secret.ManagedFields {
					owned = owned || entry.Manager == "sakeeper-pull-secret-copies" && strings.Contains(string(entry.FieldsV1.GetRawBytes()), "dockerconfigjson")
				}
				if diff := cmp.Diff(before.Data, secret.Data) + cmp.Diff(before.Annotations, secret.Annotations); diff != "" || !owned || secret.UID != before.UID {
					return fmt.Errorf("owned: %t, uid %s: %s", owned, secret.UID, diff)
				}
				return nil
			})
		})
	}
	p.deleteSecret(t, namespace, "registry")
	p.expectCopy(t, namespace, "registry", "one")
	// A key beside the credentials is no matter: kubelets do not read it.
	mark := p.mark(t)
	p.patchSecret(t, namespace, "registry", map[string]any{"data": map[string]any{"note": []byte("mine")}, "metadata": map[string]any{"labels": map[string]any{"mine": "yes"}}})
	p.change(t, "repair", `{"priority":1}`) // it is looked at again
	p.expectCondition(t, "repair", "Copied", "1 copies")
	if got := p.requests(t, mark); len(got) > 0 {
		t.Errorf("requests after another key was added: %v", got)
	}
	// Without the label, it is the user's.
	p.patchSecret(t, namespace, "registry", map[string]any{"metadata": map[string]any{"labels": map[string]any{"sakeeper.io/pull-secret": nil}}})
	p.expectCondition(t, "repair", "NotCopied", namespace+"/registry: "+inTheWay)
	p.remove(t, "repair")
	if _, err := p.Client.CoreV1().Secrets(namespace).Get(t.Context(), "registry", metav1.GetOptions{}); err != nil {
		t.Error(err)
	}
}

func (p controlPlane) testReplace(t *testing.T) {
	source, namespace := p.newSource(t, "one"), p.newNamespace(t, randomName())
	r := p.run(t)
	defer r.stop()
	p.create(t, "replace", named("registry", central, source), namespace)
	before := p.expectCopy(t, namespace, "registry", "one")
	p.patchSecret(t, namespace, "registry", map[string]any{"immutable": true})
	p.patchSecret(t, central, source, map[string]any{"data": contents(corev1.SecretTypeDockerConfigJson, "two")})
	after := p.expectCopy(t, namespace, "registry", "two")
	if after.UID == before.UID || after.Immutable != nil {
		t.Errorf("uid %s, immutable %v", after.UID, after.Immutable)
	}
	p.deleteSecret(t, central, source)
	p.newSecret(t, central, source, corev1.SecretTypeDockercfg, "two")
	controlplanetest.Eventually(t, "the copy has the other type", func(ctx context.Context) error {
		secret, err := p.Client.CoreV1().Secrets(namespace).Get(ctx, "registry", metav1.GetOptions{})
		if err == nil && secret.Type != corev1.SecretTypeDockercfg {
			err = fmt.Errorf("its type is %s", secret.Type)
		}
		return err
	})
	p.expectCopy(t, namespace, "registry", "two")
}

func (p controlPlane) testMissingSource(t *testing.T) {
	source, namespace := p.newSource(t, "one"), p.newNamespace(t, randomName())
	r := p.run(t)
	p.create(t, "missing", named("registry", central, source), namespace)
	p.expectCopy(t, namespace, "registry", "one")
	p.deleteSecret(t, central, source)
	told := namespace + "/registry: the source central/" + source + " does not exist"
	p.expectCondition(t, "missing", "NotCopied", told)
	controlplanetest.Eventually(t, "the event", func(context.Context) error {
		for _, event := range testkit.Events(r.events) {
			if strings.Contains(event, "Warning PullSecretNotCopied") && strings.Contains(event, told) {
				return nil
			}
		}
		return errors.New("no event")
	})
	p.expectCopy(t, namespace, "registry", "one")
	p.newSecret(t, central, source, corev1.SecretTypeDockerConfigJson, "two")
	p.expectCopy(t, namespace, "registry", "two")
	p.expectCondition(t, "missing", "Copied", "1 copies")
	p.deleteSecret(t, central, source)
	p.expectCondition(t, "missing", "NotCopied", told)
	p.remove(t, "missing")
	p.expectNoSecret(t, namespace, "registry")
	r.stop()
}

func (p controlPlane) testBadSources(t *testing.T) {
	source, namespace, elsewhere := p.newSource(t, "one"), p.newNamespace(t, randomName()), p.newNamespace(t, randomName())
	opaque := randomName()
	_, err := p.Client.CoreV1().Secrets(central).Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: opaque}, Data: contents(corev1.SecretTypeDockerConfigJson, "opaque")}, metav1.CreateOptions{})
	must(t, err)
	p.newSecret(t, elsewhere, "source", corev1.SecretTypeDockerConfigJson, "elsewhere")
	r := p.run(t)
	defer r.stop()
	p.create(t, "good", named("good", central, source), namespace, central)
	p.create(t, "opaque", named("opaque", central, opaque), namespace)
	p.create(t, "elsewhere", named("elsewhere", elsewhere, "source"), namespace)
	p.create(t, "chain", named("chain", central, "good"), namespace)
	p.create(t, "itself", named(source, central, source), central, namespace)
	p.expectCondition(t, "opaque", "NotCopied", namespace+"/opaque: the source central/"+opaque+" does not exist, or its type is neither ")
	p.expectCondition(t, "elsewhere", "NotCopied", namespace+"/elsewhere: the namespace of the source "+elsewhere+"/source is not one of --pull-secret-source-namespaces")
	p.expectCondition(t, "chain", "NotCopied", namespace+"/chain: the source central/good is a copy itself")
	p.expectCondition(t, "itself", "Copied", "1 copies")
	p.expectCondition(t, "good", "Copied", "2 copies")
	p.expectCopy(t, namespace, "good", "one")
	p.expectCopy(t, namespace, source, "one")
	list, err := p.Client.CoreV1().Secrets(namespace).List(t.Context(), metav1.ListOptions{})
	must(t, err)
	if len(list.Items) != 2 {
		t.Errorf("%d Secrets", len(list.Items))
	}
}

func (p controlPlane) testForeignSecret(t *testing.T) {
	source, namespace := p.newSource(t, "one"), p.newNamespace(t, randomName())
	p.newSecret(t, namespace, "registry", corev1.SecretTypeDockerConfigJson, "mine")
	r := p.run(t)
	defer r.stop()
	p.create(t, "foreign", named("registry", central, source), namespace)
	p.expectCondition(t, "foreign", "NotCopied", namespace+"/registry: "+inTheWay)
	// Another type cannot be a copy, whatever its label says.
	p.deleteSecret(t, namespace, "registry")
	_, err := p.Client.CoreV1().Secrets(namespace).Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "registry", Labels: map[string]string{"sakeeper.io/pull-secret": "copy"}}}, metav1.CreateOptions{})
	must(t, err)
	p.change(t, "foreign", `{"priority":1}`) // it is looked at again
	p.expectCondition(t, "foreign", "NotCopied", namespace+"/registry: "+inTheWay)
	secret, err := p.Client.CoreV1().Secrets(namespace).Get(t.Context(), "registry", metav1.GetOptions{})
	must(t, err)
	if secret.Type != corev1.SecretTypeOpaque || len(secret.Data) > 0 {
		t.Errorf("type %s, data %v", secret.Type, secret.Data)
	}
	p.deleteSecret(t, namespace, "registry")
	p.change(t, "foreign", `{"priority":2}`)
	p.expectCopy(t, namespace, "registry", "one")
	p.expectCondition(t, "foreign", "Copied", "1 copies")
}

func (p controlPlane) testConflict(t *testing.T) {
	one, two, namespace := p.newSource(t, "one"), p.newSource(t, "two"), p.newNamespace(t, randomName())
	r := p.run(t)
	defer r.stop()
	p.create(t, "conflict-a", named("registry", central, one), namespace)
	p.expectCopy(t, namespace, "registry", "one")
	p.create(t, "conflict-b", named("registry", central, two), namespace)
	p.expectCondition(t, "conflict-b", "Conflict", namespace+"/registry is copied from central/"+one+", as the template conflict-a of the same priority says")
	p.expectCopy(t, namespace, "registry", "one")
	p.change(t, "conflict-b", `{"priority":1}`)
	p.expectCopy(t, namespace, "registry", "two")
	p.expectCondition(t, "conflict-b", "Copied", "1 copies")
	p.remove(t, "conflict-b")
	p.expectCopy(t, namespace, "registry", "one")
}

// testNamespacedRights: with --pull-secret-target-namespaces, RoleBindings in these namespaces and those
// of the sources will do.
func (p controlPlane) testNamespacedRights(t *testing.T) {
	source, served, other := p.newSource(t, "one"), p.newNamespace(t, randomName()), p.newNamespace(t, randomName())
	user := rbacv1.Subject{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: randomName()}
	p.bind(t, user, "", "sakeeper:pull-secret-copy-controller")
	p.bind(t, user, central, "sakeeper:pull-secret-copy-controller:sources")
	p.bind(t, user, served, "sakeeper:pull-secret-copy-controller:copies")
	p.AwaitAllowed(t, user, "", rbacv1.PolicyRule{APIGroups: []string{"sakeeper.io"}, Resources: []string{"serviceaccounttemplates"}, Verbs: []string{"list"}})
	p.AwaitAllowed(t, user, central, controlplanetest.Rule("secrets", "get"))
	p.AwaitAllowed(t, user, served, controlplanetest.Rule("secrets", "delete"))
	config, err := p.User(user.Name)
	must(t, err)
	r := p.runAs(t, config, []string{central}, []string{served})
	defer r.stop()
	p.create(t, "namespaced", named("registry", central, source), served, other)
	p.expectCopy(t, served, "registry", "one")
	p.patchSecret(t, central, source, map[string]any{"data": contents(corev1.SecretTypeDockerConfigJson, "two")})
	p.expectCopy(t, served, "registry", "two")
	p.expectCondition(t, "namespaced", "Copied", "1 copies")
	if list, err := p.Client.CoreV1().Secrets(other).List(t.Context(), metav1.ListOptions{}); err != nil || len(list.Items) > 0 {
		t.Errorf("another namespace has %d Secrets, %v", len(list.Items), err)
	}
	p.remove(t, "namespaced")
	p.expectNoSecret(t, served, "registry")
}

// bind binds a ClusterRole in a namespace, or in all.
func (p controlPlane) bind(t *testing.T, subject rbacv1.Subject, namespace, role string) {
	t.Helper()
	meta := metav1.ObjectMeta{Namespace: namespace, Name: subject.Name}
	ref := rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role}
	var err error
	if namespace == "" {
		_, err = p.Client.RbacV1().ClusterRoleBindings().Create(t.Context(), &rbacv1.ClusterRoleBinding{ObjectMeta: meta, Subjects: []rbacv1.Subject{subject}, RoleRef: ref}, metav1.CreateOptions{})
	} else {
		_, err = p.Client.RbacV1().RoleBindings(namespace).Create(t.Context(), &rbacv1.RoleBinding{ObjectMeta: meta, Subjects: []rbacv1.Subject{subject}, RoleRef: ref}, metav1.CreateOptions{})
	}
	must(t, err)
}

// testOldDefinition: a definition from before copyFrom drops the field, and nothing is copied.
func (p controlPlane) testOldDefinition(t *testing.T) {
	source, namespace := p.newSource(t, "one"), p.newNamespace(t, randomName())
	const field = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/imagePullSecrets/items/properties/copyFrom"
	must(t, p.Client.CoreV1().RESTClient().Patch(types.JSONPatchType).AbsPath("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/serviceaccounttemplates.sakeeper.io").
		Body([]byte(`[{"op":"remove","path":"`+field+`"}]`)).Do(t.Context()).Error())
	controlplanetest.Eventually(t, "the old definition is served", func(ctx context.Context) error {
		if err := p.tryCreate(ctx, "old", v1alpha1.ServiceAccountTemplateSpec{ImagePullSecrets: []v1alpha1.PullSecret{named("registry", central, source)}}); err != nil {
			return err
		}
		body, err := p.Client.CoreV1().RESTClient().Get().AbsPath(templatesPath + "/old").Do(ctx).Raw()
		if err == nil && strings.Contains(string(body), "copyFrom") {
			p.remove(t, "old")
			err = errors.New("the field is there")
		}
		return err
	})
	r := p.run(t)
	defer r.stop()
	p.expectNoSecret(t, namespace, "registry")
}
