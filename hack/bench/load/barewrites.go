package load

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sakeeper/sakeeper/pkg/token"
)

func (b *bare) seeNamespace(n *corev1.Namespace) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if a := b.accounts[n.Name+"/default"]; a == nil || a.object == nil {
		b.accountWrites <- func(ctx context.Context) error {
			account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default", Namespace: n.Name}}
			_, err := b.client.CoreV1().ServiceAccounts(n.Name).Create(ctx, account, metav1.CreateOptions{})
			return err
		}
	}
	if b.configs[n.Name] == nil {
		b.configMapWrites <- func(ctx context.Context) error {
			config := &corev1.ConfigMap{
				ObjectMeta: metav1.ObjectMeta{Name: "kube-root-ca.crt", Namespace: n.Name},
				Data:       map[string]string{corev1.ServiceAccountRootCAKey: string(*b.ca.Load())},
			}
			_, err := b.client.CoreV1().ConfigMaps(n.Name).Create(ctx, config, metav1.CreateOptions{})
			return err
		}
	}
}

func (b *bare) seeConfigMap(c *corev1.ConfigMap) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.configs[c.Namespace] = c
	b.repair(c)
}

// repair patches c unless it has the CA.
func (b *bare) repair(c *corev1.ConfigMap) {
	ca := *b.ca.Load()
	if c.Data[corev1.ServiceAccountRootCAKey] == string(ca) {
		return
	}
	b.configMapWrites <- func(ctx context.Context) error {
		change, err := patch(c.ObjectMeta, "data", map[string]any{corev1.ServiceAccountRootCAKey: string(ca)})
		if err != nil {
			return err
		}
		_, err = b.client.CoreV1().ConfigMaps(c.Namespace).Patch(ctx, c.Name, types.MergePatchType, change, metav1.PatchOptions{})
		return err
	}
}

// patch is a merge patch with preconditions that sets field.
func patch(meta metav1.ObjectMeta, field string, value any) ([]byte, error) {
	return json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": meta.UID, "resourceVersion": meta.ResourceVersion}, field: value,
	})
}

// account returns the entry of an account. The caller holds the lock.
func (b *bare) account(namespace, name string) *account {
	key := namespace + "/" + name
	if b.accounts[key] == nil {
		b.accounts[key] = &account{secrets: map[string]*corev1.Secret{}}
	}
	return b.accounts[key]
}

func (b *bare) seeAccount(object *corev1.ServiceAccount) {
	b.mu.Lock()
	defer b.mu.Unlock()
	a := b.account(object.Namespace, object.Name)
	a.object, a.present = object, 0
	for _, s := range object.Secrets {
		if a.secrets[s.Name] != nil {
			a.present++
		}
	}
}

func (b *bare) accountGone(object *corev1.ServiceAccount) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range b.account(object.Namespace, object.Name).secrets {
		b.secretWrites <- func(ctx context.Context) error {
			return b.client.CoreV1().Secrets(s.Namespace).Delete(ctx, s.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &s.UID}})
		}
	}
	delete(b.accounts, object.Namespace+"/"+object.Name)
}

func (b *bare) seeSecret(s *corev1.Secret) {
	b.mu.Lock()
	defer b.mu.Unlock()
	a := b.account(s.Namespace, s.Annotations[corev1.ServiceAccountNameKey])
	if _, known := a.secrets[s.Name]; !known && a.object != nil {
		for _, listed := range a.object.Secrets {
			if listed.Name == s.Name {
				a.present++
			}
		}
	}
	a.secrets[s.Name], b.secrets[s.Namespace+"/"+s.Name] = s, s
	switch {
	case len(s.Data[corev1.ServiceAccountTokenKey]) == 0:
		b.secretWrites <- func(ctx context.Context) error { return b.fill(ctx, s) }
	case !bytes.Equal(s.Data[corev1.ServiceAccountRootCAKey], *b.ca.Load()):
		b.secretWrites <- func(ctx context.Context) error { return b.patchCA(ctx, s) }
	}
}

// secretGone removes the references of an account with one write, when the last of its listed
// Secrets is deleted.
func (b *bare) secretGone(s *corev1.Secret) {
	b.mu.Lock()
	defer b.mu.Unlock()
	a := b.account(s.Namespace, s.Annotations[corev1.ServiceAccountNameKey])
	delete(a.secrets, s.Name)
	delete(b.secrets, s.Namespace+"/"+s.Name)
	if a.object == nil {
		return
	}
	for _, listed := range a.object.Secrets {
		if listed.Name != s.Name {
			continue
		}
		if a.present--; a.present == 0 {
			object := a.object
			b.accountWrites <- func(ctx context.Context) error {
				change, err := patch(object.ObjectMeta, "secrets", nil)
				if err != nil {
					return err
				}
				_, err = b.client.CoreV1().ServiceAccounts(object.Namespace).Patch(ctx, object.Name, types.MergePatchType, change, metav1.PatchOptions{})
				return err
			}
		}
	}
}

// fill signs a token and writes it. It waits for the account, whose watch may be later.
func (b *bare) fill(ctx context.Context, s *corev1.Secret) error {
	name := s.Annotations[corev1.ServiceAccountNameKey]
	b.mu.Lock()
	object := b.account(s.Namespace, name).object
	b.mu.Unlock()
	if object == nil {
		time.AfterFunc(time.Millisecond, func() { b.secretWrites <- func(ctx context.Context) error { return b.fill(ctx, s) } })
		return nil
	}
	compact, err := b.signer.SignLegacy(ctx, token.LegacyClaims{
		Namespace: s.Namespace, SecretName: s.Name, ServiceAccountName: name, ServiceAccountUID: string(object.UID),
	})
	if err != nil {
		return err
	}
	secret := s.DeepCopy()
	secret.Annotations[corev1.ServiceAccountUIDKey] = string(object.UID)
	secret.Data = map[string][]byte{
		corev1.ServiceAccountTokenKey: []byte(compact), corev1.ServiceAccountRootCAKey: *b.ca.Load(), corev1.ServiceAccountNamespaceKey: []byte(s.Namespace),
	}
	if _, err = b.client.CoreV1().Secrets(s.Namespace).Update(ctx, secret, metav1.UpdateOptions{}); err != nil {
		return fmt.Errorf("fill secret %s/%s: %w", s.Namespace, s.Name, err)
	}
	return nil
}

func (b *bare) patchCA(ctx context.Context, s *corev1.Secret) error {
	change, err := patch(s.ObjectMeta, "data", map[string]any{corev1.ServiceAccountRootCAKey: *b.ca.Load()})
	if err != nil {
		return err
	}
	_, err = b.client.CoreV1().Secrets(s.Namespace).Patch(ctx, s.Name, types.MergePatchType, change, metav1.PatchOptions{})
	return err
}
