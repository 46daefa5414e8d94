package report

import (
	_ "embed" // the page
	"fmt"
	"html/template"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sakeeper/sakeeper/cmd/kubectl-sakeeper/tokens"
	"github.com/sakeeper/sakeeper/pkg/inventory"
	"github.com/sakeeper/sakeeper/pkg/inventory/reach"
)

//go:embed page.html
var source string

func parse() (*template.Template, error) { return template.New("report").Parse(source) }

// page is what the template prints.
type page struct {
	Version, Scope, Time string
	Figures              []figure
	Charts               []chart
	Actions              []inventory.Action
	Columns              []string
	// Rows are all tokens, for the script. First are those that are in the page without it.
	Rows, First [][]string
	Missing     []string
}

// figure is a number at the top. Tone is a class of the page.
type figure struct {
	Value string
	Text  string
	Tone  string
}

const (
	maxActions = 20
	firstRows  = 100

	toneBad   = "bad"
	toneWarn  = "warn"
	toneGood  = "good"
	tonePlain = "plain"
)

func newPage(found []inventory.Token, now time.Time, namespace, version string) *page {
	p := &page{
		Version: version, Scope: "all namespaces", Time: now.UTC().Format("2 January 2006, 15:04 UTC"),
		Figures: figures(found), Charts: charts(found, now), Actions: inventory.Actions(found, now, maxActions),
		Columns: []string{"Namespace", "Secret", "Account", "Kind", "Age in days", "Expires", "Last used", "Verdict", "Reach", "Used by", "Key"},
		Rows:    [][]string{},
	}
	if namespace != "" {
		p.Scope = "namespace " + namespace
	}
	for i := range found {
		t := &found[i]
		expires := inventory.Never
		if t.Expires != nil {
			expires = t.Expires.UTC().Format(time.DateOnly)
		}
		p.Rows = append(p.Rows, []string{
			t.Namespace, t.Secret, t.Account.Namespace + "/" + t.Account.Name, string(t.Kind), strconv.Itoa(days(now, t.Created)), expires, t.LastUsed,
			string(t.Verdict), t.Reach.String(), tokens.UsedBy(t), short(t.KeyID),
		})
	}
	p.First = p.Rows[:min(firstRows, len(p.Rows))]
	return p
}

func days(now, then time.Time) int { return max(0, int(now.Sub(then)/(24*time.Hour))) }

// short is enough of a key id to tell keys apart.
func short(id string) string {
	if id == "" {
		return "none"
	}
	return id[:min(len(id), 12)]
}

func figures(found []inventory.Token) []figure {
	var alive, forever, dangerous, unused, dead, unknown int
	oldest := time.Time{}
	for i := range found {
		t := &found[i]
		if !t.Verdict.Alive() {
			dead++
			continue
		}
		alive++
		if t.Expires == nil {
			forever++
			if oldest.IsZero() || t.Created.Before(oldest) {
				oldest = t.Created
			}
		}
		switch {
		case t.Reach >= reach.CanBecomeAdmin:
			dangerous++
		case t.Reach == reach.Unknown:
			unknown++
		}
		if t.Verdict == inventory.Unused {
			unused++
		}
	}
	all := []figure{
		{strconv.Itoa(alive), "tokens in Secrets are alive", tonePlain},
		{strconv.Itoa(forever), "of them never expire", tone(forever, toneWarn)},
		{strconv.Itoa(dangerous), "are cluster-admin, or can become it", tone(dangerous, toneBad)},
		{strconv.Itoa(unused), "are unused", tone(unused, toneWarn)},
		{strconv.Itoa(dead), "more are dead, and can be deleted", tonePlain},
	}
	if unknown > 0 {
		all = append(all, figure{strconv.Itoa(unknown), "have a reach that is unknown", toneWarn})
	}
	return all
}

func tone(n int, otherwise string) string {
	if n == 0 {
		return toneGood
	}
	return otherwise
}

// chart is a bar chart in SVG. A bar is barHeight units high, and the whole is chartWidth wide.
type chart struct {
	Title string
	// Text says the same as the bars, for those who cannot see them.
	Text   string
	Height int
	Bars   []bar
}

type bar struct {
	Label, Tone     string
	Count           int
	Y, TextY, Width int
	CountX          int
}

const (
	barHeight  = 26
	labelWidth = 186
	barWidth   = 160
	maxBars    = 10
)

// newChart makes a chart of counts in the order of labels. Those without a token are left out.
func newChart(title string, labels []string, counts map[string]int, tones map[string]string) chart {
	c := chart{Title: title}
	most := 1
	for _, n := range counts {
		most = max(most, n)
	}
	var said []string
	for _, label := range labels {
		n := counts[label]
		if n == 0 {
			continue
		}
		width := max(2, n*barWidth/most)
		y := len(c.Bars) * barHeight
		c.Bars = append(c.Bars, bar{Label: cut(label), Tone: tones[label], Count: n, Y: y + 4, TextY: y + 18, Width: width, CountX: labelWidth + width + 6})
		said = append(said, fmt.Sprintf("%s: %d", label, n))
	}
	c.Height, c.Text = max(1, len(c.Bars))*barHeight, title+". "+strings.Join(said, ", ")
	return c
}

// cut is as much of a label as there is room for.
func cut(label string) string {
	const most = 24
	if runes := []rune(label); len(runes) > most {
		return string(runes[:most-1]) + "…"
	}
	return label
}

// charts are of the tokens that are alive, but for the verdicts.
func charts(found []inventory.Token, now time.Time) []chart {
	counts := map[string]map[string]int{}
	count := func(chart, label string) {
		if counts[chart] == nil {
			counts[chart] = map[string]int{}
		}
		counts[chart][label]++
	}
	for i := range found {
		t := &found[i]
		count("verdict", string(t.Verdict))
		if t.Verdict.Alive() {
			count("reach", t.Reach.String())
			count("age", span(ages(), now.Sub(t.Created)))
			count("use", lastUse(t, now))
			count("key", short(t.KeyID))
			count("namespace", t.Namespace)
		}
	}
	var verdicts, levels []string
	for _, verdict := range inventory.Verdicts() {
		verdicts = append(verdicts, string(verdict))
	}
	for _, level := range reach.Levels() {
		levels = append(levels, level.String())
	}
	levelTones := map[string]string{reach.Admin.String(): toneBad, reach.CanBecomeAdmin.String(): toneBad, reach.Secrets.String(): toneWarn}
	verdictTones := map[string]string{string(inventory.Unused): toneWarn, string(inventory.NeverExpires): toneWarn}
	return []chart{
		newChart("By reach", levels, counts["reach"], levelTones),
		newChart("By verdict", verdicts, counts["verdict"], verdictTones),
		newChart("By age", spans(ages()), counts["age"], nil),
		newChart("By last use", append(spans(uses()), inventory.Never, "unknown"), counts["use"], map[string]string{inventory.Never: toneWarn}),
		newChart("By signing key", largest(counts["key"]), counts["key"], nil),
		newChart("By namespace", largest(counts["namespace"]), counts["namespace"], nil),
	}
}

// limit is the upper end of a span of time.
type limit struct {
	days int
	text string
}

const farDays = 1 << 20

func ages() []limit {
	return []limit{{30, "up to 30 days"}, {90, "up to 90 days"}, {365, "up to a year"}, {3 * 365, "up to 3 years"}, {farDays, "older"}}
}

func uses() []limit {
	return []limit{{7, "this week"}, {30, "this month"}, {90, "within 90 days"}, {365, "within a year"}, {farDays, "longer ago"}}
}

func span(limits []limit, d time.Duration) string {
	for _, l := range limits {
		if d <= time.Duration(l.days)*24*time.Hour {
			return l.text
		}
	}
	return limits[len(limits)-1].text
}

func spans(limits []limit) []string {
	var texts []string
	for _, l := range limits {
		texts = append(texts, l.text)
	}
	return texts
}

func lastUse(t *inventory.Token, now time.Time) string {
	used, err := time.Parse(time.DateOnly, t.LastUsed)
	switch {
	case err == nil:
		return span(uses(), now.Sub(used))
	case t.LastUsed == inventory.Never:
		return inventory.Never
	default:
		return "unknown"
	}
}

// largest returns the labels with the highest counts.
func largest(counts map[string]int) []string {
	var labels []string
	for label := range counts {
		labels = append(labels, label)
	}
	slices.SortFunc(labels, func(a, b string) int {
		if counts[a] != counts[b] {
			return counts[b] - counts[a]
		}
		return strings.Compare(a, b)
	})
	return labels[:min(maxBars, len(labels))]
}
