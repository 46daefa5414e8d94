package report

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sakeeper/sakeeper/pkg/inventory"
	"github.com/sakeeper/sakeeper/pkg/inventory/reach"
	"github.com/sakeeper/sakeeper/pkg/testkit"
)

// sample returns n tokens of all kinds, in the order of [inventory.Find].
func sample(n int) []inventory.Token {
	now := testkit.Instant()
	verdicts := []inventory.Verdict{inventory.Unused, inventory.InUse, inventory.NeverExpires, inventory.Expires}
	dead := []inventory.Verdict{inventory.DeadNoKey, inventory.AccountGone, inventory.Expired, inventory.ObjectGone}
	expires := now.AddDate(1, 0, 0)
	var found []inventory.Token
	for i := range n {
		t := inventory.Token{
			Namespace: fmt.Sprintf("team-%02d", i%37), Secret: fmt.Sprintf("token-%05d", i), DataKey: "token", Kind: inventory.Legacy,
			Account: inventory.Name{Namespace: fmt.Sprintf("team-%02d", i%37), Name: fmt.Sprintf("account-%d", i%211)},
			KeyID:   []string{"3b1f0c9a7d52aaaa", "c0ffee00d15ebbbb", "9e8d7c6b5a4fcccc"}[i*i%3], KeyPublished: inventory.Yes,
			Created: now.AddDate(0, 0, -i%1900), LastUsed: []string{"never", "unknown", now.AddDate(0, 0, -i%500).Format(time.DateOnly)}[i%3],
			Verdict: verdicts[i%len(verdicts)], Reach: reach.Levels()[min(i*7/n, 6)],
		}
		if i%9 == 0 {
			t.Verdict = dead[i/9%len(dead)]
		}
		if t.Verdict == inventory.Expires {
			t.Kind, t.Expires = inventory.Managed, &expires
		}
		if t.Verdict == inventory.InUse {
			t.UsedBy = []inventory.User{{Workload: inventory.Workload{Kind: "Deployment", Namespace: t.Namespace, Name: "web"}, Pods: 3, Field: "spec.volumes[0].secret.secretName"}}
		}
		if t.Reach > reach.Nothing {
			t.Why = []reach.Finding{{Level: t.Reach, Reason: "sample", Text: "may run pods with any account and any Secret", Namespace: "kube-system"}}
		}
		found = append(found, t)
	}
	return found
}

func samplePage(n int) *page {
	p := newPage(sample(n), testkit.Instant(), "", "v1.0.0")
	p.Missing = []string{"reach is unknown: the right to list roles is missing."}
	return p
}

// TestWriteSamples writes the pages that 'make test-report' opens in a browser.
func TestWriteSamples(t *testing.T) {
	dir := os.Getenv("REPORT_SAMPLES")
	if dir == "" {
		t.Skip("it checks nothing: 'make test-report' sets REPORT_SAMPLES, and opens what it writes")
	}
	for name, n := range map[string]int{"small.html": 180, "large.html": 20000, "empty.html": 0} {
		var out bytes.Buffer
		if err := samplePage(n).write(&out); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), out.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestNamesAreEscaped has a Secret of the wildest name: only a token can bring it in, as the name of
// its account.
func TestNamesAreEscaped(t *testing.T) {
	found := sample(1)
	const evil = `</script><script>alert(1)</script><img src=x onerror=alert(1)>'"`
	found[0].Account.Name, found[0].KeyID = evil, evil
	var out bytes.Buffer
	if err := newPage(found, testkit.Instant(), "", "v1.0.0").write(&out); err != nil {
		t.Fatal(err)
	}
	if strings.Count(out.String(), "<script") != 2 || strings.Contains(out.String(), "<img") {
		t.Error("a name became part of the page")
	}
}

func TestCharts(t *testing.T) {
	now := testkit.Instant()
	found := []inventory.Token{
		{Verdict: inventory.InUse, Reach: reach.Admin, Created: now, LastUsed: now.Format(time.DateOnly)},
		{Verdict: inventory.Unused, Reach: reach.Admin, Created: now.AddDate(-10, 0, 0), LastUsed: "never"},
		{Verdict: inventory.Expired, Reach: reach.Admin, Created: now.AddDate(-10, 0, 0), LastUsed: "unknown"},
	}
	want := []string{
		"By reach. cluster-admin: 2", "By verdict. expired: 1, in use: 1, unused: 1", "By age. up to 30 days: 1, older: 1",
		"By last use. this week: 1, never: 1", "By signing key. none: 2", "By namespace. : 2",
	}
	for i, chart := range charts(found, now) {
		if chart.Text != want[i] {
			t.Errorf("got %q, want %q", chart.Text, want[i])
		}
	}
}
