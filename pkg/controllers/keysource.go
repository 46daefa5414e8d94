package controllers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	coreinformers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/keys"
	"github.com/sakeeper/sakeeper/pkg/signer"
	"github.com/sakeeper/sakeeper/pkg/signingkey"
)

// Source holds a value that can change while the suite runs, such as [keys.Loader] and
// [cabundle.Loader]. It must be safe for concurrent use. If a Source also implements
// [signingkey.Signer], it signs tokens itself; if it implements [io.Closer], it is closed when the
// suite ends.
type Source[T any] interface {
	// Get returns the last good value.
	Get() T
	// OnChange makes f run after every change.
	OnChange(f func())
	// OnError makes f run if a changed value cannot be used.
	OnError(f func(error))
	// Run follows changes until ctx ends, and returns nil then.
	Run(ctx context.Context) error
}

// KeySource says where the keys come from. It is made by one of the functions whose names begin
// with Key, or by [Signer].
type KeySource interface {
	// open reads the keys. client may be used to read them from the cluster.
	open(ctx context.Context, client kubernetes.Interface) (Source[*keys.Set], error)
}

// KeyFiles reads keys from PEM files and follows their changes.
func KeyFiles(files keys.Files) KeySource {
	return keyOpener(func(context.Context, kubernetes.Interface) (Source[*keys.Set], error) { return opened(files.Open()) })
}

// KeyDirectory reads keys and their states from a directory, as 'sakeeper keys' keeps it, and
// follows its changes.
func KeyDirectory(dir string) KeySource {
	return keyOpener(func(context.Context, kubernetes.Interface) (Source[*keys.Set], error) {
		return opened(keys.Directory(dir).Open())
	})
}

// KeySecret reads keys and their states from a Secret, as 'sakeeper keys --secret' keeps it, and
// follows its changes. It takes the rights to get, list and watch that Secret.
func KeySecret(namespace, name string) KeySource {
	return keyOpener(func(ctx context.Context, client kubernetes.Interface) (Source[*keys.Set], error) {
		return openSecretKeys(ctx, client, toolscache.ObjectName{Namespace: namespace, Name: name})
	})
}

// KeySet uses keys in memory, of which one signs. They do not change.
func KeySet(set *keys.Set) KeySource {
	return keyOpener(func(context.Context, kubernetes.Interface) (Source[*keys.Set], error) {
		if set == nil {
			return nil, errors.New("the set of keys is nil")
		}
		return constant[*keys.Set]{set}, nil
	})
}

// KeysFrom uses keys that the caller keeps.
func KeysFrom(source Source[*keys.Set]) KeySource {
	return keyOpener(func(context.Context, kubernetes.Interface) (Source[*keys.Set], error) { return source, nil })
}

// Signer has tokens signed by 'sakeeper signer', on the unix socket of its --legacy-socket, and
// follows its keys.
func Signer(endpoint string) KeySource {
	return keyOpener(func(ctx context.Context, _ kubernetes.Interface) (Source[*keys.Set], error) {
		client, err := signer.Dial(ctx, endpoint)
		if err != nil {
			return nil, fmt.Errorf("--service-account-signing-endpoint: %w", err)
		}
		return client, nil
	})
}

type keyOpener func(context.Context, kubernetes.Interface) (Source[*keys.Set], error)

func (f keyOpener) open(ctx context.Context, client kubernetes.Interface) (Source[*keys.Set], error) {
	return f(ctx, client)
}

// opened makes no interface of a nil pointer.
func opened[S Source[*keys.Set]](source S, err error) (Source[*keys.Set], error) {
	if err != nil {
		return nil, err
	}
	return source, nil
}

// signerOf returns what signs with the keys of source: source itself, or nil if its keys can.
func signerOf(source Source[*keys.Set]) signingkey.Signer {
	s, _ := source.(signingkey.Signer)
	return s
}

func closeSource(source any) error {
	if closer, ok := source.(io.Closer); ok {
		return closer.Close()
	}
	return nil
}

// constant is a value that does not change.
type constant[T any] struct{ value T }

func (c constant[T]) Get() T            { return c.value }
func (constant[T]) OnChange(func())     {}
func (constant[T]) OnError(func(error)) {}

func (constant[T]) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// secretKeys are the keys in a Secret. A changed Secret that cannot be used leaves the last good
// keys in place.
type secretKeys struct {
	name     toolscache.ObjectName
	informer toolscache.SharedIndexInformer
	current  atomic.Pointer[keys.Set]

	mu       sync.Mutex
	onChange []func()
	onError  []func(error)
}

func openSecretKeys(ctx context.Context, client kubernetes.Interface, name toolscache.ObjectName) (*secretKeys, error) {
	secret, err := client.CoreV1().Secrets(name.Namespace).Get(ctx, name.Name, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("get secret %s with the signing keys: %w", name, err)
	}
	s := &secretKeys{name: name}
	set, err := s.parse(secret)
	if err != nil {
		return nil, err
	}
	s.current.Store(set)
	s.informer = coreinformers.NewFilteredSecretInformer(client, name.Namespace, 0, toolscache.Indexers{}, func(o *metav1.ListOptions) {
		o.FieldSelector = fields.OneTermEqualSelector("metadata.name", name.Name).String()
	})
	// Only the parsed keys are kept, which print their ids alone.
	typed, err := cache.Transformed(s.informer, func(secret *corev1.Secret) *parsedKeys {
		set, err := s.parse(secret)
		return &parsedKeys{ObjectMeta: metav1.ObjectMeta{Namespace: secret.Namespace, Name: secret.Name, UID: secret.UID, ResourceVersion: secret.ResourceVersion}, set: set, err: err}
	})
	if err != nil {
		return nil, err
	}
	_, err = typed.AddTypedEventHandler(toolscache.TypedResourceEventHandlerFuncs[*parsedKeys]{
		AddFunc:    s.use,
		UpdateFunc: func(_, updated *parsedKeys) { s.use(updated) },
	})
	return s, err
}

// parsedKeys is what is cached of the Secret.
type parsedKeys struct {
	metav1.ObjectMeta

	set *keys.Set
	err error
}

func (s *secretKeys) parse(secret *corev1.Secret) (*keys.Set, error) {
	ring, err := keys.ParseKeyring(secret.Data)
	if err == nil {
		var set *keys.Set
		if set, err = ring.Set(); err == nil {
			return set, nil
		}
	}
	return nil, fmt.Errorf("secret %s with the signing keys: %w", s.name, err)
}

func (s *secretKeys) use(found *parsedKeys) {
	s.mu.Lock()
	onChange, onError := s.onChange, s.onError
	s.mu.Unlock()
	switch {
	case found.err != nil:
		for _, f := range onError {
			f(found.err)
		}
	case !found.set.Equal(s.current.Load()):
		s.current.Store(found.set)
		for _, f := range onChange {
			f()
		}
	}
}

// Get implements [Source].
func (s *secretKeys) Get() *keys.Set { return s.current.Load() }

// OnChange implements [Source].
func (s *secretKeys) OnChange(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.onChange = append(s.onChange, f)
}

// OnError implements [Source].
func (s *secretKeys) OnError(f func(error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.onError = append(s.onError, f)
}

// Run implements [Source].
func (s *secretKeys) Run(ctx context.Context) error {
	klog.FromContext(ctx).Info("Following the signing keys in a secret", "secret", klog.KRef(s.name.Namespace, s.name.Name))
	s.informer.RunWithContext(ctx)
	return nil
}
