package pullsecretcopy

import (
	"context"
	"errors"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	metadatafake "k8s.io/client-go/metadata/fake"
	clienttesting "k8s.io/client-go/testing"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/sakeeper/sakeeper/pkg/api/v1alpha1"
	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/testkit/leaks"
)

func TestMain(m *testing.M) { leaks.Main(m) }

const (
	sourceUID = types.UID("f0000000-0000-4000-8000-000000000003")
	// marked is a credential that must be nowhere but in Secrets.
	marked = "c3VwZXItc2VjcmV0LW1hcmtlZA"
	config = `{"auths":{"registry.example.com":{"auth":"dXNlcjpzdXBlci1zZWNyZXQtbWFya2Vk","password":"` + marked + `"}}}`
)

// named returns an entry of imagePullSecrets with a source.
func named(name, namespace, source string) v1alpha1.PullSecret {
	return v1alpha1.PullSecret{Name: v1alpha1.ObjectName(name), CopyFrom: &v1alpha1.PullSecretSource{Namespace: v1alpha1.NamespaceName(namespace), Name: v1alpha1.ObjectName(source)}}
}

// template is one for all namespaces.
func template(name string, priority int32, secrets ...v1alpha1.PullSecret) *v1alpha1.ServiceAccountTemplate {
	return &v1alpha1.ServiceAccountTemplate{
		ObjectMeta: metav1.ObjectMeta{Name: name, UID: testkit.OtherUID, ResourceVersion: testkit.ResourceVersion, Generation: 1},
		Spec:       v1alpha1.ServiceAccountTemplateSpec{Priority: priority, ImagePullSecrets: secrets},
	}
}

// registry copies central/source to every namespace.
func registry() *v1alpha1.ServiceAccountTemplate {
	return template("registry", 0, named("registry", "central", "source"))
}

// invalid is a template whose selector cannot be parsed.
func invalid() *v1alpha1.ServiceAccountTemplate {
	t := template("invalid", 0)
	t.Spec.NamespaceSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"a b": "c"}}
	return t
}

func secret(key string, uid types.UID, version string) *corev1.Secret {
	return testkit.Secret(key, testkit.WithUID(uid), testkit.WithResourceVersion(version), testkit.WithData(corev1.DockerConfigJsonKey, config), func(o metav1.Object) {
		o.(*corev1.Secret).Type = corev1.SecretTypeDockerConfigJson
	})
}

// metadataOf is what the caches keep of a Secret.
func metadataOf(s *corev1.Secret) *cache.PullSecret {
	return cache.NewPullSecret(&metav1.PartialObjectMetadata{ObjectMeta: s.ObjectMeta}, s.Type)
}

// source is central/source as the caches know it.
func source() *cache.PullSecret { return metadataOf(secret("central/source", sourceUID, "7")) }

// copied is the copy team/registry of that source; change may be nil.
func copied(change func(*cache.PullSecret)) *cache.PullSecret {
	s := metadataOf(secret("team/registry", testkit.SecretUID, testkit.ResourceVersion))
	s.Labels = map[string]string{"sakeeper.io/pull-secret": "copy"}
	s.Annotations = map[string]string{"sakeeper.io/copied-from": "central/source", "sakeeper.io/copied-version": string(sourceUID) + "/7"}
	s.Owned = true
	if change != nil {
		change(s)
	}
	return s
}

func damaged(s *cache.PullSecret) { s.Owned = false }

// fakeTemplates records the patches of templates, and lists what the API server has.
type fakeTemplates struct {
	live    []*v1alpha1.ServiceAccountTemplate
	listErr error
	patches []string
}

func (f *fakeTemplates) List(context.Context, metav1.ListOptions) (*v1alpha1.ServiceAccountTemplateList, error) {
	list := &v1alpha1.ServiceAccountTemplateList{}
	for _, t := range f.live {
		list.Items = append(list.Items, *t)
	}
	return list, f.listErr
}

func (f *fakeTemplates) Patch(_ context.Context, name string, _ types.PatchType, patch []byte, _ metav1.PatchOptions, _ ...string) (*v1alpha1.ServiceAccountTemplate, error) {
	f.patches = append(f.patches, name+" "+string(patch))
	return &v1alpha1.ServiceAccountTemplate{}, nil
}

// fixture is a controller whose caches the test fills.
type fixture struct {
	*Controller
	client    *fake.Clientset
	metadata  *metadatafake.FakeMetadataClient
	templates *fakeTemplates
	recorder  *record.FakeRecorder
	clock     *clocktesting.FakePassiveClock

	// live is what reads of the source return, and responses what writes do, by verb.
	live      *corev1.Secret
	responses map[string]error
}

func newFixture(t *testing.T, cached ...metav1.Object) *fixture {
	t.Helper()
	f := &fixture{
		client: &fake.Clientset{}, metadata: &metadatafake.FakeMetadataClient{}, templates: &fakeTemplates{},
		recorder: record.NewFakeRecorder(100), clock: clocktesting.NewFakePassiveClock(testkit.Instant()),
		live: secret("central/source", sourceUID, "7"), responses: map[string]error{},
	}
	f.client.AddReactor("*", "*", func(action clienttesting.Action) (bool, runtime.Object, error) {
		switch {
		case action.GetVerb() != "get":
			return true, &corev1.Secret{}, f.responses[action.GetVerb()]
		case action.GetResource().Resource == "namespaces":
			return true, testkit.Namespace("team"), nil
		}
		return true, f.live, nil
	})
	namespaces, errNamespaces := cache.Namespaces(f.client)
	templates, errTemplates := cache.Transformed(toolscache.NewSharedIndexInformer(&toolscache.ListWatch{}, &v1alpha1.ServiceAccountTemplate{}, 0, nil), cache.NewTemplate)
	sources, errSources := NewSources(f.metadata, []string{"central", "central"})
	copies, errCopies := NewCopies(f.metadata, nil)
	var err error
	f.Controller, err = New(Config{
		Client: f.client.CoreV1(), Metadata: f.metadata, Namespaces: namespaces, Templates: templates, TemplatesErr: func() error { return nil },
		TemplateClient: f.templates, SourceNamespaces: []string{"central"}, Sources: sources, Copies: copies,
		Recorder: f.recorder, Clock: f.clock, Workers: 1,
	})
	if err := errors.Join(errNamespaces, errTemplates, errSources, errCopies, err); err != nil {
		t.Fatal(err)
	}
	testkit.EndQueue(t, f.Controller)
	for _, obj := range cached {
		f.cache(t, obj)
	}
	return f
}

func (f *fixture) cache(t *testing.T, obj metav1.Object) {
	t.Helper()
	var err error
	switch o := obj.(type) {
	case *v1alpha1.ServiceAccountTemplate:
		f.templates.live = append(f.templates.live, o)
		err = f.cfg.Templates.GetStore().Add(cache.NewTemplate(o))
	case *cache.PullSecret:
		secrets := f.cfg.Sources
		if o.IsCopy() {
			secrets = f.cfg.Copies
		}
		for i, secretType := range cache.PullSecretTypes() {
			if secretType == o.Type {
				err = secrets.of(o.Namespace)[i].GetStore().Add(o)
			}
		}
	default:
		err = f.cfg.Namespaces.GetStore().Add(o)
	}
	if err != nil {
		t.Fatal(err)
	}
}
