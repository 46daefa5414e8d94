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
			f := newFixture(b, empty())
			for i := range others {
				f.cache(b, empty(named(fmt.Sprint("other-", i)), testkit.WithAccount(fmt.Sprint("other-", i))))
			}
			for b.Loop() {
				f.accountDeleted(robot())
			}
		})
	}
}
