package accounttemplate

import (
	"context"
	"errors"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/record"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/sakeeper/sakeeper/pkg/api/v1alpha1"
	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/testkit/leaks"
)

func TestMain(m *testing.M) { leaks.Main(m) }

// template is a ServiceAccountTemplate; change may be nil.
func template(name string, change func(*v1alpha1.ServiceAccountTemplateSpec)) *v1alpha1.ServiceAccountTemplate {
	t := &v1alpha1.ServiceAccountTemplate{ObjectMeta: metav1.ObjectMeta{Name: name, UID: testkit.OtherUID, ResourceVersion: testkit.ResourceVersion, Generation: 1}}
	if change != nil {
		change(&t.Spec)
	}
	return t
}

// owner is an entry of managedFields.
func owner(manager string, fields string) metav1.ManagedFieldsEntry {
	operation := metav1.ManagedFieldsOperationUpdate
	if manager == "sakeeper-account-templates" {
		operation = metav1.ManagedFieldsOperationApply
	}
	return metav1.ManagedFieldsEntry{Manager: manager, Operation: operation, APIVersion: "v1", FieldsType: "FieldsV1", FieldsV1: metav1.NewFieldsV1(fields)}
}

// owned sets managedFields.
func owned(entries ...metav1.ManagedFieldsEntry) testkit.Option {
	return func(o metav1.Object) { o.SetManagedFields(entries) }
}

// ours and theirs own fields.
func ours(fields string) metav1.ManagedFieldsEntry {
	return owner("sakeeper-account-templates", fields)
}
func theirs(fields string) metav1.ManagedFieldsEntry { return owner("user", fields) }

// inherited is what the API server notes if admission set automount.
func inherited() metav1.ManagedFieldsEntry { return owner("before-first-apply", ownsAutomount) }

// nothing is an entry that owns no field that a template may set.
func nothing() metav1.ManagedFieldsEntry { return owner("creator", `{"f:secrets":{}}`) }

func automount(value bool) testkit.Option {
	return func(o metav1.Object) { o.(*corev1.ServiceAccount).AutomountServiceAccountToken = &value }
}

func pullSecrets(names ...string) testkit.Option {
	return func(o metav1.Object) {
		for _, name := range names {
			account := o.(*corev1.ServiceAccount)
			account.ImagePullSecrets = append(account.ImagePullSecrets, corev1.LocalObjectReference{Name: name})
		}
	}
}

func account(opts ...testkit.Option) *corev1.ServiceAccount {
	return testkit.ServiceAccount("team/default", append([]testkit.Option{owned(nothing())}, opts...)...)
}

// fakeTemplates records the patches of templates, and answers them with response.
type fakeTemplates struct {
	patches  []string
	response error
}

var errUnexpected = errors.New("unexpected request")

func (*fakeTemplates) List(context.Context, metav1.ListOptions) (*v1alpha1.ServiceAccountTemplateList, error) {
	return nil, errUnexpected
}

func (*fakeTemplates) Watch(context.Context, metav1.ListOptions) (watch.Interface, error) {
	return nil, errUnexpected
}

func (f *fakeTemplates) Patch(_ context.Context, name string, _ types.PatchType, patch []byte, _ metav1.PatchOptions, _ ...string) (*v1alpha1.ServiceAccountTemplate, error) {
	f.patches = append(f.patches, name+" "+string(patch))
	return &v1alpha1.ServiceAccountTemplate{}, f.response
}

// fixture is a controller whose caches the test fills and whose writes of ServiceAccounts all get the
// same response.
type fixture struct {
	*Controller
	client    *fake.Clientset
	templates *fakeTemplates
	recorder  *record.FakeRecorder
	clock     *clocktesting.FakePassiveClock
}

func newFixture(t *testing.T, response error, cached ...metav1.Object) fixture {
	t.Helper()
	f := fixture{
		client: &fake.Clientset{}, templates: &fakeTemplates{}, recorder: record.NewFakeRecorder(100),
		clock: clocktesting.NewFakePassiveClock(testkit.Instant()),
	}
	f.recorder.IncludeObject = true
	f.client.AddReactor("*", "*", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, &corev1.ServiceAccount{}, response
	})
	namespaces, errNamespaces := cache.Namespaces(f.client)
	accounts, errAccounts := cache.Accounts(f.client)
	templates, errTemplates := NewTemplates(f.templates)
	var err error
	f.Controller, err = New(Config{
		Client: f.client.CoreV1(), Namespaces: namespaces, Accounts: accounts, Templates: templates,
		Recorder: f.recorder, Clock: f.clock, Workers: 1,
	})
	if err := errors.Join(errNamespaces, errAccounts, errTemplates, err); err != nil {
		t.Fatal(err)
	}
	testkit.EndQueue(t, f.Controller)
	for _, obj := range cached {
		f.cache(t, obj)
	}
	return f
}

func (f fixture) cache(t *testing.T, obj metav1.Object) {
	t.Helper()
	var err error
	switch o := obj.(type) {
	case *corev1.ServiceAccount:
		err = f.cfg.Accounts.GetStore().Add(cache.NewAccount(o))
	case *v1alpha1.ServiceAccountTemplate:
		err = f.cfg.Templates.Informer.GetStore().Add(cache.NewTemplate(o))
	default:
		err = f.cfg.Namespaces.GetStore().Add(o)
	}
	if err != nil {
		t.Fatal(err)
	}
}
