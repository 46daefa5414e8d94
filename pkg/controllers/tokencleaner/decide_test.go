package tokencleaner

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/testkit"
)

const (
	day    = 24 * time.Hour
	period = 30 * day

	lastUsed     = "kubernetes.io/legacy-token-last-used"
	invalidSince = "kubernetes.io/legacy-token-invalid-since"
	cleanUp      = "sakeeper.io/clean-up-unused"
	keepIt       = "sakeeper.io/keep"
)

// now is 100 days after all fixtures were created. The period of 30 days began on
// 2026-03-13 at 03:04:05.
func now() time.Time { return testkit.Instant().Add(100 * day) }

// unusedState is a Secret that must be marked, modified by changes: it is 100 days old, uses
// are recorded since it was 1 day old, and there is none.
func unusedState(changes ...func(*state)) state {
	s := state{
		secret:    tokenSecret(),
		namespace: testkit.Namespace("team"),
		account:   testkit.ServiceAccount("team/robot", testkit.WithReferences("other", "s")),
		mounts:    mountsNone,
		tracked:   time.Date(2026, time.January, 3, 0, 0, 0, 0, time.UTC),
		period:    period,
		now:       now(),
	}
	for _, change := range changes {
		change(&s)
	}
	return s
}

func tokenSecret(opts ...testkit.Option) *cache.TokenSecret {
	return cache.NewTokenSecret(testkit.Secret("team/s", append([]testkit.Option{testkit.WithAccount("robot"), testkit.WithData("token", "x")}, opts...)...), nil)
}

func secretWith(opts ...testkit.Option) func(*state) {
	return func(s *state) {
		for _, opt := range opts {
			opt(s.secret)
		}
	}
}

func label(key, value string) func(*state) { return secretWith(testkit.WithLabel(key, value)) }

func setting(key, value string) func(*state) { return secretWith(testkit.WithAnnotation(key, value)) }

func namespaceSetting(key, value string) func(*state) {
	return func(s *state) { testkit.WithAnnotation(key, value)(s.namespace) }
}

func pods(m mounts) func(*state) { return func(s *state) { s.mounts = m } }

func at(t time.Time) func(*state) { return func(s *state) { s.now = t } }

func unreferencedByAccount(s *state) { s.account.Secrets = nil }

func TestDecide(t *testing.T) {
	created := func(t time.Time) func(*state) {
		return func(s *state) { s.secret.CreationTimestamp = metav1.NewTime(t) }
	}
	tracked := func(year int, month time.Month, day int) func(*state) {
		return func(s *state) { s.tracked = time.Date(year, month, day, 0, 0, 0, 0, time.UTC) }
	}
	deleting := secretWith(testkit.Deleting())
	begin := now().Add(-period)
	type want = decision
	var (
		toMark   = want{action: mark, verdict: unused, period: period}
		toRemove = want{action: remove, verdict: expired, period: period}
		stays    = func(v verdict) want { return want{verdict: v, period: period} }
	)
	cases := map[string]struct {
		in   []func(*state)
		want decision
	}{
		"unused":                      {want: toMark},
		"marked, and a period passed": {in: []func(*state){label(invalidSince, "2026-03-12")}, want: toRemove},

		"it is being deleted":                     {in: []func(*state){deleting}, want: want{verdict: going}},
		"its namespace is not known":              {in: []func(*state){func(s *state) { s.namespace = nil }}, want: want{verdict: going}},
		"since when uses are recorded is unknown": {in: []func(*state){func(s *state) { s.tracked = time.Time{} }}, want: stays(untracked)},
		"uses are recorded for 1 ns less than the period": {
			in: []func(*state){at(time.Date(2026, time.February, 2, 0, 0, 0, 0, time.UTC).Add(-1)), created(testkit.Instant().Add(-period))}, want: stays(untracked)},
		"uses are recorded for exactly the period": {
			in: []func(*state){at(time.Date(2026, time.February, 2, 0, 0, 0, 0, time.UTC)), created(testkit.Instant().Add(-period))}, want: toMark},
		"uses are recorded since yesterday": {in: []func(*state){tracked(2026, time.April, 11)}, want: stays(untracked)},

		"it was created 1 ns after the period began":  {in: []func(*state){created(begin.Add(1))}, want: stays(young)},
		"it was created when the period began":        {in: []func(*state){created(begin)}, want: stays(young)},
		"it was created 1 ns before the period began": {in: []func(*state){created(begin.Add(-1))}, want: toMark},

		"used today":                                          {in: []func(*state){label(lastUsed, "2026-04-12")}, want: stays(used)},
		"used tomorrow, by another clock":                     {in: []func(*state){label(lastUsed, "2026-04-13")}, want: stays(used)},
		"used on the day on which the period began":           {in: []func(*state){label(lastUsed, "2026-03-13")}, want: stays(used)},
		"used on the day before":                              {in: []func(*state){label(lastUsed, "2026-03-12")}, want: toMark},
		"used again after it was marked":                      {in: []func(*state){label(invalidSince, "2026-03-01"), label(lastUsed, "2026-03-13")}, want: stays(used)},
		"used after it was marked, but not within the period": {in: []func(*state){label(invalidSince, "2026-03-01"), label(lastUsed, "2026-03-12")}, want: toRemove},
		"the last use is not a date":                          {in: []func(*state){label(lastUsed, "yesterday")}, want: want{verdict: unreadable, period: period, warning: unreadableUse}},
		"the last use is empty":                               {in: []func(*state){label(lastUsed, "")}, want: want{verdict: unreadable, period: period, warning: unreadableUse}},
		"the last use is a day that does not exist":           {in: []func(*state){label(lastUsed, "2026-02-30")}, want: want{verdict: unreadable, period: period, warning: unreadableUse}},
		"the last use is a date with a time":                  {in: []func(*state){label(lastUsed, "2026-01-01T00-00")}, want: want{verdict: unreadable, period: period, warning: unreadableUse}},

		"its account does not exist":       {in: []func(*state){func(s *state) { s.account = nil }}, want: stays(unreferenced)},
		"its account does not refer to it": {in: []func(*state){unreferencedByAccount}, want: stays(unreferenced)},

		"marked today": {in: []func(*state){label(invalidSince, "2026-04-12")}, want: stays(waiting)},
		"marked on the day on which the period began": {in: []func(*state){label(invalidSince, "2026-03-13")}, want: stays(waiting)},
		"marked in the future":                        {in: []func(*state){label(invalidSince, "2027-01-01")}, want: stays(waiting)},
		"marked, but not with a date":                 {in: []func(*state){label(invalidSince, "true")}, want: toMark},
		"marked with an empty date":                   {in: []func(*state){label(invalidSince, "")}, want: toMark},

		"to be marked, pods were not listed":      {in: []func(*state){pods(mountsUnknown)}, want: want{action: checkPods, verdict: undecided, period: period}},
		"to be deleted, pods were not listed":     {in: []func(*state){pods(mountsUnknown), label(invalidSince, "2026-03-12")}, want: want{action: checkPods, verdict: undecided, period: period}},
		"marked today, pods need not be listed":   {in: []func(*state){pods(mountsUnknown), label(invalidSince, "2026-04-12")}, want: stays(waiting)},
		"not referenced, pods need not be listed": {in: []func(*state){pods(mountsUnknown), unreferencedByAccount}, want: stays(unreferenced)},
		"used, pods need not be listed":           {in: []func(*state){pods(mountsUnknown), label(lastUsed, "2026-04-12")}, want: stays(used)},
		"a pod refers to it":                      {in: []func(*state){pods(mountsSome)}, want: stays(mounted)},
		"a pod refers to it, and it was marked":   {in: []func(*state){pods(mountsSome), label(invalidSince, "2026-03-12")}, want: stays(mounted)},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) { expectDecision(t, tc.want, unusedState(tc.in...)) })
	}
}

func expectDecision(t *testing.T, want decision, in state) {
	t.Helper()
	if diff := cmp.Diff(want, decide(in), cmp.AllowUnexported(decision{}, warning{})); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// The events about mistakes that a user must fix.
var (
	unreadableUse = warning{
		reason: "UnreadableLastUsed",
		text:   "The label kubernetes.io/legacy-token-last-used is not a date such as 2006-01-02, so it is unknown whether this token is in use, and it is not cleaned up",
	}
	noDuration = warning{
		reason: "InvalidCleanUpSetting",
		text:   "The annotation sakeeper.io/clean-up-unused is not a positive duration such as 720h. This token secret is not cleaned up",
	}
	noDurationOnNamespace = warning{
		onNamespace: true, reason: "InvalidCleanUpSetting",
		text: "The annotation sakeeper.io/clean-up-unused is not a positive duration such as 720h. Token secrets in this namespace that have no such annotation of their own are not cleaned up",
	}
	noBool = warning{
		reason: "InvalidCleanUpSetting",
		text:   "The annotation sakeeper.io/keep is neither true nor false. This token secret is not cleaned up",
	}
	noBoolOnNamespace = warning{
		onNamespace: true, reason: "InvalidCleanUpSetting",
		text: "The annotation sakeeper.io/keep is neither true nor false. Token secrets in this namespace that have no such annotation of their own are not cleaned up",
	}
)

func TestDecideByAnnotations(t *testing.T) {
	type want = decision
	var (
		toMark    = want{action: mark, verdict: unused, period: period}
		markAfter = func(d time.Duration) want { return want{action: mark, verdict: unused, period: d} }
		stays     = func(v verdict, d time.Duration) want { return want{verdict: v, period: d} }
		tracked10 = func(s *state) { s.tracked = now().Add(-10 * day) }
	)
	cases := map[string]struct {
		in   []func(*state)
		want decision
	}{
		"keep it":                                     {in: []func(*state){setting(keepIt, "true")}, want: want{verdict: kept}},
		"keep it, in another spelling":                {in: []func(*state){setting(keepIt, "1")}, want: want{verdict: kept}},
		"do not keep it":                              {in: []func(*state){setting(keepIt, "false")}, want: toMark},
		"keep all of the namespace":                   {in: []func(*state){namespaceSetting(keepIt, "true")}, want: want{verdict: kept}},
		"keep all of the namespace, but not it":       {in: []func(*state){namespaceSetting(keepIt, "true"), setting(keepIt, "false")}, want: toMark},
		"keep it, of the whole namespace":             {in: []func(*state){namespaceSetting(keepIt, "false"), setting(keepIt, "true")}, want: want{verdict: kept}},
		"keep it, also when asked to clean it up":     {in: []func(*state){setting(keepIt, "true"), setting(cleanUp, "24h")}, want: want{verdict: kept}},
		"keep it, also when it was marked":            {in: []func(*state){setting(keepIt, "true"), label(invalidSince, "2026-01-01")}, want: want{verdict: kept}},
		"keep it, with an invalid duration":           {in: []func(*state){setting(keepIt, "true"), setting(cleanUp, "soon")}, want: want{verdict: kept}},
		"keep it, with an invalid value":              {in: []func(*state){setting(keepIt, "perhaps")}, want: want{verdict: kept, warning: noBool}},
		"keep it, with an empty value":                {in: []func(*state){setting(keepIt, "")}, want: want{verdict: kept, warning: noBool}},
		"keep all, with an invalid value":             {in: []func(*state){namespaceSetting(keepIt, "perhaps")}, want: want{verdict: kept, warning: noBoolOnNamespace}},
		"keep all, with an invalid value, but not it": {in: []func(*state){namespaceSetting(keepIt, "perhaps"), setting(keepIt, "false")}, want: toMark},

		"clean it up after a shorter time": {in: []func(*state){setting(cleanUp, "24h"), label(lastUsed, "2026-04-10")}, want: markAfter(day)},
		"not on the day that the shorter time began": {
			in: []func(*state){setting(cleanUp, "24h"), label(lastUsed, "2026-04-11")}, want: stays(used, day)},
		"clean it up after a longer time":                        {in: []func(*state){setting(cleanUp, "1000h"), label(lastUsed, "2026-03-12")}, want: stays(used, 1000*time.Hour)},
		"uses are recorded for the shorter time":                 {in: []func(*state){tracked10, setting(cleanUp, "240h")}, want: markAfter(10 * day)},
		"uses are not recorded for the shorter time":             {in: []func(*state){tracked10, setting(cleanUp, "240h1ns")}, want: stays(untracked, 10*day+1)},
		"younger than the longer time":                           {in: []func(*state){func(s *state) { s.tracked = testkit.Instant().Add(-300 * day) }, setting(cleanUp, "2400h")}, want: stays(young, 100*day)},
		"marked for the shorter time":                            {in: []func(*state){setting(cleanUp, "24h"), label(invalidSince, "2026-04-10")}, want: want{action: remove, verdict: expired, period: day}},
		"not marked for the shorter time":                        {in: []func(*state){setting(cleanUp, "24h"), label(invalidSince, "2026-04-11")}, want: stays(waiting, day)},
		"clean up one that is not referenced":                    {in: []func(*state){setting(cleanUp, "24h"), unreferencedByAccount}, want: markAfter(day)},
		"clean up all of the namespace, one not referenced":      {in: []func(*state){namespaceSetting(cleanUp, "48h"), unreferencedByAccount}, want: markAfter(2 * day)},
		"the namespace sets one time, and it another":            {in: []func(*state){namespaceSetting(cleanUp, "48h"), setting(cleanUp, "24h"), unreferencedByAccount}, want: markAfter(day)},
		"not referenced, its account does not exist":             {in: []func(*state){setting(cleanUp, "24h"), func(s *state) { s.account = nil }}, want: stays(unreferenced, day)},
		"not referenced, a pod refers to it":                     {in: []func(*state){setting(cleanUp, "24h"), unreferencedByAccount, pods(mountsSome)}, want: stays(mounted, day)},
		"not referenced, pods were not listed":                   {in: []func(*state){setting(cleanUp, "24h"), unreferencedByAccount, pods(mountsUnknown)}, want: want{action: checkPods, verdict: undecided, period: day}},
		"not referenced, the last use is not a date":             {in: []func(*state){setting(cleanUp, "24h"), unreferencedByAccount, label(lastUsed, "x")}, want: want{verdict: unreadable, period: day, warning: unreadableUse}},
		"a duration without a unit":                              {in: []func(*state){setting(cleanUp, "30")}, want: want{verdict: invalidSetting, warning: noDuration}},
		"a duration in days":                                     {in: []func(*state){setting(cleanUp, "30d")}, want: want{verdict: invalidSetting, warning: noDuration}},
		"a duration of zero":                                     {in: []func(*state){setting(cleanUp, "0s")}, want: want{verdict: invalidSetting, warning: noDuration}},
		"a negative duration":                                    {in: []func(*state){setting(cleanUp, "-24h")}, want: want{verdict: invalidSetting, warning: noDuration}},
		"an empty duration":                                      {in: []func(*state){setting(cleanUp, "")}, want: want{verdict: invalidSetting, warning: noDuration}},
		"a duration that overflows":                              {in: []func(*state){setting(cleanUp, "99999999h")}, want: want{verdict: invalidSetting, warning: noDuration}},
		"an invalid duration on the namespace":                   {in: []func(*state){namespaceSetting(cleanUp, "soon")}, want: want{verdict: invalidSetting, warning: noDurationOnNamespace}},
		"an invalid duration on the namespace, its own is valid": {in: []func(*state){namespaceSetting(cleanUp, "soon"), setting(cleanUp, "24h")}, want: markAfter(day)},
		"a valid duration on the namespace, its own is invalid":  {in: []func(*state){namespaceSetting(cleanUp, "24h"), setting(cleanUp, "soon")}, want: want{verdict: invalidSetting, warning: noDuration}},
		"an invalid duration, and uses are not recorded":         {in: []func(*state){setting(cleanUp, "soon"), func(s *state) { s.tracked = time.Time{} }}, want: want{verdict: invalidSetting, warning: noDuration}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) { expectDecision(t, tc.want, unusedState(tc.in...)) })
	}
}

func TestReadTracking(t *testing.T) {
	date := func(day int) time.Time { return time.Date(2026, time.January, day, 0, 0, 0, 0, time.UTC) }
	cases := map[string]struct {
		in          []testkit.Option
		inNow       time.Time
		want        time.Time
		wantProblem string
	}{
		"the day after":               {in: []testkit.Option{testkit.WithData("since", "2025-12-31")}, want: date(1)},
		"since today":                 {in: []testkit.Option{testkit.WithData("since", "2026-01-02")}, want: date(3)},
		"since today, at midnight":    {in: []testkit.Option{testkit.WithData("since", "2026-01-03")}, inNow: date(3), want: date(4)},
		"since 1 ns later":            {in: []testkit.Option{testkit.WithData("since", "2026-01-03")}, inNow: date(3).Add(-1), wantProblem: "the date in the key since lies in the future"},
		"since next year":             {in: []testkit.Option{testkit.WithData("since", "2027-01-01")}, wantProblem: "the date in the key since lies in the future"},
		"no data":                     {wantProblem: "the key since is missing"},
		"another key":                 {in: []testkit.Option{testkit.WithData("Since", "2025-12-31")}, wantProblem: "the key since is missing"},
		"an empty date":               {in: []testkit.Option{testkit.WithData("since", "")}, wantProblem: "the key since is not a date such as 2006-01-02"},
		"a date with a time":          {in: []testkit.Option{testkit.WithData("since", "2025-12-31T00:00:00Z")}, wantProblem: "the key since is not a date such as 2006-01-02"},
		"a day that does not exist":   {in: []testkit.Option{testkit.WithData("since", "2025-02-29")}, wantProblem: "the key since is not a date such as 2006-01-02"},
		"a date with a space":         {in: []testkit.Option{testkit.WithData("since", "2025-12-31 ")}, wantProblem: "the key since is not a date such as 2006-01-02"},
		"the last day of a leap year": {in: []testkit.Option{testkit.WithData("since", "2024-12-31")}, want: time.Date(2025, time.January, 1, 0, 0, 0, 0, time.UTC)},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if tc.inNow.IsZero() {
				tc.inNow = testkit.Instant()
			}
			got, problem := readTracking(testkit.ConfigMap("kube-system/tracking", tc.in...), tc.inNow)
			if !got.Equal(tc.want) || problem != tc.wantProblem {
				t.Errorf("got %v, %q; want %v, %q", got, problem, tc.want, tc.wantProblem)
			}
		})
	}
}
