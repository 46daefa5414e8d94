package accounttemplate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	utilrand "k8s.io/apimachinery/pkg/util/rand"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/ktesting"
	"k8s.io/utils/clock"

	"github.com/sakeeper/sakeeper/pkg/api/v1alpha1"
	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane/controlplanetest"
)

func TestWithARealAPIServer(t *testing.T) {
	p := newControlPlane(t)
	p.testMissingDefinition(t) // it leaves the definition there
	t.Run("a bad template is refused", p.testValidation)
	t.Run("one write sets the fields, none follows a restart, and what is not said is given back", p.testLife)
	t.Run("what changed while no controller ran is given back", p.testChangesMeanwhile)
	t.Run("what another manager set stays, and is named, until the template says force", p.testConflict)
	t.Run("what admission has set is owned, and given back", p.testAdmission)
	t.Run("missing accounts are created", p.testCreate)
	t.Run("only selected namespaces and accounts are written to", p.testSelection)
	t.Run("nothing is given back while a selector cannot be parsed", p.testInvalidSelector)
	t.Run("an account that the API server refuses is named", p.testRefused)
	t.Run("a definition that is deleted takes its templates along", p.testDeletedDefinition) // the last
}

// controlPlane is a real API server with the roles of manifests/.
type controlPlane struct{ *controlplanetest.Cluster }

func newControlPlane(t *testing.T) controlPlane {
	t.Helper()
	p := controlPlane{controlplanetest.Start(t)}
	must(t, p.Install(t.Context(), "account-templates"))
	return p
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// running is a controller that runs.
type running struct {
	*Controller
	events *record.FakeRecorder
	stop   func()
}

// run runs a controller as a process does, with the rights of its role.
func (p controlPlane) run(t *testing.T) running {
	t.Helper()
	config, err := p.ServiceAccount(controlplane.Namespace, controlplane.Account)
	must(t, err)
	config.QPS = -1
	r := running{events: record.NewFakeRecorder(1000)}
	r.Controller = newController(t, config, r.events)
	r.statusInterval = time.Second
	ctx := klog.NewContext(t.Context(), ktesting.NewLogger(t, ktesting.NewConfig(ktesting.Verbosity(2))))
	stop := testkit.Start(ctx, t, r.Run,
		testkit.Informer(r.cfg.Namespaces), testkit.Informer(r.cfg.Accounts), testkit.Informer(r.cfg.Templates.Informer))
	r.stop = sync.OnceFunc(stop)
	t.Cleanup(r.stop)
	return r
}

func newController(t *testing.T, config *rest.Config, recorder record.EventRecorder) *Controller {
	t.Helper()
	client, errClient := kubernetes.NewForConfig(config)
	templateClient, errTemplateClient := NewClient(config)
	must(t, errors.Join(errClient, errTemplateClient))
	namespaces, errNamespaces := cache.Namespaces(client)
	accounts, errAccounts := cache.Accounts(client)
	templates, errTemplates := NewTemplates(templateClient)
	must(t, errors.Join(errNamespaces, errAccounts, errTemplates))
	c, err := New(Config{
		Client: client.CoreV1(), Namespaces: namespaces, Accounts: accounts, Templates: templates,
		Recorder: recorder, Clock: clock.RealClock{}, Workers: 10,
	})
	must(t, err)
	return c
}

func (p controlPlane) runReady(t *testing.T) running {
	t.Helper()
	r := p.run(t)
	controlplanetest.Eventually(t, "ready", func(context.Context) error {
		if !r.Ready() {
			return fmt.Errorf("not ready: %w", r.Err())
		}
		return nil
	})
	return r
}

func (p controlPlane) templates(t *testing.T) Client {
	t.Helper()
	client, err := NewClient(p.Admin)
	must(t, err)
	return client
}

// create creates a template, which is deleted after the test.
func (p controlPlane) create(t *testing.T, name string, spec v1alpha1.ServiceAccountTemplateSpec) {
	t.Helper()
	must(t, p.tryCreate(t.Context(), &v1alpha1.ServiceAccountTemplate{
		TypeMeta: metav1.TypeMeta{APIVersion: "sakeeper.io/v1alpha1", Kind: "ServiceAccountTemplate"}, ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: spec,
	}))
	t.Cleanup(func() { p.remove(t, name) })
}

func (p controlPlane) tryCreate(ctx context.Context, template any) error {
	body, err := json.Marshal(template)
	if err != nil {
		return err
	}
	return p.Client.CoreV1().RESTClient().Post().AbsPath("/apis/sakeeper.io/v1alpha1/serviceaccounttemplates").
		SetHeader("Content-Type", "application/json").Body(body).Do(ctx).Error()
}

// remove deletes a template, if it is still there.
func (p controlPlane) remove(t *testing.T, name string) {
	t.Helper()
	err := p.Client.CoreV1().RESTClient().Delete().AbsPath("/apis/sakeeper.io/v1alpha1/serviceaccounttemplates/" + name).Do(context.Background()).Error()
	if err != nil && !apierrors.IsNotFound(err) {
		t.Error(err)
	}
}

// change patches the spec of a template.
func (p controlPlane) change(t *testing.T, name, spec string) {
	t.Helper()
	_, err := p.templates(t).Patch(t.Context(), name, types.MergePatchType, []byte(`{"spec":`+spec+`}`), metav1.PatchOptions{})
	must(t, err)
}

// newNamespace creates a namespace with the label test=<its name> and the ServiceAccount default.
func (p controlPlane) newNamespace(t *testing.T) string {
	t.Helper()
	name := "t-" + utilrand.String(8)
	_, err := p.Client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"test": name}}}, metav1.CreateOptions{})
	must(t, err)
	p.newAccount(t, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: name, Name: "default"}})
	return name
}

func (p controlPlane) newAccount(t *testing.T, account *corev1.ServiceAccount) {
	t.Helper()
	_, err := p.Client.CoreV1().ServiceAccounts(account.Namespace).Create(t.Context(), account, metav1.CreateOptions{FieldManager: "user"})
	must(t, err)
}

// in selects the namespaces of a test.
func in(namespaces ...string) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "test", Operator: metav1.LabelSelectorOpIn, Values: namespaces}}}
}

// hardened are the fields of most tests.
func hardened(namespaces ...string) v1alpha1.ServiceAccountTemplateSpec {
	return v1alpha1.ServiceAccountTemplateSpec{
		NamespaceSelector:            in(namespaces...),
		Labels:                       map[string]v1alpha1.LabelValue{"hardened": "true"},
		AutomountServiceAccountToken: new(false),
		ImagePullSecrets:             []v1alpha1.PullSecret{{Name: "registry"}},
	}
}

// looks describes an account: its labels, annotations, automount and pull secrets.
func (p controlPlane) looks(ctx context.Context, namespace, name string) (string, error) {
	account, err := p.Client.CoreV1().ServiceAccounts(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	var secrets []string
	for _, secret := range account.ImagePullSecrets {
		secrets = append(secrets, secret.Name)
	}
	automount := "unset"
	if account.AutomountServiceAccountToken != nil {
		automount = fmt.Sprint(*account.AutomountServiceAccountToken)
	}
	return strings.ReplaceAll(fmt.Sprintf("labels%v annotations%v %s %v", account.Labels, account.Annotations, automount, secrets), "map[", "["), nil
}

const (
	plain   = "labels[] annotations[] unset []"
	allSet  = "labels[hardened:true] annotations[] false [registry]"
	oneList = "labels[hardened:true] annotations[] false [theirs]"
)

func (p controlPlane) expectLooks(t *testing.T, namespace, name, want string) {
	t.Helper()
	controlplanetest.Eventually(t, namespace+"/"+name+" looks like "+want, func(ctx context.Context) error {
		got, err := p.looks(ctx, namespace, name)
		if err == nil && got != want {
			err = errors.New("it looks like " + got)
		}
		return err
	})
}

// expectCondition waits for a condition of a template whose message contains text.
func (p controlPlane) expectCondition(t *testing.T, template, kind string, status metav1.ConditionStatus, text string) v1alpha1.ServiceAccountTemplateStatus {
	t.Helper()
	var found v1alpha1.ServiceAccountTemplateStatus
	controlplanetest.Eventually(t, fmt.Sprint("condition ", kind, " ", status, " of ", template), func(ctx context.Context) error {
		list, err := p.templates(t).List(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + template})
		if err != nil || len(list.Items) != 1 {
			return fmt.Errorf("%d templates: %w", len(list.Items), err)
		}
		found = list.Items[0].Status
		condition := meta.FindStatusCondition(found.Conditions, kind)
		if condition == nil || condition.Status != status || !strings.Contains(condition.Message, text) || condition.ObservedGeneration != list.Items[0].Generation {
			return fmt.Errorf("the conditions are %+v", found.Conditions)
		}
		return nil
	})
	return found
}

// writes are the writes of ServiceAccounts by the controller since mark.
func (p controlPlane) writes(t *testing.T, mark controlplane.Mark) []string {
	t.Helper()
	requests, err := p.Audit.Since(t.Context(), mark, func(r controlplane.Request) bool {
		return r.User.Username == controlplane.Username && r.Object.Resource == "serviceaccounts" && !slices.Contains([]string{"list", "watch"}, r.Verb)
	})
	must(t, err)
	var writes []string
	for _, r := range requests {
		writes = append(writes, fmt.Sprintf("%s %s/%s", r.Verb, r.Object.Namespace, r.Object.Name))
	}
	return writes
}

func (p controlPlane) mark(t *testing.T) controlplane.Mark {
	t.Helper()
	mark, err := p.Audit.Mark(t.Context())
	must(t, err)
	return mark
}

func (p controlPlane) testMissingDefinition(t *testing.T) {
	t.Helper()
	p.deleteDefinition(t)
	controlplanetest.Eventually(t, "the definition is gone", func(ctx context.Context) error {
		if _, err := p.templates(t).List(ctx, metav1.ListOptions{}); !apierrors.IsNotFound(err) {
			return fmt.Errorf("templates are served: %w", err)
		}
		return nil
	})
	r := p.run(t)
	defer r.stop()
	controlplanetest.Eventually(t, "the missing definition is named", func(context.Context) error {
		if r.Ready() || !errors.Is(r.Err(), errNoDefinition) {
			return fmt.Errorf("ready: %t: %w", r.Ready(), r.Err())
		}
		return nil
	})
	must(t, p.Install(t.Context(), "account-templates"))
	controlplanetest.Eventually(t, "ready", func(context.Context) error {
		if !r.Ready() {
			return fmt.Errorf("not ready: %w", r.Err())
		}
		return nil
	})
}

func (p controlPlane) deleteDefinition(t *testing.T) {
	t.Helper()
	const path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/serviceaccounttemplates.sakeeper.io"
	must(t, p.Client.CoreV1().RESTClient().Delete().AbsPath(path).Do(t.Context()).Error())
}

func (p controlPlane) testDeletedDefinition(t *testing.T) {
	namespace := p.newNamespace(t)
	r := p.runReady(t)
	p.create(t, "deleted", hardened(namespace))
	p.expectLooks(t, namespace, "default", allSet)
	p.deleteDefinition(t)
	p.expectLooks(t, namespace, "default", plain)
	controlplanetest.Eventually(t, "the missing definition is named", func(context.Context) error {
		if r.Ready() || !errors.Is(r.Err(), errNoDefinition) {
			return fmt.Errorf("ready: %t: %w", r.Ready(), r.Err())
		}
		return nil
	})
}

func (p controlPlane) testValidation(t *testing.T) {
	type object = map[string]any
	cases := map[string]struct {
		inSpec object
		want   string // empty: it is accepted
	}{
		"an empty template":                  {inSpec: object{}},
		"names and a selector":               {inSpec: object{"names": []string{"a"}, "serviceAccountSelector": object{}}, want: "names and serviceAccountSelector exclude each other"},
		"to create what a selector selects":  {inSpec: object{"create": true, "serviceAccountSelector": object{}}, want: "create needs names"},
		"to create names":                    {inSpec: object{"create": true, "names": []string{"a"}}},
		"no names":                           {inSpec: object{"names": []string{}}, want: "should have at least 1 items"},
		"a name twice":                       {inSpec: object{"names": []string{"a", "a"}}, want: "Duplicate value"},
		"a name that no account can have":    {inSpec: object{"names": []string{"A_b"}}, want: "should match"},
		"a label":                            {inSpec: object{"labels": object{"example.com/team": "blue", "plain": ""}}},
		"a label under kubernetes.io":        {inSpec: object{"labels": object{"kubernetes.io/name": "x"}}, want: "keys under kubernetes.io and k8s.io cannot be set"},
		"a label under a part of k8s.io":     {inSpec: object{"labels": object{"node.k8s.io/name": "x"}}, want: "keys under kubernetes.io and k8s.io cannot be set"},
		"a label key that is none":           {inSpec: object{"labels": object{"-a": "x"}}, want: "a key is not one of a label"},
		"a label value that is none":         {inSpec: object{"labels": object{"a": "x y"}}, want: "should match"},
		"an annotation":                      {inSpec: object{"annotations": object{"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/x"}}},
		"a domain that ends like kubernetes": {inSpec: object{"annotations": object{"mykubernetes.io/a": "x"}}},
		"an annotation under kubernetes.io":  {inSpec: object{"annotations": object{"Kubernetes.io/enforce-mountable-secrets": "true"}}, want: "keys under kubernetes.io and k8s.io cannot be set"},
		"an annotation key that is none":     {inSpec: object{"annotations": object{"a b": "x"}}, want: "a key is not one of an annotation"},
		"a pull secret twice":                {inSpec: object{"imagePullSecrets": []object{{"name": "a"}, {"name": "a"}}}, want: "Duplicate value"},
		"a pull secret without a name":       {inSpec: object{"imagePullSecrets": []object{{}}}, want: "name: Required value"},
		"a priority that is no number":       {inSpec: object{"priority": "high"}, want: "priority"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			template := "v-" + utilrand.String(8)
			err := p.tryCreate(t.Context(), object{
				"apiVersion": "sakeeper.io/v1alpha1", "kind": "ServiceAccountTemplate", "metadata": object{"name": template}, "spec": tc.inSpec,
			})
			defer p.remove(t, template)
			if tc.want == "" && err != nil || tc.want != "" && (!apierrors.IsInvalid(err) || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

func (p controlPlane) testLife(t *testing.T) {
	namespace := p.newNamespace(t)
	r := p.runReady(t)
	mark := p.mark(t)
	p.create(t, "life", hardened(namespace))
	p.expectLooks(t, namespace, "default", allSet)
	status := p.expectCondition(t, "life", v1alpha1.ConditionReady, metav1.ConditionTrue, "")
	if *status.Namespaces != 1 || *status.ServiceAccounts != 1 || meta.IsStatusConditionTrue(status.Conditions, v1alpha1.ConditionConflict) {
		t.Errorf("status %+v", status)
	}
	want := []string{"patch " + namespace + "/default"}
	if diff := cmp.Diff(want, p.writes(t, mark)); diff != "" {
		t.Errorf("writes (-want +got):\n%s", diff)
	}
	r.stop()

	mark = p.mark(t)
	r = p.runReady(t)
	if writes := p.writes(t, mark); len(writes) > 0 {
		t.Errorf("writes after a restart: %v", writes)
	}
	p.change(t, "life", `{"labels":null,"automountServiceAccountToken":true}`)
	p.expectLooks(t, namespace, "default", "labels[] annotations[] true [registry]")
	p.remove(t, "life")
	p.expectLooks(t, namespace, "default", plain)
	account, err := p.Client.CoreV1().ServiceAccounts(namespace).Get(t.Context(), "default", metav1.GetOptions{})
	must(t, err)
	for _, entry := range account.ManagedFields {
		if entry.Manager == "sakeeper-account-templates" {
			t.Errorf("the field manager still owns %s", entry.FieldsV1.GetRawBytes())
		}
	}
	r.stop()
}

func (p controlPlane) testChangesMeanwhile(t *testing.T) {
	first, second := p.newNamespace(t), p.newNamespace(t)
	r := p.runReady(t)
	p.create(t, "goes", hardened(first))
	p.create(t, "stays", hardened(second))
	p.expectLooks(t, first, "default", allSet)
	p.expectLooks(t, second, "default", allSet)
	r.stop()
	p.remove(t, "goes")
	p.change(t, "stays", `{"imagePullSecrets":[{"name":"other"}]}`)
	p.runReady(t)
	p.expectLooks(t, first, "default", plain)
	p.expectLooks(t, second, "default", "labels[hardened:true] annotations[] false [other]")
}

func (p controlPlane) testConflict(t *testing.T) {
	namespace := p.newNamespace(t)
	p.newAccount(t, &corev1.ServiceAccount{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "builder"}, ImagePullSecrets: []corev1.LocalObjectReference{{Name: "theirs"}},
	})
	r := p.runReady(t)
	spec := hardened(namespace)
	spec.Names = []v1alpha1.ObjectName{"builder"}
	p.create(t, "conflict", spec)
	p.expectLooks(t, namespace, "builder", oneList)
	const told = `/builder: imagePullSecrets is set by the field manager "user"`
	p.expectCondition(t, "conflict", v1alpha1.ConditionConflict, metav1.ConditionTrue, namespace+told)
	p.expectCondition(t, "conflict", v1alpha1.ConditionReady, metav1.ConditionTrue, "")
	controlplanetest.Eventually(t, "the event", func(context.Context) error {
		for _, event := range testkit.Events(r.events) {
			if strings.Contains(event, "Warning TemplateConflict") && strings.Contains(event, told) {
				return nil
			}
		}
		return errors.New("no event")
	})

	p.change(t, "conflict", `{"force":true}`)
	p.expectLooks(t, namespace, "builder", allSet)
	p.expectCondition(t, "conflict", v1alpha1.ConditionConflict, metav1.ConditionFalse, "")

	// Another manager takes the field by an apply with force. It may go back to the template only
	// with force, which the template does not say any more.
	p.change(t, "conflict", `{"force":false}`)
	p.expectCondition(t, "conflict", v1alpha1.ConditionConflict, metav1.ConditionFalse, "")
	theirs := applycorev1.ServiceAccount("builder", namespace).WithImagePullSecrets(applycorev1.LocalObjectReference().WithName("theirs"))
	_, err := p.Client.CoreV1().ServiceAccounts(namespace).Apply(t.Context(), theirs, metav1.ApplyOptions{FieldManager: "gitops", Force: true})
	must(t, err)
	p.expectCondition(t, "conflict", v1alpha1.ConditionConflict, metav1.ConditionTrue, `the field manager "gitops"`)
	p.remove(t, "conflict")
	p.expectLooks(t, namespace, "builder", "labels[] annotations[] unset [theirs]")
}

// testAdmission: what a mutating policy set at the creation of an account has no field manager.
func (p controlPlane) testAdmission(t *testing.T) {
	must(t, p.Install(t.Context(), "policies/account-defaults"))
	namespace := p.newNamespace(t)
	_, err := p.Client.CoreV1().Namespaces().Patch(t.Context(), namespace, types.MergePatchType, []byte(`{"metadata":{"labels":{"sakeeper.io/account-defaults":"enabled"}}}`), metav1.PatchOptions{})
	must(t, err)
	const set = "labels[] annotations[] false []"
	controlplanetest.Eventually(t, "the policy sets automount", func(ctx context.Context) error {
		accounts := p.Client.CoreV1().ServiceAccounts(namespace)
		if err := accounts.Delete(ctx, "default", metav1.DeleteOptions{}); err != nil {
			return err
		}
		if _, err := accounts.Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}, metav1.CreateOptions{}); err != nil {
			return err
		}
		got, err := p.looks(ctx, namespace, "default")
		if err == nil && got != set {
			err = errors.New("the account looks like " + got)
		}
		return err
	})
	p.runReady(t)
	mark := p.mark(t)
	p.create(t, "admission", v1alpha1.ServiceAccountTemplateSpec{NamespaceSelector: in(namespace), AutomountServiceAccountToken: new(false)})
	p.expectCondition(t, "admission", v1alpha1.ConditionReady, metav1.ConditionTrue, "")
	p.expectLooks(t, namespace, "default", set)
	if diff := cmp.Diff([]string{"patch " + namespace + "/default"}, p.writes(t, mark)); diff != "" {
		t.Errorf("writes (-want +got):\n%s", diff)
	}
	p.remove(t, "admission")
	p.expectLooks(t, namespace, "default", plain)
}

func (p controlPlane) testCreate(t *testing.T) {
	namespace := p.newNamespace(t)
	p.runReady(t)
	spec := hardened(namespace)
	spec.Names, spec.Create = []v1alpha1.ObjectName{"deployer", "default"}, true
	mark := p.mark(t)
	p.create(t, "create", spec)
	p.expectLooks(t, namespace, "deployer", allSet)
	p.expectLooks(t, namespace, "default", allSet)
	must(t, p.Client.CoreV1().ServiceAccounts(namespace).Delete(t.Context(), "deployer", metav1.DeleteOptions{}))
	p.expectLooks(t, namespace, "deployer", allSet)
	got := p.writes(t, mark)
	slices.Sort(got)
	if diff := cmp.Diff([]string{"patch " + namespace + "/default", "patch " + namespace + "/deployer", "patch " + namespace + "/deployer"}, got); diff != "" {
		t.Errorf("writes (-want +got):\n%s", diff)
	}
	p.remove(t, "create")
	p.expectLooks(t, namespace, "deployer", plain)
}

func (p controlPlane) testSelection(t *testing.T) {
	selected, other, terminating := p.newNamespace(t), p.newNamespace(t), p.newNamespace(t)
	p.newAccount(t, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: selected, Name: "labelled", Labels: map[string]string{"tier": "web"}}})
	p.newAccount(t, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: "default"}})
	// It stays, because nothing removes its finalizer here.
	must(t, p.Client.CoreV1().Namespaces().Delete(t.Context(), terminating, metav1.DeleteOptions{}))
	p.runReady(t)
	spec := hardened(selected, terminating)
	spec.NamespaceSelector, spec.ServiceAccountSelector = in(selected, terminating), &metav1.LabelSelector{MatchLabels: map[string]string{"tier": "web"}}
	p.create(t, "selected-by-label", spec)
	everywhere := v1alpha1.ServiceAccountTemplateSpec{Annotations: map[string]v1alpha1.AnnotationValue{"example.com/seen": "yes"}, Priority: -1}
	p.create(t, "everywhere", everywhere)

	p.expectLooks(t, selected, "labelled", "labels[hardened:true tier:web] annotations[] false [registry]")
	const seen = "labels[] annotations[example.com/seen:yes] unset []"
	p.expectLooks(t, selected, "default", seen)
	p.expectLooks(t, other, "default", seen)
	p.expectCondition(t, "everywhere", v1alpha1.ConditionReady, metav1.ConditionTrue, "")
	p.expectLooks(t, terminating, "default", plain)
	p.expectLooks(t, metav1.NamespaceSystem, "default", plain)
	p.change(t, "everywhere", `{"namespaceSelector":{"matchExpressions":[{"key":"kubernetes.io/metadata.name","operator":"In","values":["kube-system"]}]}}`)
	p.expectLooks(t, metav1.NamespaceSystem, "default", seen)
	p.expectLooks(t, other, "default", plain)

	// A namespace that gets its label later.
	_, err := p.Client.CoreV1().Namespaces().Patch(t.Context(), other, types.MergePatchType, []byte(`{"metadata":{"labels":{"test":"`+selected+`"}}}`), metav1.PatchOptions{})
	must(t, err)
	p.newAccount(t, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: other, Name: "labelled", Labels: map[string]string{"tier": "web"}}})
	p.expectLooks(t, other, "labelled", "labels[hardened:true tier:web] annotations[] false [registry]")
}

func (p controlPlane) testInvalidSelector(t *testing.T) {
	first, second := p.newNamespace(t), p.newNamespace(t)
	p.runReady(t)
	p.create(t, "invalid", hardened(first))
	p.create(t, "valid", hardened(second))
	p.expectLooks(t, first, "default", allSet)
	p.expectLooks(t, second, "default", allSet)
	p.change(t, "invalid", `{"namespaceSelector":{"matchExpressions":[{"key":"test","operator":"Like","values":["x"]}]}}`)
	p.expectCondition(t, "invalid", v1alpha1.ConditionReady, metav1.ConditionFalse, `"Like" is not a valid label selector operator`)
	p.change(t, "valid", `{"labels":{"hardened":"more"}}`)
	p.expectLooks(t, second, "default", "labels[hardened:more] annotations[] false [registry]")
	p.expectLooks(t, first, "default", allSet)
	p.remove(t, "invalid")
	p.expectLooks(t, first, "default", plain)
}

func (p controlPlane) testRefused(t *testing.T) {
	namespace := p.newNamespace(t)
	p.runReady(t)
	spec := hardened(namespace)
	// Each is allowed, but all of them are more than an object may have.
	spec.Annotations = map[string]v1alpha1.AnnotationValue{}
	p.create(t, "refused", spec)
	p.expectLooks(t, namespace, "default", allSet)
	for i := range 3 {
		extra := hardened(namespace)
		extra.Annotations = map[string]v1alpha1.AnnotationValue{}
		for j := range 32 {
			extra.Annotations[fmt.Sprintf("example.com/a%d-%d", i, j)] = v1alpha1.AnnotationValue(strings.Repeat("x", 4000))
		}
		p.create(t, fmt.Sprint("refused-", i), extra)
	}
	p.expectCondition(t, "refused", v1alpha1.ConditionReady, metav1.ConditionFalse, namespace+"/default: apply templates to service account "+namespace+"/default: ")
	for i := range 3 {
		p.remove(t, fmt.Sprint("refused-", i))
	}
	p.expectCondition(t, "refused", v1alpha1.ConditionReady, metav1.ConditionTrue, "")
	p.expectLooks(t, namespace, "default", allSet)
}
