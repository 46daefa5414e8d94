package tokencleaner

import (
	"fmt"
	"testing"

	"k8s.io/klog/v2"
	"k8s.io/klog/v2/ktesting"

	"github.com/sakeeper/sakeeper/pkg/testkit"
)

// BenchmarkPassWithNothingToDo measures a pass without its only request, in a
// cluster with 100,000 token Secrets in 1,000 namespaces.
func BenchmarkPassWithNothingToDo(b *testing.B) {
	f := newFixture(b, nil)
	for n := range 1000 {
		namespace := fmt.Sprintf("team-%d", n)
		account := testkit.ServiceAccount(namespace + "/robot")
		f.cache(b, testkit.Namespace(namespace))
		for i := range 100 {
			name := fmt.Sprintf("s-%d", i)
			testkit.WithReferences(name)(account)
			f.cache(b, secret(namespace+"/"+name, testkit.WithLabel(lastUsed, "2026-04-12")))
		}
		f.cache(b, account)
	}
	ctx := klog.NewContext(b.Context(), ktesting.NewLogger(b, ktesting.NewConfig()))
	b.ReportAllocs()
	for b.Loop() {
		if err := f.begin(ctx); err != nil {
			b.Fatal(err)
		}
	}
}
