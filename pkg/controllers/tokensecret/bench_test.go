package tokensecret

import (
	"fmt"
	"testing"

	"github.com/sakeeper/sakeeper/pkg/testkit"
)

// BenchmarkAccountDeleted shows that finding the Secrets of a deleted account does
// not depend on how many others the namespace has.
func BenchmarkAccountDeleted(b *testing.B) {
	for _, others := range []int{0, 10000} {
		b.Run(fmt.Sprintf("others=%d", others), func(b *testing.B) {
			f := newFixture(b, apiServer{})
			for i := range others {
				f.cache(b, testkit.Secret(fmt.Sprintf("team/other-%d", i), testkit.WithAccount(fmt.Sprintf("other-%d", i))))
			}
			f.cache(b, testkit.Secret("team/mine", testkit.WithAccount("robot")))
			account := robot()
			b.ResetTimer()
			for b.Loop() {
				f.accountDeleted(account)
			}
		})
	}
}
