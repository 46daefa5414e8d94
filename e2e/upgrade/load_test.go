package upgrade

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sakeeper/sakeeper/e2e/behaviour"
)

const (
	// busy is the namespace in which pods are created.
	busy = "busy"
	// perSecond is how many pods are created and how many tokens are used.
	perSecond = 10
)

// load creates pods, and uses tokens.
type load struct {
	pods   *behaviour.Load
	tokens *tokens
}

// startLoad begins when a pod and each token have been accepted once: the API server must know the
// accounts first.
func (p plane) startLoad(t *testing.T) load {
	t.Helper()
	p.newNamespace(t, busy, nil)
	p.waitAccount(t, busy)
	eventually(t, "the first pod", func(ctx context.Context) error {
		pod, err := p.client.CoreV1().Pods(busy).Create(ctx, newPod(), metav1.CreateOptions{})
		if err == nil && len(pod.Spec.Volumes) == 0 {
			err = errors.New("it has no token")
		}
		return err
	})
	return load{behaviour.StartLoad(t.Context(), p.client, busy, perSecond), p.startTokens(t)}
}

func newPod(volumes ...corev1.Volume) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "p-"},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "none:0"}}, Volumes: volumes},
	}
}

// more waits for more pods and tokens.
func (l load) more(t *testing.T, when string) {
	t.Helper()
	pods, accepted := l.pods.Count()+3*perSecond, l.tokens.count()+3*perSecond
	eventually(t, "pods and tokens "+when, func(context.Context) error {
		if a, b := l.pods.Count(), l.tokens.count(); a < pods || b < accepted {
			return fmt.Errorf("%d of %d pods, %d of %d tokens", a, pods, b, accepted)
		}
		return nil
	})
}

// end ends the load, and fails if a pod has no token, a request was not answered, a token was refused,
// or more than that share of the pods was.
func (l load) end(t *testing.T, share float64) behaviour.Result {
	t.Helper()
	pods, accepted, refused := l.pods.Stop(), l.tokens.count(), l.tokens.end()
	t.Logf("from %s to %s and back: %d pods were created and %d refused (%.2f %%), the longest time without a pod was %v; %d tokens were accepted and %d refused",
		older.name, newer.name, pods.Created, len(pods.Refused), 100*pods.RefusedShare(), pods.LongestGap.Round(time.Millisecond), accepted, len(refused))
	if pods.RefusedShare() > share || pods.WithoutToken > 0 || len(pods.Unreachable) > 0 {
		t.Errorf("refused: %v; not answered: %v; %d without a token", pods.Reasons(), pods.Unreachable, pods.WithoutToken)
	}
	if len(refused) > 0 || accepted == 0 {
		t.Errorf("%d tokens were accepted, others refused: %v", accepted, refused)
	}
	return pods
}

// tokens are uses of tokens that must be accepted: in turn a new one of the TokenRequest API, and the one
// that each Secret of the namespace team holds at that moment.
type tokens struct {
	cancel context.CancelFunc
	done   sync.WaitGroup

	mu       sync.Mutex
	accepted int
	refused  []error
}

func (p plane) startTokens(t *testing.T) *tokens {
	t.Helper()
	for _, use := range p.tokenUses() {
		eventually(t, "a token is accepted", use)
	}
	ctx, cancel := context.WithCancel(t.Context())
	k := &tokens{cancel: cancel}
	uses := p.tokenUses()
	k.done.Go(func() {
		ticker := time.NewTicker(time.Second / perSecond)
		defer ticker.Stop()
		for i := 0; ; i++ {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
				k.note(uses[i%len(uses)](context.WithoutCancel(ctx)))
			}
		}
	})
	t.Cleanup(func() { k.end() })
	return k
}

func (k *tokens) note(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err != nil {
		k.refused = append(k.refused, err)
	} else {
		k.accepted++
	}
}

func (k *tokens) count() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.accepted
}

func (k *tokens) end() (refused []error) {
	k.cancel()
	k.done.Wait()
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.refused)
}

// tokenUses are the uses of tokens, one after the other.
func (p plane) tokenUses() []func(context.Context) error {
	uses := []func(context.Context) error{func(ctx context.Context) error {
		request, err := p.client.CoreV1().ServiceAccounts(team).CreateToken(ctx, "robot", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
		if err != nil {
			return fmt.Errorf("request a token: %w", err)
		}
		return p.review(ctx, "a requested token", request.Status.Token)
	}}
	for secret, key := range withTokens {
		uses = append(uses, func(ctx context.Context) error {
			token, err := p.tokenIn(ctx, secret, key)
			if err != nil {
				return err
			}
			return p.review(ctx, "the token in "+secret, token)
		})
	}
	return uses
}

// tokenIn returns the token that a Secret of team holds.
func (p plane) tokenIn(ctx context.Context, secret, key string) (string, error) {
	found, err := p.client.CoreV1().Secrets(team).Get(ctx, secret, metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	if len(found.Data[key]) == 0 {
		return "", fmt.Errorf("secret %s has no %s", secret, key)
	}
	return string(found.Data[key]), nil
}

// review asks the API server whether a token is one of robot.
func (p plane) review(ctx context.Context, what, token string) error {
	answer, err := p.client.AuthenticationV1().TokenReviews().Create(ctx, &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token}}, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("review %s: %w", what, err)
	}
	if want := "system:serviceaccount:" + team + ":robot"; !answer.Status.Authenticated || answer.Status.User.Username != want {
		return fmt.Errorf("%s is not accepted as that of %s, but as that of %q: %s", what, want, answer.Status.User.Username, answer.Status.Error)
	}
	return nil
}
