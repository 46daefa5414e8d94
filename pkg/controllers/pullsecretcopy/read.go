package pullsecretcopy

import (
	"context"
	"errors"
	"fmt"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	toolscache "k8s.io/client-go/tools/cache"

	"github.com/sakeeper/sakeeper/pkg/cache"
)

// errSourceChanged means that the source is another one than the cache says.
var errSourceChanged = errors.New("the source was replaced")

// reader reads sources. Writes that are under way at the same time share one read, which is dropped
// after the last of them.
type reader struct {
	client typedcorev1.SecretsGetter

	mu    sync.Mutex
	reads map[version]*read
}

// version is a source as the cache knows it.
type version struct {
	source toolscache.ObjectName
	text   string // [versionOf]
}

// versionOf identifies the contents of a Secret.
func versionOf(secret metav1.Object) string {
	return string(secret.GetUID()) + "/" + secret.GetResourceVersion()
}

type read struct {
	once   sync.Once
	users  int
	secret *corev1.Secret
	err    error
}

// use reads a source, unless another call is using it, and calls write with what was read. It may be
// newer than the cache says.
func (r *reader) use(ctx context.Context, source *cache.PullSecret, write func(*corev1.Secret) error) error {
	v := version{source: toolscache.MetaObjectToName(source), text: versionOf(source)}
	shared := r.begin(v)
	defer r.end(v)
	shared.once.Do(func() {
		shared.secret, shared.err = r.client.Secrets(source.Namespace).Get(ctx, source.Name, metav1.GetOptions{})
	})
	if shared.err != nil {
		return fmt.Errorf("read secret %s: %w", v.source, shared.err)
	}
	if shared.secret.UID != source.UID {
		return errSourceChanged
	}
	return redact(write(shared.secret), shared.secret)
}

func (r *reader) begin(v version) *read {
	r.mu.Lock()
	defer r.mu.Unlock()
	shared := r.reads[v]
	if shared == nil {
		shared = &read{}
		r.reads[v] = shared
	}
	shared.users++
	return shared
}

func (r *reader) end(v version) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if shared := r.reads[v]; shared.users > 1 {
		shared.users--
	} else {
		delete(r.reads, v)
	}
}
