package accounttemplate

import (
	"context"
	"errors"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/gentype"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"

	"github.com/sakeeper/sakeeper/pkg/api/v1alpha1"
	"github.com/sakeeper/sakeeper/pkg/cache"
)

// errNoDefinition says what is missing if the API server does not know templates.
var errNoDefinition = errors.New("the API server has no resource serviceaccounttemplates.sakeeper.io: apply manifests/components/account-templates")

// Client reads templates, and writes their status.
type Client interface {
	List(ctx context.Context, options metav1.ListOptions) (*v1alpha1.ServiceAccountTemplateList, error)
	Watch(ctx context.Context, options metav1.ListOptions) (watch.Interface, error)
	Patch(ctx context.Context, name string, patchType types.PatchType, patch []byte, options metav1.PatchOptions, subresources ...string) (*v1alpha1.ServiceAccountTemplate, error)
}

// NewClient returns a client of templates. They are sent as JSON: custom resources have no protobuf.
func NewClient(config *rest.Config) (Client, error) {
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		return nil, err
	}
	config = rest.CopyConfig(config)
	config.GroupVersion, config.APIPath = &v1alpha1.GroupVersion, "/apis"
	config.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	config.ContentType, config.AcceptContentTypes = runtime.ContentTypeJSON, runtime.ContentTypeJSON
	client, err := rest.RESTClientFor(config)
	if err != nil {
		return nil, err
	}
	return gentype.NewClientWithList[*v1alpha1.ServiceAccountTemplate, *v1alpha1.ServiceAccountTemplateList](
		"serviceaccounttemplates", client, runtime.NewParameterCodec(scheme), "",
		func() *v1alpha1.ServiceAccountTemplate { return &v1alpha1.ServiceAccountTemplate{} },
		func() *v1alpha1.ServiceAccountTemplateList { return &v1alpha1.ServiceAccountTemplateList{} },
	), nil
}

// Templates are those of the cluster. Make them with [NewTemplates].
type Templates struct {
	// Informer has the templates. The caller starts it.
	Informer toolscache.TypedSharedIndexInformer[*cache.Template]

	client Client

	mu  sync.Mutex
	err error
}

// NewTemplates returns the templates that client reads.
func NewTemplates(client Client) (*Templates, error) {
	t := &Templates{client: client}
	informer := toolscache.NewSharedIndexInformer(&toolscache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			list, err := client.List(ctx, options)
			return list, t.note(err)
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			w, err := client.Watch(ctx, options)
			return w, t.note(err)
		},
	}, &v1alpha1.ServiceAccountTemplate{}, 0, nil)
	var err error
	t.Informer, err = cache.Transformed(informer, cache.NewTemplate)
	return t, err
}

// note keeps whether the API server knows templates, from the error of a list or watch, which it
// returns.
func (t *Templates) note(err error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case err == nil:
		t.err = nil
	case apierrors.IsNotFound(err):
		t.err = errNoDefinition
	}
	return err
}

// Err returns an error while the API server does not know templates, which is tried again at least
// every 30 s.
func (t *Templates) Err() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.err
}

// sorted returns all templates by precedence. Informer has synced.
func (t *Templates) sorted() []*cache.Template {
	var all []*cache.Template
	for _, obj := range t.Informer.GetStore().List() {
		if template, ok := obj.(*cache.Template); ok { // always: the informer is typed
			all = append(all, template)
		}
	}
	byPrecedence(all)
	return all
}
