// Package live connects an [authenticator.Authenticator] to a cluster: [Cluster] reads objects
// from caches of metadata and from the API server, and [Tracker] records on the Secrets of
// legacy tokens that they are used. No cache holds a token.
//
// A cached object counts only while its cache is alive ([cache.Liveness]). Otherwise the object is
// read from the API server, and if that does not answer either, the token is neither accepted nor
// refused. A deleted ServiceAccount, Secret or Node is thus accepted for 10 s at most, also over a
// connection that was cut or froze.
package live

import (
	"context"
	"crypto/sha256"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/validate/content"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	toolscache "k8s.io/client-go/tools/cache"

	"github.com/sakeeper/sakeeper/pkg/authenticator"
	"github.com/sakeeper/sakeeper/pkg/cache"
)

// Cluster implements [authenticator.Objects]. It reads an object from the cache of its kind, and
// from the API server if it is not there or the cache is not alive. Pods, bound Secrets and webhook
// configurations are always read from the API server: a cache of all pods of a cluster costs more
// than it saves. It is safe for concurrent use.
type Cluster struct {
	// Metadata and Secrets read from the API server. Required.
	Metadata metadata.Interface
	Secrets  typedcorev1.SecretsGetter
	// The caches may each be nil. The caller runs them.
	ServiceAccounts, Nodes toolscache.SharedIndexInformer
	TokenSecrets           toolscache.TypedSharedIndexInformer[*cache.TokenSecret]
	// The liveness of each cache. Nil: the cache is not used.
	ServiceAccountsLiveness, NodesLiveness, TokenSecretsLiveness *cache.Liveness
}

var _ authenticator.Objects = Cluster{}

// CacheServiceAccounts returns an informer for the metadata of all ServiceAccounts. The caller
// runs it.
func CacheServiceAccounts(client metadata.Interface) (toolscache.SharedIndexInformer, error) {
	return cacheMetadata(client, "serviceaccounts")
}

// CacheNodes returns an informer for the metadata of all Nodes. The caller runs it.
func CacheNodes(client metadata.Interface) (toolscache.SharedIndexInformer, error) {
	return cacheMetadata(client, "nodes")
}

func cacheMetadata(client metadata.Interface, resource string) (toolscache.SharedIndexInformer, error) {
	informer := metadatainformer.NewFilteredMetadataInformer(client, gvr(resource), metav1.NamespaceAll, 0, toolscache.Indexers{}, nil).Informer()
	return informer, informer.SetTransform(func(object any) (any, error) {
		if found, ok := object.(*metav1.PartialObjectMetadata); ok {
			return &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
				Namespace: found.Namespace, Name: found.Name, UID: found.UID, ResourceVersion: found.ResourceVersion, DeletionTimestamp: found.DeletionTimestamp,
			}}, nil
		}
		return object, nil
	})
}

func gvr(resource string) schema.GroupVersionResource {
	return corev1.SchemeGroupVersion.WithResource(resource)
}

// ServiceAccount implements [authenticator.Objects].
func (c Cluster) ServiceAccount(ctx context.Context, namespace, name string) (authenticator.Object, error) {
	return c.cached(ctx, c.ServiceAccounts, c.ServiceAccountsLiveness, "serviceaccounts", namespace, name)
}

// Node implements [authenticator.Objects].
func (c Cluster) Node(ctx context.Context, name string) (authenticator.Object, error) {
	return c.cached(ctx, c.Nodes, c.NodesLiveness, "nodes", "", name)
}

// Pod implements [authenticator.Objects].
func (c Cluster) Pod(ctx context.Context, namespace, name string) (authenticator.Object, error) {
	return c.live(ctx, "pods", namespace, name)
}

// BoundSecret implements [authenticator.Objects].
func (c Cluster) BoundSecret(ctx context.Context, namespace, name string) (authenticator.Object, error) {
	return c.live(ctx, "secrets", namespace, name)
}

// TokenSecret implements [authenticator.Objects].
func (c Cluster) TokenSecret(ctx context.Context, namespace, name string) (authenticator.Secret, error) {
	if c.TokenSecrets != nil && c.TokenSecretsLiveness.Alive(ctx) {
		if found, ok := cache.Get(c.TokenSecrets, namespace+"/"+name); ok {
			return authenticator.Secret{Object: found, Sum: found.Token.Sum}, nil
		}
	}
	if !validNames(namespace, name) {
		return authenticator.Secret{}, apierrors.NewNotFound(gvr("secrets").GroupResource(), name)
	}
	found, err := c.Secrets.Secrets(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return authenticator.Secret{}, err
	}
	return authenticator.Secret{Object: &found.ObjectMeta, Sum: sha256.Sum256(found.Data[corev1.ServiceAccountTokenKey])}, nil
}

func (c Cluster) cached(ctx context.Context, informer toolscache.SharedIndexInformer, liveness *cache.Liveness, resource, namespace, name string) (authenticator.Object, error) {
	if informer != nil && validNames(namespace, name) && liveness.Alive(ctx) {
		key := toolscache.ObjectName{Namespace: namespace, Name: name}.String()
		if found, ok, err := informer.GetStore().GetByKey(key); err == nil && ok {
			if object, ok := found.(*metav1.PartialObjectMetadata); ok {
				return object, nil
			}
		}
	}
	return c.live(ctx, resource, namespace, name)
}

func (c Cluster) live(ctx context.Context, resource, namespace, name string) (authenticator.Object, error) {
	if !validNames(namespace, name) {
		return nil, apierrors.NewNotFound(gvr(resource).GroupResource(), name)
	}
	getter := c.Metadata.Resource(gvr(resource))
	if namespace != "" {
		return getter.Namespace(namespace).Get(ctx, name, metav1.GetOptions{})
	}
	return getter.Get(ctx, name, metav1.GetOptions{})
}

// validNames returns false if a name would change the path of the request. No object has such a
// name.
func validNames(names ...string) bool {
	return !slices.ContainsFunc(names, func(name string) bool { return len(content.IsPathSegmentName(name)) > 0 })
}
