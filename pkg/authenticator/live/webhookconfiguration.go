package live

import (
	"context"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sakeeper/sakeeper/pkg/authenticator"
)

// ValidatingWebhookConfiguration implements [authenticator.Objects].
func (c Cluster) ValidatingWebhookConfiguration(ctx context.Context, name string) (authenticator.Object, error) {
	return c.webhookConfiguration(ctx, "validatingwebhookconfigurations", name)
}

// MutatingWebhookConfiguration implements [authenticator.Objects].
func (c Cluster) MutatingWebhookConfiguration(ctx context.Context, name string) (authenticator.Object, error) {
	return c.webhookConfiguration(ctx, "mutatingwebhookconfigurations", name)
}

func (c Cluster) webhookConfiguration(ctx context.Context, resource, name string) (authenticator.Object, error) {
	configurations := admissionregistrationv1.SchemeGroupVersion.WithResource(resource)
	if !validNames(name) {
		return nil, apierrors.NewNotFound(configurations.GroupResource(), name)
	}
	return c.Metadata.Resource(configurations).Get(ctx, name, metav1.GetOptions{})
}
