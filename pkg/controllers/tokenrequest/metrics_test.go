package tokenrequest

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/testkit"
)

func (f fixture) expectMetrics(t *testing.T, states map[string]int, expiry string) {
	t.Helper()
	text := `# HELP sakeeper_managed_tokens Secrets that ask for a token that is renewed, by state (valid, pending, failing, expired, unserved).
# TYPE sakeeper_managed_tokens gauge
`
	for _, state := range []string{stateExpired, stateFailing, statePending, stateUnserved, stateValid} {
		text += fmt.Sprintf("sakeeper_managed_tokens{state=%q} %d\n", state, states[state])
	}
	if expiry != "" {
		text += `# HELP sakeeper_managed_token_next_expiry_seconds Time until the first of the tokens that are kept fresh expires; negative: one has expired. There is none without tokens.
# TYPE sakeeper_managed_token_next_expiry_seconds gauge
sakeeper_managed_token_next_expiry_seconds ` + expiry + "\n"
	}
	if err := testutil.GatherAndCompare(f.registry, strings.NewReader(text), "sakeeper_managed_tokens", "sakeeper_managed_token_next_expiry_seconds"); err != nil {
		t.Error(err)
	}
}

func TestMetrics(t *testing.T) {
	named := func(name string) testkit.Option {
		return func(o metav1.Object) { o.SetName(name); o.SetUID(types.UID(name)) }
	}
	elsewhere := func(o metav1.Object) { o.SetNamespace("elsewhere") }
	f := newFixture(t, served(), robot())
	f.expectMetrics(t, nil, "")

	f.cache(t, managed(named("not-managed"), testkit.WithLabel(api.TokenLabel, "true")))
	f.cache(t, filled(named("not-managed-any-more"), testkit.WithLabel(api.TokenLabel, "false"), elsewhere))
	f.expectMetrics(t, nil, "")
	f.cache(t, managed(named("pending")))
	f.cache(t, managed(named("refused"), with("lifetime", "1m")))
	f.cache(t, testkit.Namespace("elsewhere"))
	f.cache(t, managed(named("unserved"), elsewhere))
	f.cache(t, filledFrom(managed(with("lifetime", "1h30m"), named("unserved-with-a-token")), elsewhere))
	f.expectMetrics(t, map[string]int{stateFailing: 1, statePending: 1, stateUnserved: 2}, "")

	f.cache(t, filledFrom(managed(named("day"))))
	f.cache(t, filledFrom(managed(named("two"), with("lifetime", "2h"))))
	f.expectMetrics(t, map[string]int{stateFailing: 1, statePending: 1, stateUnserved: 2, stateValid: 2}, "3600")
	f.pass(time.Hour)
	f.expectMetrics(t, map[string]int{stateFailing: 1, statePending: 1, stateUnserved: 2, stateValid: 1, stateExpired: 1}, "0")
	f.pass(time.Minute)
	f.expectMetrics(t, map[string]int{stateFailing: 1, statePending: 1, stateUnserved: 2, stateValid: 1, stateExpired: 1}, "-60")
}

func TestMetricsShowAFailureUntilItIsOver(t *testing.T) {
	f := newFixture(t, served(), robot(), managed())
	f.api.configure(func(a *fakeAPIServer) { a.tokensErr = errBoom })
	f.mustFail(t)
	f.expectMetrics(t, map[string]int{stateFailing: 1}, "")
	f.api.configure(func(a *fakeAPIServer) { a.tokensErr = nil })
	f.mustSync(t)
	f.cache(t, f.api.secret())
	f.expectMetrics(t, map[string]int{stateValid: 1}, "86400")

	// A failed renewal that is no longer needed is not a failure.
	token := f.api.secret().Data["token"]
	f.api.updateSecret(func(s *corev1.Secret) { delete(s.Data, "token") })
	f.cache(t, f.api.secret())
	f.api.configure(func(a *fakeAPIServer) { a.writesErr = errBoom })
	f.mustFail(t)
	f.expectMetrics(t, map[string]int{stateFailing: 1}, "86400")
	f.api.updateSecret(func(s *corev1.Secret) { s.Data["token"] = token })
	f.mustSync(t)
	f.expectMetrics(t, map[string]int{stateValid: 1}, "86400")
}
