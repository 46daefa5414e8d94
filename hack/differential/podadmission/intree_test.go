package podadmission

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/handlers/responsewriters"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	toolscache "k8s.io/client-go/tools/cache"
	api "k8s.io/kubernetes/pkg/apis/core"
	"k8s.io/kubernetes/plugin/pkg/admission/serviceaccount"
)

// inTree is the plugin with a cache and a client that the test fills. It is used
// from one goroutine.
type inTree struct {
	plugin *serviceaccount.Plugin
	client *fake.Clientset
	cache  toolscache.Indexer
}

func newInTree() (*inTree, error) {
	client := fake.NewSimpleClientset() // NewClientset parses all of OpenAPI, and nothing here is applied
	factory := informers.NewSharedInformerFactory(client, 0)

	plugin := serviceaccount.NewServiceAccount()
	plugin.SetExternalKubeClientSet(client)
	plugin.SetExternalKubeInformerFactory(factory)

	return &inTree{
		plugin: plugin,
		client: client,
		cache:  factory.Core().V1().ServiceAccounts().Informer().GetIndexer(),
	}, plugin.ValidateInitialization()
}

// load gives the plugin the ServiceAccounts of r; done removes them.
func (p *inTree) load(r *request) (done func() error, err error) {
	objects := make([]any, 0, len(r.Cached))
	for i := range r.Cached {
		objects = append(objects, &r.Cached[i])
	}
	if err := p.cache.Replace(objects, ""); err != nil {
		return nil, fmt.Errorf("filling the cache: %w", err)
	}

	live := append(append([]corev1.ServiceAccount(nil), r.Cached...), r.Live...)
	tracker := p.client.Tracker()
	for i := range live {
		if err := tracker.Add(&live[i]); err != nil {
			return nil, fmt.Errorf("adding a service account: %w", err)
		}
	}
	p.plugin.LimitSecretReferences = r.LimitSecretReferences

	return func() error {
		p.client.ClearActions()
		for i := range live {
			resource := corev1.SchemeGroupVersion.WithResource("serviceaccounts")
			if err := tracker.Delete(resource, live[i].Namespace, live[i].Name); err != nil {
				return fmt.Errorf("removing a service account: %w", err)
			}
		}

		return nil
	}, nil
}

// admit runs both phases of the plugin on the decoded pod, which it changes in place.
func (p *inTree) admit(ctx context.Context, r *request, pod *api.Pod) (outcome, error) {
	a := attributes(r, pod)
	if p.plugin.Handles(r.Operation) {
		if err := p.plugin.Admit(ctx, a, nil); err != nil {
			return refusal(err), nil
		}
	}

	return p.validate(ctx, r, pod)
}

// validate runs the second phase alone.
func (p *inTree) validate(ctx context.Context, r *request, pod *api.Pod) (outcome, error) {
	a := attributes(r, pod)
	if p.plugin.Handles(r.Operation) {
		if err := p.plugin.Validate(ctx, a, nil); err != nil {
			return refusal(err), nil
		}
	}
	admitted, err := versioned(pod)

	return outcome{Allowed: true, Pod: admitted}, err
}

func attributes(r *request, pod *api.Pod) admission.Attributes {
	return admission.NewAttributesRecord(pod, nil,
		api.Kind("Pod").WithVersion("v1"), namespace, r.Name,
		api.Resource("pods").WithVersion("v1"), r.Subresource,
		r.Operation, &metav1.CreateOptions{}, false, &user.DefaultInfo{Name: "alice"})
}

// refusal converts an error as an API server does.
func refusal(err error) outcome {
	return refused(responsewriters.ErrorToAPIStatus(err))
}

func refused(status *metav1.Status) outcome {
	details := ""
	if d := status.Details; d != nil {
		details = fmt.Sprintf("%s/%s %s %v", d.Group, d.Kind, d.Name, d.Causes)
	}

	return outcome{Code: status.Code, Reason: string(status.Reason), Message: status.Message, Details: details}
}
