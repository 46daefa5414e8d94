package servingcert

import (
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	admissionregistrationinformers "k8s.io/client-go/informers/admissionregistration/v1"
	coreinformers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	toolscache "k8s.io/client-go/tools/cache"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/cache"
)

// Secret is a Secret without its managedFields. It may be written back.
type Secret struct {
	*corev1.Secret

	// WrittenAt is when it was created or last changed, by the clock of the API server.
	WrittenAt time.Time
}

// Secrets returns an informer for one Secret, which fetches no other. The caller runs it.
func Secrets(client kubernetes.Interface, name toolscache.ObjectName) (toolscache.TypedSharedIndexInformer[*Secret], error) {
	informer := coreinformers.NewFilteredSecretInformer(client, name.Namespace, 0, toolscache.Indexers{}, only(name.Name))
	return cache.Transformed(informer, newSecret)
}

func newSecret(secret *corev1.Secret) *Secret {
	s := &Secret{Secret: secret, WrittenAt: secret.CreationTimestamp.Time}
	for _, entry := range secret.ManagedFields {
		if entry.Time != nil && entry.Time.After(s.WrittenAt) {
			s.WrittenAt = entry.Time.Time
		}
	}
	secret.ManagedFields = nil
	return s
}

// Configuration is a webhook configuration of either kind, reduced to what the controller reads:
// change it by patch only.
type Configuration struct {
	// ObjectMeta has name, UID and resourceVersion only.
	metav1.ObjectMeta

	// Kind is the kind of the object.
	Kind     string
	Webhooks []Webhook
	// List is the value of [api.WebhooksAnnotation], and FilledFrom that of
	// [api.FilledWebhooksAnnotation].
	List, FilledFrom string
}

// Webhook is a webhook of a configuration.
type Webhook struct {
	Name string
	// Host is the name or address that the API server verifies the certificate for.
	Host     string
	CABundle []byte
}

// The kinds of webhook configurations.
const (
	kindMutating   = "MutatingWebhookConfiguration"
	kindValidating = "ValidatingWebhookConfiguration"
)

// Mutating returns an informer for one MutatingWebhookConfiguration, which fetches no other. The
// caller runs it.
func Mutating(client kubernetes.Interface, name string) (toolscache.TypedSharedIndexInformer[*Configuration], error) {
	informer := admissionregistrationinformers.NewFilteredMutatingWebhookConfigurationInformer(client, 0, toolscache.Indexers{}, only(name))
	return cache.Transformed(informer, reduceMutating)
}

func reduceMutating(in *admissionregistrationv1.MutatingWebhookConfiguration) *Configuration {
	out := newConfiguration(kindMutating, in.ObjectMeta)
	for i := range in.Webhooks {
		out.add(in.Webhooks[i].Name, &in.Webhooks[i].ClientConfig)
	}
	return out
}

// Validating returns an informer for one ValidatingWebhookConfiguration, which fetches no other.
// The caller runs it.
func Validating(client kubernetes.Interface, name string) (toolscache.TypedSharedIndexInformer[*Configuration], error) {
	informer := admissionregistrationinformers.NewFilteredValidatingWebhookConfigurationInformer(client, 0, toolscache.Indexers{}, only(name))
	return cache.Transformed(informer, reduceValidating)
}

func reduceValidating(in *admissionregistrationv1.ValidatingWebhookConfiguration) *Configuration {
	out := newConfiguration(kindValidating, in.ObjectMeta)
	for i := range in.Webhooks {
		out.add(in.Webhooks[i].Name, &in.Webhooks[i].ClientConfig)
	}
	return out
}

func newConfiguration(kind string, m metav1.ObjectMeta) *Configuration {
	return &Configuration{
		Kind: kind, ObjectMeta: metav1.ObjectMeta{Name: m.Name, UID: m.UID, ResourceVersion: m.ResourceVersion},
		List: m.Annotations[api.WebhooksAnnotation], FilledFrom: m.Annotations[api.FilledWebhooksAnnotation],
	}
}

func (c *Configuration) add(name string, client *admissionregistrationv1.WebhookClientConfig) {
	c.Webhooks = append(c.Webhooks, Webhook{Name: name, Host: hostOf(client), CABundle: client.CABundle})
}

// hostOf returns the name or address that the API server verifies the certificate for.
func hostOf(client *admissionregistrationv1.WebhookClientConfig) string {
	if service := client.Service; service != nil {
		return service.Name + "." + service.Namespace + ".svc"
	}
	if client.URL == nil {
		return ""
	}
	u, err := url.Parse(*client.URL)
	if err != nil {
		return ""
	}
	return canonical(u.Hostname())
}

// canonical returns one spelling for equal names and for equal addresses.
func canonical(host string) string {
	if ip := net.ParseIP(host); ip != nil {
		return ip.String()
	}
	return strings.ToLower(host)
}

// ours returns the webhooks that call one of hosts.
func (c *Configuration) ours(hosts []string) []Webhook {
	var ours []Webhook
	for _, w := range c.Webhooks {
		if slices.Contains(hosts, w.Host) {
			ours = append(ours, w)
		}
	}
	return ours
}

// String returns kind and name, for messages.
func (c *Configuration) String() string { return c.Kind + " " + c.Name }

// only selects by name: RBAC can restrict list and watch to one object only so.
func only(name string) func(*metav1.ListOptions) {
	return func(o *metav1.ListOptions) {
		o.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, name).String()
	}
}
