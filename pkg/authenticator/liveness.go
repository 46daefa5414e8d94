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

// Object is what has to be known of an object to tell whether it is the one that a token
// is bound to: its metadata.
type Object = metav1.Object

// Secret is what has to be known of the Secret of a legacy token.
type Secret struct {
	Object

	// Sum is the SHA-256 of its token.
	Sum [sha256.Size]byte
}

// Objects answers what is alive in a cluster. Its errors are those of the API server:
// NotFound is an answer.
type Objects interface {
	ServiceAccount(ctx context.Context, namespace, name string) (Object, error)
	Pod(ctx context.Context, namespace, name string) (Object, error)
	Node(ctx context.Context, name string) (Object, error)
	// BoundSecret is a Secret of any type.
	BoundSecret(ctx context.Context, namespace, name string) (Object, error)
	// TokenSecret is a Secret of any type, with the sum of its token.
	TokenSecret(ctx context.Context, namespace, name string) (Secret, error)
}

// checkLegacy: nothing that is being deleted counts as alive.
func (a *Authenticator) checkLegacy(ctx context.Context, claims token.Claims, compact string) error {
	secret, err := a.cfg.Objects.TokenSecret(ctx, claims.Namespace, claims.Legacy.SecretName)
	if err != nil {
		return unanswered("secret", claims.Legacy.SecretName, err)
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
		return unanswered("service account", claims.ServiceAccount.Name, err)
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

// checkBound looks at the ServiceAccount and at each object that a token is bound to.
func checkBound(ctx context.Context, objects Objects, claims token.Claims, now time.Time) error {
	deleted := now.Add(-deletedFor)
	namespace := claims.Namespace
	look := func(kind string, ref token.Ref, get func() (Object, error)) error {
		found, err := get()
		switch {
		case err != nil:
			return unanswered(kind, ref.Name, err)
		case string(found.GetUID()) != ref.UID:
			return gone(kind, ref.Name, "has another UID")
		case found.GetDeletionTimestamp() != nil && found.GetDeletionTimestamp().Time.Before(deleted):
			return gone(kind, ref.Name, "is being deleted")
		}
		return nil
	}
	err := look("service account", claims.ServiceAccount, func() (Object, error) {
		return objects.ServiceAccount(ctx, namespace, claims.ServiceAccount.Name)
	})
	if s := claims.Secret; err == nil && s != nil {
		err = look("secret", *s, func() (Object, error) { return objects.BoundSecret(ctx, namespace, s.Name) })
	}
	if p := claims.Pod; err == nil && p != nil {
		err = look("pod", *p, func() (Object, error) { return objects.Pod(ctx, namespace, p.Name) })
	}
	// The node of a token for a pod says where the pod runs; such a token is not bound to it.
	if n := claims.Node; err == nil && n != nil && claims.Pod == nil {
		err = look("node", *n, func() (Object, error) { return objects.Node(ctx, n.Name) })
	}
	return err
}

func gone(kind, name, why string) error { return fmt.Errorf("%w: %s %q %s", ErrGone, kind, name, why) }

// unanswered tells an answer from none. A name that no object can have is an answer too.
func unanswered(kind, name string, err error) error {
	if apierrors.IsNotFound(err) || name == "" {
		return gone(kind, name, "does not exist")
	}
	return fmt.Errorf("%w: %s %q could not be asked for: %w", ErrUnavailable, kind, name, err)
}
