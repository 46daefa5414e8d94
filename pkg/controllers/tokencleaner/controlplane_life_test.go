package tokencleaner

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/sakeeper/sakeeper/pkg/testkit"
)

type labels = map[string]string

// TestOnARealAPIServer runs the controller through months by its own clock, with an API server
// whose clock shows today.
func TestOnARealAPIServer(t *testing.T) {
	p := newControlPlane(t)
	since, err := time.Parse(time.DateOnly, p.tracking().Data["since"])
	must(t, err)
	// The API server records the uses of this test on the day since, or on the next one if
	// the test runs at midnight.
	t.Run("from mark to deletion", func(t *testing.T) { p.with(t).lifeOfTokens(since) })
	t.Run("a use by the date", func(t *testing.T) { p.with(t).useByDate() })
	t.Run("pods in pages", func(t *testing.T) { p.with(t).manyPods(since) })
	t.Run("at every interval", func(t *testing.T) { p.with(t).everyInterval(since) })
	t.Run("since when uses are recorded is unknown", func(t *testing.T) { p.with(t).untracked(since) })
}

func (p *controlPlane) with(t *testing.T) *controlPlane {
	t.Helper()
	changed := *p
	changed.t = t
	return &changed
}

func (p *controlPlane) lifeOfTokens(since time.Time) {
	t := p.t
	date := func(t time.Time) string { return t.Format(time.DateOnly) }
	first := since.Add(32*day + time.Hour)
	second := first.Add(32 * day)
	recent := labels{lastUsed: date(first.Add(-10 * day))}

	p.namespace("life")
	p.namespace("asked", testkit.WithAnnotation(cleanUp, "240h"))
	p.robot("life", realSecret("unused"), realSecret("robot-token-bcdfg"), realSecret("mounted"), realSecret("raced"),
		realSecret("in-use", testkit.WithLabel(lastUsed, recent[lastUsed])), realSecret("kept", testkit.WithAnnotation(keepIt, "true")), realSecret("hand"))
	p.robot("asked", realSecret("hand"), realSecret("handkept", testkit.WithAnnotation(keepIt, "true")))
	p.pod("life", "p", "mounted")
	_, err := p.Client.CoreV1().Pods("life").Patch(t.Context(), "p", types.MergePatchType, []byte(`{"status":{"phase":"Succeeded"}}`), metav1.PatchOptions{}, "status")
	must(t, err)
	untouched := map[string]labels{"unused": nil, "robot-token-bcdfg": nil, "mounted": nil, "raced": nil, "in-use": recent, "kept": nil, "hand": nil}

	// Uses are recorded since today: a period and a day must pass.
	events, requests := p.pass(since.Add(31*day-time.Second), nil, func(cfg *Config) { cfg.Period = 30 * day })
	expectSame(t, "a second too early", []string{
		"list pods asked/", "patch secrets asked/hand", // 240h are over
	}, requests)
	expectReasons(t, "a second too early", map[string]int{"MarkedUnusedToken": 1}, events)
	p.expectSecrets("a second too early", "life", untouched)

	events, requests = p.pass(first, nil, dryRun)
	expectSame(t, "dry run", []string{"list pods life/"}, requests)
	p.expectSecrets("dry run", "life", untouched)
	expectReasons(t, "dry run", map[string]int{"WouldMarkUnusedToken": 3}, events)

	events, requests = p.pass(first, nil, nil)
	expectSame(t, "first pass", []string{
		"list pods life/", "patch secrets life/raced", "patch secrets life/robot-token-bcdfg", "patch secrets life/unused",
	}, requests)
	expectReasons(t, "first pass", map[string]int{"MarkedUnusedToken": 3}, events)
	after := maps.Clone(untouched)
	for _, name := range []string{"unused", "robot-token-bcdfg", "raced"} {
		after[name] = labels{invalidSince: date(first)}
	}
	p.expectSecrets("first pass", "life", after)

	_, requests = p.pass(first.Add(30*day-2*time.Hour), nil, nil)
	expectSame(t, "before most marks are old", []string{
		"delete secrets asked/hand", // 240h are over again
		"list pods asked/", "list pods life/",
		"patch secrets life/in-use", // this use is older than the period
	}, requests)
	p.expectSecrets("before most marks are old", "asked", map[string]labels{"handkept": nil})

	events, requests = p.pass(second, nil, dryRun)
	expectSame(t, "second dry run", []string{"list pods life/"}, requests)
	expectReasons(t, "second dry run", map[string]int{"WouldDeleteUnusedToken": 3}, events)

	race := once(http.MethodDelete, "/api/v1/namespaces/life/secrets/raced", func() {
		if status, err := p.use(t.Context(), "life", "raced"); err != nil || status.Authenticated || !strings.Contains(status.Error, "marked invalid") {
			t.Errorf("the API server says %v, %v", status, err)
		}
	})
	events, requests = p.pass(second, race, nil)
	expectSame(t, "second pass", []string{
		"delete secrets life/raced", "delete secrets life/robot-token-bcdfg", "delete secrets life/unused", "list pods life/", "patch serviceaccounts life/robot",
	}, requests)
	expectReasons(t, "second pass", map[string]int{"DeletedUnusedToken": 2}, events)
	left, err := p.secrets(t.Context(), "life")
	must(t, err)
	if used := left["raced"][lastUsed]; used == "" {
		t.Errorf("the use is not recorded: %v", left["raced"])
	}
	expectSame(t, "second pass", []string{"hand", "in-use", "kept", "mounted", "raced"}, slices.Sorted(maps.Keys(left)))
	account, err := p.Client.CoreV1().ServiceAccounts("life").Get(t.Context(), "robot", metav1.GetOptions{})
	must(t, err)
	if diff := cmp.Diff(labels{"sakeeper.io/token-cleaned-up": date(second)}, account.Annotations); diff != "" {
		t.Errorf("annotations of the account (-want +got):\n%s", diff)
	}

	must(t, p.Client.CoreV1().Pods("life").Delete(t.Context(), "p", metav1.DeleteOptions{GracePeriodSeconds: new(int64)}))
	_, requests = p.pass(second, nil, nil)
	expectSame(t, "the pod was deleted, and the use is older than the period", []string{"delete secrets life/raced", "list pods life/", "patch secrets life/mounted"}, requests)
}

// useByDate has a period of an hour, which includes the uses that the API server records today.
func (p *controlPlane) useByDate() {
	t := p.t
	if now := time.Now().UTC(); now.Add(time.Minute).Day() != now.Day() {
		t.Skip("today ends before this test may")
	}
	p.trackSince(time.Now().Add(-20 * day))
	old := testkit.WithLabel(invalidSince, time.Now().UTC().Add(-10*day).Format(time.DateOnly))
	p.namespace("date")
	p.robot("date", realSecret("used"), realSecret("missed", old), realSecret("forgotten", old))
	for _, name := range []string{"used", "missed"} {
		status, err := p.use(t.Context(), "date", name)
		if err != nil || status.Authenticated != (name == "used") {
			t.Errorf("%s: the API server says %v, %v", name, status, err)
		}
	}
	before, err := p.secrets(t.Context(), "date")
	must(t, err)
	clock := time.Now().Add(time.Hour + 2*time.Second)
	_, requests := p.pass(clock, nil, func(cfg *Config) { cfg.Period = time.Hour })
	var here []string
	for _, r := range requests {
		if strings.Contains(r, " date/") {
			here = append(here, r)
		}
	}
	expectSame(t, "requests", []string{"delete secrets date/forgotten", "list pods date/"}, here)
	delete(before, "forgotten")
	p.expectSecrets("after the pass", "date", before)
}

func (p *controlPlane) manyPods(since time.Time) {
	t := p.t
	p.trackSince(since)
	p.namespace("many")
	p.robot("many", realSecret("mounted-first"), realSecret("mounted-last"), realSecret("unused"))
	p.pod("many", "a", "mounted-first")
	for i := range 520 {
		p.pod("many", fmt.Sprintf("b-%d", i), "something-else")
	}
	p.pod("many", "z", "mounted-last")
	_, requests := p.pass(since.Add(33*day), nil, nil)
	var here []string
	for _, r := range requests {
		if strings.Contains(r, " many/") {
			here = append(here, r)
		}
	}
	expectSame(t, "requests", []string{"list pods many/", "list pods many/", "patch secrets many/unused"}, here)
}

// everyInterval runs one controller while months pass.
func (p *controlPlane) everyInterval(since time.Time) {
	t := p.t
	p.namespace("interval")
	p.robot("interval", realSecret("unused"))
	clock := clocktesting.NewFakePassiveClock(since.Add(10 * day))
	r := p.run(clock, nil, func(cfg *Config) { cfg.Interval = 20 * time.Millisecond })
	defer r.stop()
	marked := func(ctx context.Context) error {
		secret, err := p.Client.CoreV1().Secrets("interval").Get(ctx, "unused", metav1.GetOptions{})
		if err == nil && secret.Labels[invalidSince] == "" {
			err = errors.New("not marked")
		}
		return err
	}
	p.eventually("the first pass", func(context.Context) error {
		if !r.Ready() {
			return errors.New("not ready")
		}
		return nil
	})
	clock.SetTime(since.Add(33 * day))
	p.eventually("the mark", marked)
	_, err := p.Client.CoreV1().Secrets("interval").Patch(t.Context(), "unused", types.MergePatchType,
		[]byte(`{"metadata":{"labels":{"`+invalidSince+`":null}}}`), metav1.PatchOptions{})
	must(t, err)
	p.eventually("the mark, once more", marked)
	clock.SetTime(since.Add(66 * day))
	p.eventually("the deletion", func(ctx context.Context) error {
		_, err := p.Client.CoreV1().Secrets("interval").Get(ctx, "unused", metav1.GetOptions{})
		return expectNotFound(err)
	})
}

func (p *controlPlane) untracked(since time.Time) {
	t := p.t
	p.namespace("untracked")
	p.robot("untracked", realSecret("unused"), realSecret("hand", testkit.WithAnnotation(cleanUp, "1h")))
	p.trackSince(since.AddDate(100, 0, 0))
	events, requests := p.pass(since.AddDate(50, 0, 0), nil, nil)
	expectSame(t, "requests", nil, requests)
	expectSame(t, "events", []string{"Warning UnusableTokenTracking No tokens are cleaned up, because the date in the key since lies in the future"}, events)

	// The API server creates it again, but not within 30 minutes.
	must(t, p.Client.CoreV1().ConfigMaps("kube-system").Delete(t.Context(), trackingName, metav1.DeleteOptions{}))
	events, requests = p.pass(since.AddDate(50, 0, 0), nil, nil)
	expectSame(t, "requests", nil, requests)
	expectSame(t, "events", nil, events)
}

func expectSame(t *testing.T, what string, want, got []string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// expectReasons counts events by their reason.
func expectReasons(t *testing.T, step string, want map[string]int, events []string) {
	t.Helper()
	got := map[string]int{}
	for _, e := range events {
		got[strings.Fields(e)[1]]++
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s: events (-want +got):\n%s", step, diff)
	}
}

func dryRun(cfg *Config) { cfg.DryRun = true }
