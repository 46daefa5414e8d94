package load

import (
	"context"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/kubernetes"

	"github.com/sakeeper/sakeeper/pkg/keys"
	"github.com/sakeeper/sakeeper/pkg/token"
)

// Workers is the number of workers for token Secrets of every contestant. It is the default
// of sakeeper; that of kube-controller-manager is 5.
const Workers = 10

// BareUserAgent is the user agent of [Bare].
const BareUserAgent = "bench-bare"

// bare makes the writes of the controllers without checks, retries, events or metrics. It has
// the floor of the cost: the writes, and the signatures.
type bare struct {
	client kubernetes.Interface
	signer *token.Signer
	ca     atomic.Pointer[[]byte]

	// Each kind of object has workers of its own.
	accountWrites, configMapWrites, secretWrites chan write

	mu       sync.Mutex
	accounts map[string]*account // by namespace and name
	configs  map[string]*corev1.ConfigMap
	secrets  map[string]*corev1.Secret
}

// account is what the bare client knows about a ServiceAccount.
type account struct {
	object  *corev1.ServiceAccount
	secrets map[string]*corev1.Secret // its token Secrets, by name
	present int                       // the listed Secrets that are not deleted yet
}

type write func(ctx context.Context) error

// Bare does what the controllers do with the fewest writes, and decides nothing: default
// accounts and CAs of new namespaces, tokens of unfilled Secrets, which it signs, the CA of all
// objects when its file changes, Secrets of deleted accounts, and references to deleted Secrets.
// It ends with ctx.
func Bare(ctx context.Context, kubeconfig, keyFile, caFile string) error {
	client, err := Client(kubeconfig, BareUserAgent)
	if err != nil {
		return err
	}
	set, err := keys.Files{PrivateKeyFile: keyFile}.Load()
	if err != nil {
		return err
	}
	b := &bare{
		client: client, signer: token.NewSigner(func() *keys.Set { return set }),
		accountWrites: make(chan write, 1<<18), configMapWrites: make(chan write, 1<<18), secretWrites: make(chan write, 1<<18), // large enough for all objects
		accounts: map[string]*account{}, configs: map[string]*corev1.ConfigMap{}, secrets: map[string]*corev1.Secret{},
	}
	if err := b.readCA(caFile); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, writes := range []chan write{b.accountWrites, b.configMapWrites, b.secretWrites} {
		for range Workers {
			group.Go(func() error { return work(ctx, writes) })
		}
	}
	group.Go(func() error { return b.followCA(ctx, caFile) })
	group.Go(func() error { return b.watchAll(ctx) })
	return group.Wait()
}

func work(ctx context.Context, writes <-chan write) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case do := <-writes:
			err := do(ctx)
			if err != nil && !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) && !apierrors.IsAlreadyExists(err) && ctx.Err() == nil {
				return err
			}
		}
	}
}

func (b *bare) readCA(file string) error {
	ca, err := os.ReadFile(file)
	if err == nil {
		b.ca.Store(&ca)
	}
	return err
}

// followCA writes the CA to all objects at each SIGUSR1, so that waiting for it costs nothing.
func (b *bare) followCA(ctx context.Context, file string) error {
	changed := make(chan os.Signal, 1)
	signal.Notify(changed, syscall.SIGUSR1)
	defer signal.Stop(changed)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
			if err := b.readCA(file); err != nil {
				return err
			}
			b.writeCA()
		}
	}
}

func (b *bare) writeCA() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.configs {
		b.repair(c)
	}
	for _, s := range b.secrets {
		b.secretWrites <- func(ctx context.Context) error { return b.patchCA(ctx, s) }
	}
}

// watchAll begins with what is there already: a namespace that has both objects needs no write.
func (b *bare) watchAll(ctx context.Context) error {
	w := worker{client: b.client}
	if err := watch(ctx, w, "configmaps", "metadata.name=kube-root-ca.crt", &corev1.ConfigMap{}, b.seeConfigMap, nil); err != nil {
		return err
	}
	if err := watch(ctx, w, "serviceaccounts", "", &corev1.ServiceAccount{}, b.seeAccount, b.accountGone); err != nil {
		return err
	}
	if err := watch(ctx, w, "secrets", tokenSecrets, &corev1.Secret{}, b.seeSecret, b.secretGone); err != nil {
		return err
	}
	return watch(ctx, w, "namespaces", "", &corev1.Namespace{}, b.seeNamespace, nil)
}
