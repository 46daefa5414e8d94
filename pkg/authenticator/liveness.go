package authenticator

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sakeeper/sakeeper/pkg/token"
)

// deletionGrace is how long after its deletion timestamp an object still counts as existing for
// bound tokens, as in kube-apiserver, so that a pod can use its token while it shuts down.
const deletionGrace = time.Minute

// Object is the metadata of an object that a token is bound to.
type Object = metav1.Object

// Secret is the Secret of a legacy token.
type Secret struct {
	Object

	// Sum is the SHA-256 of the token in the Secret.
	Sum [sha256.Size]byte
}

// Objects reads the objects of a cluster. Its errors are those of the API server: an error for
// which [apierrors.IsNotFound] returns true means that the object does not exist, any other that
// it could not be read. Its methods are called concurrently.
type Objects interface {
	ServiceAccount(ctx context.Context, namespace, name string) (Object, error)
	Pod(ctx context.Context, namespace, name string) (Object, error)
	Node(ctx context.Context, name string) (Object, error)
	ValidatingWebhookConfiguration(ctx context.Context, name string) (Object, error)
	MutatingWebhookConfiguration(ctx context.Context, name string) (Object, error)
	// BoundSecret reads a Secret of any type.
	BoundSecret(ctx context.Context, namespace, name string) (Object, error)
	// TokenSecret reads a Secret of any type, with the sum of its token.
	TokenSecret(ctx context.Context, namespace, name string) (Secret, error)
}

// checkLegacy checks the Secret and the ServiceAccount of a legacy token. Neither may have a
// deletion timestamp.
func (a *Authenticator) checkLegacy(ctx context.Context, claims token.Claims, compact string) error {
	secret, err := a.cfg.Objects.TokenSecret(ctx, claims.Namespace, claims.Legacy.SecretName)
	if err != nil {
		return readError("secret", claims.Legacy.SecretName, err)
	}
	if secret.GetDeletionTimestamp() != nil {
		return gone("secret", claims.Legacy.SecretName, "is being deleted")
	}
	if sum := sha256.Sum256([]byte(compact)); subtle.ConstantTimeCompare(sum[:], secret.Sum[:]) == 0 {
		return ErrStored
	}
	account, err := a.cfg.Objects.ServiceAccount(ctx, claims.Namespace, claims.ServiceAccount.Name)
	switch {
	case err != nil:
		return readError("service account", claims.ServiceAccount.Name, err)
	case account.GetDeletionTimestamp() != nil:
		return gone("service account", claims.ServiceAccount.Name, "is being deleted")
	case string(account.GetUID()) != claims.ServiceAccount.UID:
		return gone("service account", claims.ServiceAccount.Name, "has another UID")
	}
	if a.cfg.Used != nil {
		a.cfg.Used(secret)
	}
	if secret.GetLabels()[token.InvalidSinceLabel] != "" {
		return ErrInvalidated
	}
	return nil
}

// checkBound checks the ServiceAccount and each object that a bound token names.
func checkBound(ctx context.Context, objects Objects, claims token.Claims, now time.Time) error {
	deleted := now.Add(-deletionGrace)
	namespace := claims.Namespace
	check := func(kind string, ref token.Ref, get func() (Object, error)) error {
		found, err := get()
		switch {
		case err != nil:
			return readError(kind, ref.Name, err)
		case string(found.GetUID()) != ref.UID:
			return gone(kind, ref.Name, "has another UID")
		case found.GetDeletionTimestamp() != nil && found.GetDeletionTimestamp().Time.Before(deleted):
			return gone(kind, ref.Name, "is being deleted")
		}
		return nil
	}
	err := check("service account", claims.ServiceAccount, func() (Object, error) {
		return objects.ServiceAccount(ctx, namespace, claims.ServiceAccount.Name)
	})
	if s := claims.Secret; err == nil && s != nil {
		err = check("secret", *s, func() (Object, error) { return objects.BoundSecret(ctx, namespace, s.Name) })
	}
	if p := claims.Pod; err == nil && p != nil {
		err = check("pod", *p, func() (Object, error) { return objects.Pod(ctx, namespace, p.Name) })
	}
	// The node of a token for a pod is where the pod runs; the token is not bound to it.
	if n := claims.Node; err == nil && n != nil && claims.Pod == nil {
		err = check("node", *n, func() (Object, error) { return objects.Node(ctx, n.Name) })
	}
	if err != nil {
		return err
	}
	return checkBoundWebhooks(ctx, objects, claims, check)
}

// checkBoundWebhooks checks the webhook configuration that a token is bound to.
func checkBoundWebhooks(ctx context.Context, objects Objects, claims token.Claims, check func(kind string, ref token.Ref, get func() (Object, error)) error) (err error) {
	if w := claims.ValidatingWebhookConfiguration; w != nil {
		err = check("validating webhook configuration", *w, func() (Object, error) { return objects.ValidatingWebhookConfiguration(ctx, w.Name) })
	}
	if w := claims.MutatingWebhookConfiguration; err == nil && w != nil {
		err = check("mutating webhook configuration", *w, func() (Object, error) { return objects.MutatingWebhookConfiguration(ctx, w.Name) })
	}
	return err
}

func gone(kind, name, why string) error { return fmt.Errorf("%w: %s %q %s", ErrGone, kind, name, why) }

// readError returns an error that wraps ErrGone if the object does not exist, as an object
// without a name never does, and else one that wraps ErrUnavailable.
func readError(kind, name string, err error) error {
	if apierrors.IsNotFound(err) || name == "" {
		return gone(kind, name, "does not exist")
	}
	return fmt.Errorf("%w: get %s %q: %w", ErrUnavailable, kind, name, err)
}
