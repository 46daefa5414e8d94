package tokensecret

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/sakeeper/sakeeper/pkg/internal/workqueue"
	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/token"
)

// Slots of the rate limiter from one rotation, in which all tokens were to be signed anew, must not
// be used at once by the next rotation.
func TestAKeyThatComesAndGoesCausesNoBurst(t *testing.T) {
	f := newFixture(t, apiServer{}, testkit.ServiceAccount("team/robot"))
	f.cfg.Resign = ResignAll
	names := make([]string, 20)
	for i := range names {
		names[i] = fmt.Sprint("s", i)
		old := secret(testkit.WithData("token", signedBy(t, "p256", func(c *token.LegacyClaims) { c.SecretName = names[i] })))
		old.Name = names[i]
		f.cache(t, old)
	}
	syncAll := func() (written int) {
		f.client.ClearActions()
		for _, name := range names {
			if _, err := f.sync(f.context(t), objectName("team/"+name)); err != nil && !errors.Is(err, workqueue.ErrRequeueLater) {
				t.Fatal(err)
			}
		}
		return len(f.writes())
	}
	former, next := testkit.Keys("p256", "rsa2048"), testkit.Keys("rsa2048", "p256")
	for range 2 {
		f.setKeys(next)
		if got := syncAll(); got > 1 {
			t.Errorf("%d tokens were signed anew at once", got)
		}
		f.setKeys(former)
		if got := syncAll(); got != 0 {
			t.Errorf("%d tokens of the key that signs were signed anew", got)
		}
		f.advance(time.Hour)
	}
}

func TestReviewsAreRateLimited(t *testing.T) {
	f := newFixture(t, apiServer{}, testkit.ServiceAccount("team/robot"))
	waiting := 0
	for i := range checksAtOnce + 10 {
		name := fmt.Sprint("s", i)
		stored := secret(testkit.WithData("token", signedBy(t, "p384", func(c *token.LegacyClaims) { c.SecretName = name })))
		stored.Name = name
		f.cache(t, stored)
		if _, err := f.sync(f.context(t), objectName("team/"+name)); err != nil {
			t.Fatal(err)
		}
	}
	f.advance(firstReviewDelay)
	for i := range checksAtOnce + 10 {
		requeueAfter, err := f.sync(f.context(t), objectName(fmt.Sprint("team/s", i)))
		if err != nil && !errors.Is(err, workqueue.ErrRequeueLater) {
			t.Fatal(err)
		}
		if requeueAfter > 0 {
			waiting++
		}
	}
	if waiting != 10 {
		t.Errorf("%d wait", waiting)
	}
}
