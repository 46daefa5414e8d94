package tokencleaner

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	corev1 "k8s.io/api/core/v1"

	"github.com/sakeeper/sakeeper/pkg/testkit"
)

func TestMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, nil, testkit.Namespace("team"), testkit.Namespace("quiet", testkit.WithUID(testkit.OtherUID)),
			robot("mark", "gone", "pod", "used", "waits"), secret("team/mark"), secret("team/gone", marked()), secret("team/pod"), secret("team/hand"),
			secret("team/used", testkit.WithLabel(lastUsed, "2026-04-12")), secret("team/waits", testkit.WithLabel(invalidSince, "2026-04-12")),
			testkit.ServiceAccount("quiet/robot", testkit.WithReferences("used")), secret("quiet/used", testkit.WithLabel(lastUsed, "2026-04-12")))
		f.server.pods["team"] = []corev1.PodList{podsReferringTo(corev1.PodRunning, "pod")}
		f.server.failWith("delete secrets", testkit.InternalError())
		expect := func(step, want string) {
			t.Helper()
			if err := testutil.GatherAndCompare(f.registry, strings.NewReader(want), "sakeeper_token_clean_ups_total", "sakeeper_token_clean_up_secrets", "sakeeper_token_clean_up_last_pass_timestamp_seconds"); err != nil {
				t.Errorf("%s: %v", step, err)
			}
		}
		expect("before the first pass", metricsText(0, map[string]int{}, map[string]int{}))
		stop := f.start(t)
		defer stop()
		expect("after it", metricsText(now().Unix(),
			map[string]int{"mark done": 1, "delete error": 1},
			map[string]int{"unused": 1, "expired": 1, "mounted": 1, "unreferenced": 1, "used": 2, "waiting": 1}))
		f.server.failWith("delete secrets", nil)
		f.cache(t, secret("team/mark", testkit.WithLabel(invalidSince, "2026-04-12")))
		time.Sleep(time.Second)
		synctest.Wait()
		got, err := testutil.GatherAndCount(f.registry, "sakeeper_token_clean_ups_total", "sakeeper_token_clean_up_secrets", "sakeeper_token_clean_up_last_pass_timestamp_seconds")
		if err != nil || got != 8+13+1 {
			t.Errorf("%d series, %v", got, err)
		}
		if n := testutil.ToFloat64(f.metrics.verdicts.WithLabelValues("waiting")); n != 2 {
			t.Errorf("after the retry %v wait", n)
		}
		if n := testutil.ToFloat64(f.metrics.verdicts.WithLabelValues("unused")); n != 0 {
			t.Errorf("after the retry %v are unused", n)
		}
	})
}

// metricsText is the expected scrape; values that are not in the maps are zero.
func metricsText(lastPass int64, steps, found map[string]int) string {
	var b strings.Builder
	b.WriteString("# HELP sakeeper_token_clean_up_last_pass_timestamp_seconds When the last clean-up pass was completed, in seconds since 1970; 0: there was none yet.\n" +
		"# TYPE sakeeper_token_clean_up_last_pass_timestamp_seconds gauge\n")
	fmt.Fprintf(&b, "sakeeper_token_clean_up_last_pass_timestamp_seconds %d\n", lastPass)
	b.WriteString("# HELP sakeeper_token_clean_up_secrets Token Secrets by what the last clean-up pass found: unused (to be marked), waiting (marked, and not for long enough) and expired (to be deleted), or else why they stay.\n" +
		"# TYPE sakeeper_token_clean_up_secrets gauge\n")
	for _, v := range []string{
		"expired", "going", "invalid_setting", "kept", "mounted", "undecided", "unreadable_last_used", "unreferenced", "untracked", "unused", "used", "waiting", "young",
	} {
		fmt.Fprintf(&b, "sakeeper_token_clean_up_secrets{verdict=%q} %d\n", v, found[v])
	}
	b.WriteString("# HELP sakeeper_token_clean_ups_total Unused legacy tokens that were acted on, by step (mark, delete) and result (done, dry_run: nothing was changed, changed: the object did meanwhile, error).\n" +
		"# TYPE sakeeper_token_clean_ups_total counter\n")
	for _, step := range []string{"delete", "mark"} {
		for _, result := range []string{"changed", "done", "dry_run", "error"} {
			fmt.Fprintf(&b, "sakeeper_token_clean_ups_total{result=%q,step=%q} %d\n", result, step, steps[step+" "+result])
		}
	}
	return b.String()
}
