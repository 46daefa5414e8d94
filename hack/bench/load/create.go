package load

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sakeeper/sakeeper/pkg/keys"
	"github.com/sakeeper/sakeeper/pkg/token"
)

// setup creates objects for other jobs.
type setup struct {
	worker

	ca     []byte
	signer *token.Signer
	uids   map[string]types.UID // of ServiceAccounts, by namespace and name
}

func (s *setup) prepare(ctx context.Context) error {
	if err := s.createNamespaces(ctx); err != nil {
		return err
	}
	if s.Kind != FilledSecrets {
		return nil
	}
	var err error
	if s.ca, err = os.ReadFile(s.CAFile); err != nil {
		return err
	}
	set, err := keys.Files{PrivateKeyFile: s.KeyFile}.Load()
	if err != nil {
		return err
	}
	s.signer = token.NewSigner(func() *keys.Set { return set })
	accounts, err := s.client.CoreV1().ServiceAccounts("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	s.uids = map[string]types.UID{}
	for _, account := range accounts.Items {
		s.uids[account.Namespace+"/"+account.Name] = account.UID
	}
	return nil
}

// createNamespaces creates the missing namespaces of the job, and the ServiceAccount in each.
func (w worker) createNamespaces(ctx context.Context) error {
	spaces := w
	spaces.N = max(w.Spread, 1)
	return spaces.each(ctx, func(ctx context.Context, i int) error {
		name := w.in(i)
		if err := w.createNamespace(ctx, name); err != nil && !apierrors.IsAlreadyExists(err) {
			return err
		}
		if w.Own {
			return nil
		}
		account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: w.Prefix}}
		if _, err := w.client.CoreV1().ServiceAccounts(name).Create(ctx, account, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
			return err
		}
		return nil
	})
}

func (w worker) createNamespace(ctx context.Context, name string) error {
	_, err := w.client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	return err
}

func (s *setup) act(ctx context.Context) (Result, error) {
	began := time.Now()
	err := s.each(ctx, func(ctx context.Context, i int) (err error) {
		core, meta := s.client.CoreV1(), metav1.ObjectMeta{Namespace: s.in(i), Name: s.name(i)}
		switch s.Kind {
		case Accounts:
			_, err = core.ServiceAccounts(meta.Namespace).Create(ctx, &corev1.ServiceAccount{ObjectMeta: meta}, metav1.CreateOptions{})
		case UnrelatedSecrets:
			_, err = core.Secrets(meta.Namespace).Create(ctx, &corev1.Secret{ObjectMeta: meta, StringData: map[string]string{"data": strings.Repeat("x", 4<<10)}}, metav1.CreateOptions{})
		case UnrelatedConfigMaps:
			_, err = core.ConfigMaps(meta.Namespace).Create(ctx, &corev1.ConfigMap{ObjectMeta: meta, Data: map[string]string{"data": strings.Repeat("x", 4<<10)}}, metav1.CreateOptions{})
		case UnfilledSecrets:
			err = s.createSecret(ctx, i)
		case FilledSecrets:
			err = s.createFilled(ctx, i)
		}
		return err
	})
	return Result{Elapsed: time.Since(began), Ended: time.Now()}, err
}

// account is the name of the ServiceAccount of Secret i.
func (w worker) account(i int) string {
	if w.Own {
		return w.name(i)
	}
	return w.Prefix
}

func (w worker) secret(i int) *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: w.in(i), Name: w.name(i), Annotations: map[string]string{corev1.ServiceAccountNameKey: w.account(i)},
		},
		Type: corev1.SecretTypeServiceAccountToken,
	}
}

func (w worker) createSecret(ctx context.Context, i int) error {
	secret := w.secret(i)
	_, err := w.client.CoreV1().Secrets(secret.Namespace).Create(ctx, secret, metav1.CreateOptions{})
	return err
}

func (s *setup) createFilled(ctx context.Context, i int) error {
	secret := s.secret(i)
	uid := string(s.uids[secret.Namespace+"/"+s.account(i)])
	compact, err := s.signer.SignLegacy(ctx, token.LegacyClaims{
		Namespace: secret.Namespace, SecretName: secret.Name, ServiceAccountName: s.account(i), ServiceAccountUID: uid,
	})
	if err != nil {
		return err
	}
	secret.Annotations[corev1.ServiceAccountUIDKey] = uid
	secret.Data = map[string][]byte{
		corev1.ServiceAccountTokenKey: []byte(compact), corev1.ServiceAccountRootCAKey: s.ca, corev1.ServiceAccountNamespaceKey: []byte(secret.Namespace),
	}
	_, err = s.client.CoreV1().Secrets(secret.Namespace).Create(ctx, secret, metav1.CreateOptions{})
	return err
}

// namespaces are created at once, and have happened when they have both objects.
type namespaces struct {
	worker

	clock *clock
	mu    sync.Mutex
	parts map[string]int // bits, by namespace
}

func (n *namespaces) prepare(ctx context.Context) error {
	n.clock, n.parts = newClock(n.N), map[string]int{}
	see := func(namespace string, bit int) {
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.parts[namespace] |= bit; n.parts[namespace] == 3 {
			n.clock.happen(namespace)
		}
	}
	err := watch(ctx, n.worker, "serviceaccounts", "metadata.name=default", &corev1.ServiceAccount{}, func(a *corev1.ServiceAccount) { see(a.Namespace, 1) }, nil)
	if err != nil {
		return err
	}
	return watch(ctx, n.worker, "configmaps", "metadata.name=kube-root-ca.crt", &corev1.ConfigMap{}, func(c *corev1.ConfigMap) { see(c.Namespace, 2) }, nil)
}

func (n *namespaces) act(ctx context.Context) (Result, error) {
	err := n.each(ctx, func(ctx context.Context, i int) error {
		name := fmt.Sprintf("%s-%04d", n.Prefix, i)
		n.clock.begin(name)
		return n.createNamespace(ctx, name)
	})
	if err != nil {
		return Result{}, err
	}
	return n.clock.wait(ctx)
}

// fill waits until token Secrets are filled.
type fill struct {
	worker

	clock *clock
}

func (f *fill) prepare(ctx context.Context) error {
	f.clock = newClock(f.N)
	if err := f.createNamespaces(ctx); err != nil {
		return err
	}
	if f.Kind == AwaitFill {
		for i := range f.N {
			f.clock.begin(f.name(i))
		}
	}
	return watch(ctx, f.worker, "secrets", tokenSecrets, &corev1.Secret{}, func(s *corev1.Secret) {
		if len(s.Data[corev1.ServiceAccountTokenKey]) > 0 {
			f.clock.happen(s.Name)
		}
	}, nil)
}

func (f *fill) act(ctx context.Context) (Result, error) {
	if f.Kind == AwaitFill {
		f.clock.restart()
		return f.clock.wait(ctx)
	}
	err := f.each(ctx, func(ctx context.Context, i int) error {
		if f.Kind == FillWithAccounts {
			account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: f.name(i)}}
			if _, err := f.client.CoreV1().ServiceAccounts(f.in(i)).Create(ctx, account, metav1.CreateOptions{}); err != nil {
				return err
			}
		}
		f.clock.begin(f.name(i))
		return f.createSecret(ctx, i)
	})
	if err != nil {
		return Result{}, err
	}
	return f.clock.wait(ctx)
}

// newCA waits until all objects have the content of CAFile. The parent process replaces the CA
// of the contestant by it once this process is ready.
type newCA struct {
	worker

	clock *clock
	ca    []byte
}

func (n *newCA) prepare(ctx context.Context) (err error) {
	n.clock = newClock(2 * n.N)
	if n.ca, err = os.ReadFile(n.CAFile); err != nil {
		return err
	}
	err = watch(ctx, n.worker, "secrets", tokenSecrets, &corev1.Secret{}, func(s *corev1.Secret) {
		n.see("secret/"+s.Namespace+"/"+s.Name, s.Data[corev1.ServiceAccountRootCAKey])
	}, nil)
	if err != nil {
		return err
	}
	return watch(ctx, n.worker, "configmaps", "metadata.name=kube-root-ca.crt", &corev1.ConfigMap{}, func(c *corev1.ConfigMap) {
		n.see("configmap/"+c.Namespace, []byte(c.Data[corev1.ServiceAccountRootCAKey]))
	}, nil)
}

// see begins the clock of an object of the job that has another CA, and stops it when the
// object has the new one.
func (n *newCA) see(name string, ca []byte) {
	if !strings.Contains(name, "/"+n.Prefix) {
		return
	}
	if bytes.Equal(bytes.TrimSpace(ca), bytes.TrimSpace(n.ca)) {
		n.clock.happen(name)
	} else {
		n.clock.begin(name)
	}
}

func (n *newCA) act(ctx context.Context) (Result, error) {
	n.clock.restart()
	return n.clock.wait(ctx)
}
