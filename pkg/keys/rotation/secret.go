package rotation

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/utils/clock"

	"github.com/sakeeper/sakeeper/pkg/keys"
)

const (
	// SecretName is the default name of the Secret with the keys.
	SecretName = "sakeeper-signing-keys"
	// PublicConfigMapName is the name of the ConfigMap with the public halves, in the namespace
	// of the Secret.
	PublicConfigMapName = "sakeeper-public-keys"
)

// Secret is a [Store] in a Secret of type Opaque, whose data are the files of a key directory.
// The public halves are in the ConfigMap [PublicConfigMapName]. It is not safe for concurrent
// use; changes by other processes are found by the resourceVersion.
type Secret struct {
	client typedcorev1.CoreV1Interface
	name   toolscache.ObjectName
	clock  clock.PassiveClock
	loaded *corev1.Secret // as it was last read; nil if it does not exist
}

// OpenSecret returns the store in the Secret with that name. It makes no request.
func OpenSecret(client typedcorev1.CoreV1Interface, name toolscache.ObjectName, clock clock.PassiveClock) *Secret {
	return &Secret{client: client, name: name, clock: clock}
}

// Begin implements [Store]: it repairs the mirror. A published key that was missing in the
// mirror, for example because a user removed the ConfigMap, is published anew, and its wait
// starts again.
func (s *Secret) Begin(ctx context.Context) error {
	ring, err := s.Load(ctx)
	if err != nil || s.loaded == nil {
		return err
	}
	missing, err := s.mirror(ctx, ring)
	if err != nil {
		return err
	}
	for _, m := range ring.InState(keys.StatePublished) {
		if !slices.Contains(missing, m.ID()) {
			continue
		}
		change, err := replace(m, m.WithState(keys.StatePublished, after(s.clock.Now(), m.Since)))
		if err != nil {
			return err
		}
		if err := s.Apply(ctx, change); err != nil {
			return err
		}
	}
	return nil
}

// Close implements [Store].
func (s *Secret) Close() error { return nil }

// Load implements [Store].
func (s *Secret) Load(ctx context.Context) (*keys.Keyring, error) {
	found, err := s.client.Secrets(s.name.Namespace).Get(ctx, s.name.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		s.loaded = nil
		return keys.ParseKeyring(nil)
	case err != nil:
		return nil, fmt.Errorf("read secret %s: %w", s.name, err)
	}
	s.loaded = found
	ring, err := keys.ParseKeyring(found.Data)
	if err != nil {
		return nil, fmt.Errorf("secret %s: %w", s.name, err)
	}
	return ring, nil
}

// Apply implements [Store]. It returns an error if the Secret was changed since Load.
func (s *Secret) Apply(ctx context.Context, change Change) error {
	next := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: s.name.Namespace, Name: s.name.Name}}
	if s.loaded != nil {
		next = s.loaded.DeepCopy()
	}
	data := maps.Clone(next.Data)
	if data == nil {
		data = map[string][]byte{}
	}
	if change.New != "" {
		data[change.New] = change.Content
	}
	if change.Old != "" {
		delete(data, change.Old)
	}
	next.Data = data
	ring, err := keys.ParseKeyring(data)
	if err != nil {
		return fmt.Errorf("secret %s: %w", s.name, err)
	}
	if change.New != "" { // the mirror before the Secret
		if _, err := s.mirror(ctx, ring); err != nil {
			return err
		}
	}
	written, err := s.write(ctx, next)
	if errors.Is(err, errChanged) {
		return errors.Join(err, s.remirror(ctx))
	}
	if err != nil {
		return err
	}
	s.loaded = written
	_, err = s.mirror(ctx, ring)
	return err
}

// remirror reads the Secret, which another process has changed, and updates the mirror.
func (s *Secret) remirror(ctx context.Context) error {
	ring, err := s.Load(ctx)
	if err != nil {
		return err
	}
	_, err = s.mirror(ctx, ring)
	return err
}

var errChanged = errors.New("it was changed at the same time; run the command again")

func (s *Secret) write(ctx context.Context, next *corev1.Secret) (*corev1.Secret, error) {
	secrets := s.client.Secrets(s.name.Namespace)
	var written *corev1.Secret
	var err error
	if s.loaded == nil {
		written, err = secrets.Create(ctx, next, metav1.CreateOptions{})
	} else {
		written, err = secrets.Update(ctx, next, metav1.UpdateOptions{})
	}
	switch {
	case apierrors.IsConflict(err), apierrors.IsAlreadyExists(err), apierrors.IsNotFound(err) && s.loaded != nil:
		return nil, fmt.Errorf("write secret %s: %w", s.name, errChanged)
	case err != nil:
		return nil, withoutObject(fmt.Errorf("write secret %s", s.name), err)
	}
	return written, nil
}

// withoutObject drops the message of an API status, because that of an admission webhook may
// hold the object that was sent.
func withoutObject(doing, err error) error {
	if status := apierrors.APIStatus(nil); errors.As(err, &status) {
		return fmt.Errorf("%w: the API server answered %d %s", doing, status.Status().Code, status.Status().Reason)
	}
	return fmt.Errorf("%w: %w", doing, err)
}

// mirror writes the public halves to the ConfigMap, and returns the ids of the keys that were
// missing there.
func (s *Secret) mirror(ctx context.Context, ring *keys.Keyring) (missing []string, err error) {
	want := map[string]string{}
	for _, m := range ring.Entries() {
		content, err := m.WithoutPrivateKey().Encode()
		if err != nil {
			return nil, err
		}
		want[m.WithoutPrivateKey().FileName()] = string(content)
	}
	configMaps := s.client.ConfigMaps(s.name.Namespace)
	found, err := configMaps.Get(ctx, PublicConfigMapName, metav1.GetOptions{})
	exists := err == nil
	switch {
	case apierrors.IsNotFound(err):
		found = &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: s.name.Namespace, Name: PublicConfigMapName}}
	case err != nil:
		return nil, fmt.Errorf("read configmap %s/%s: %w", s.name.Namespace, PublicConfigMapName, err)
	}
	mirrored := mirroredKeys(found.Data)
	for _, m := range ring.Entries() {
		if !mirrored[m.ID()] {
			missing = append(missing, m.ID())
		}
	}
	if exists && maps.Equal(found.Data, want) {
		return missing, nil
	}
	next := found.DeepCopy()
	next.Data = want
	if exists {
		_, err = configMaps.Update(ctx, next, metav1.UpdateOptions{})
	} else {
		_, err = configMaps.Create(ctx, next, metav1.CreateOptions{})
	}
	if err != nil {
		return nil, fmt.Errorf("write configmap %s/%s: %w", s.name.Namespace, PublicConfigMapName, err)
	}
	return missing, nil
}

func mirroredKeys(data map[string]string) map[string]bool {
	mirrored := map[string]bool{}
	for name, content := range data {
		ring, err := keys.ParseKeyring(map[string][]byte{name: []byte(content)})
		if err != nil {
			continue // a damaged entry is as good as none
		}
		for _, m := range ring.Entries() {
			mirrored[m.ID()] = true
		}
	}
	return mirrored
}
