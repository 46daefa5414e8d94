package pullsecretcopy

import (
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/metadata"
	toolscache "k8s.io/client-go/tools/cache"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/cache"
)

type informer = toolscache.TypedSharedIndexInformer[*cache.PullSecret]

// Secrets are informers for the metadata of pull secrets: one per type and namespace, or one per type.
// Make them with [NewSources] or [NewCopies]. The caller starts them.
type Secrets struct {
	// informers has those of each namespace, or those of all by [metav1.NamespaceAll].
	informers map[string][]informer
}

// NewSources returns the pull secrets in namespaces.
func NewSources(client metadata.Interface, namespaces []string) (*Secrets, error) {
	return newSecrets(client, namespaces, "")
}

// NewCopies returns the copies of pull secrets in namespaces. None: in all.
func NewCopies(client metadata.Interface, namespaces []string) (*Secrets, error) {
	if len(namespaces) == 0 {
		namespaces = []string{metav1.NamespaceAll}
	}
	return newSecrets(client, namespaces, api.PullSecretLabel+"="+api.PullSecretCopy)
}

func newSecrets(client metadata.Interface, namespaces []string, labelSelector string) (*Secrets, error) {
	s := &Secrets{informers: map[string][]informer{}}
	for _, namespace := range namespaces {
		if s.serves(namespace) {
			continue // it is named twice
		}
		for _, secretType := range cache.PullSecretTypes() {
			made, err := cache.PullSecrets(client, namespace, secretType, labelSelector)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", Name, err)
			}
			s.informers[namespace] = append(s.informers[namespace], made)
		}
	}
	return s, nil
}

// Informers returns all informers.
func (s *Secrets) Informers() []toolscache.SharedIndexInformer {
	var all []toolscache.SharedIndexInformer
	for _, list := range s.informers {
		for _, made := range list {
			all = append(all, made)
		}
	}
	return all
}

// serves returns true if the Secrets of a namespace are known.
func (s *Secrets) serves(namespace string) bool { return len(s.of(namespace)) > 0 }

// of returns the informers that know the Secrets of a namespace.
func (s *Secrets) of(namespace string) []informer {
	if list, ok := s.informers[namespace]; ok {
		return list
	}
	return s.informers[metav1.NamespaceAll]
}

// get returns a Secret, or nil if there is none.
func (s *Secrets) get(key toolscache.ObjectName) *cache.PullSecret {
	for _, made := range s.of(key.Namespace) {
		if secret, ok := cache.Get(made, key.String()); ok {
			return secret
		}
	}
	return nil
}

// in returns the Secrets of a namespace.
func (s *Secrets) in(namespace string) []*cache.PullSecret {
	var secrets []*cache.PullSecret
	for _, made := range s.of(namespace) {
		objects, err := made.GetTypedIndexer().ByTypedIndex(toolscache.NamespaceIndex, namespace)
		if err != nil {
			panic("pullsecretcopy: internal error: " + err.Error()) // the informer has this index
		}
		secrets = append(secrets, objects...)
	}
	return secrets
}
