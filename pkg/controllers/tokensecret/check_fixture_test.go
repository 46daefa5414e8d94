package tokensecret

import (
	"errors"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/internal/workqueue"
	"github.com/sakeeper/sakeeper/pkg/keys"
	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/token"
)

// signedBy is a real token of team/s for team/robot.
func signedBy(t *testing.T, key string, change ...func(*token.LegacyClaims)) string {
	t.Helper()
	claims := token.LegacyClaims{Namespace: "team", SecretName: "s", ServiceAccountName: "robot", ServiceAccountUID: string(testkit.AccountUID)}
	for _, c := range change {
		c(&claims)
	}
	set := testkit.Keys(key)
	compact, err := token.NewSigner(func() *keys.Set { return set }).SignLegacy(t.Context(), claims)
	if err != nil {
		t.Fatal(err)
	}
	return compact
}

// newCheckFixture is a controller with the keys p256, which signs, and rsa2048, and with the Secret
// team/s of team/robot with that token, in its cache and at the API server. If the token looks dead,
// it has done so for long enough to be reviewed.
func newCheckFixture(t *testing.T, compact string, opts ...testkit.Option) fixture {
	t.Helper()
	stored := secret(append([]testkit.Option{testkit.WithData("token", compact)}, opts...)...)
	f := newFixture(t, apiServer{}, testkit.ServiceAccount("team/robot"), stored)
	f.client.PrependReactor("get", "secrets", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, stored.DeepCopy(), nil
	})
	f.takeNotes(t, stored)
	f.syncS(t)
	f.advance(firstReviewDelay)
	return f
}

// takeNotes puts notes of reviews that are patched into stored, and into the cache of f.
func (f fixture) takeNotes(t *testing.T, stored *corev1.Secret) {
	t.Helper()
	f.client.PrependReactor("patch", "secrets", func(action clienttesting.Action) (bool, runtime.Object, error) {
		if note := noteOf(testkit.Requests([]clienttesting.Action{action})[0]); note != "" {
			stored.Annotations[api.ReviewedAnnotation] = note
			f.cache(t, stored)
		}
		return true, stored.DeepCopy(), nil
	})
	f.cache(t, stored)
}

// noteOf returns the note of a patch that writes nothing but a note.
func noteOf(r testkit.Request) string {
	body, _ := r.Body.(map[string]any)
	metadata, _ := body["metadata"].(map[string]any)
	annotations, _ := metadata["annotations"].(map[string]any)
	note, _ := annotations[api.ReviewedAnnotation].(string)
	if len(body) != 1 || len(annotations) != 1 || len(metadata) != 3 {
		return ""
	}
	return note
}

// syncS syncs team/s three times, because a review queues it again, and its note too.
func (f fixture) syncS(t *testing.T) (requeueAfter time.Duration) {
	t.Helper()
	for range 3 {
		var err error
		if requeueAfter, err = f.sync(f.context(t), objectName("team/s")); err != nil && !errors.Is(err, workqueue.ErrRequeueLater) {
			t.Fatal(err)
		}
	}
	return requeueAfter
}

// notes are the notes that were written.
func (f fixture) notes() []string {
	var list []string
	for _, r := range testkit.Requests(f.client.Actions()) {
		if note := noteOf(r); note != "" {
			list = append(list, note)
		}
	}
	return list
}

// writes are the requests other than GETs and notes.
func (f fixture) writes() []string {
	var list []string
	for _, r := range testkit.Requests(f.client.Actions()) {
		if r.Verb != "get" && noteOf(r) == "" {
			list = append(list, r.Verb+" "+r.Resource+" "+r.Name)
		}
	}
	return list
}

// restarted is another process with the same caches.
func (f fixture) restarted(t *testing.T) fixture {
	t.Helper()
	f.Controller = newController(t, f.client, f.recorder, f.clock, testkit.Bundle, f.reviewer)
	stored, err := f.client.CoreV1().Secrets("team").Get(t.Context(), "s", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	f.client.PrependReactor("get", "secrets", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, stored.DeepCopy(), nil
	})
	f.cache(t, testkit.ServiceAccount("team/robot"))
	f.takeNotes(t, stored)
	return f
}

// setKeys makes set the known keys.
func (f fixture) setKeys(set *keys.Set) { f.cfg.Tokens = tokens{set: set, refreshed: new(int)} }

func (f fixture) statusOf(cached *cache.TokenSecret) tokenStatus {
	set := f.known()
	return f.infoOf(cached, testkit.AccountUID, set).status(set.Signing().PublicKey().ID())
}
