package tokeninventory

import (
	"github.com/sakeeper/sakeeper/pkg/inventory"
	"github.com/sakeeper/sakeeper/pkg/inventory/collect"
)

// labels are those of one count, in the words of the plugin.
type labels struct {
	kind    inventory.Kind
	verdict string
	reach   string
}

// count counts tokens.
func count(result *collect.Result) map[labels]int {
	counts := map[labels]int{}
	for _, t := range inventory.Find(result.Objects) {
		counts[labels{t.Kind, verdict(t.Verdict, result.Unread), t.Reach.String()}]++
	}
	return counts
}

// verdict returns the verdict of a token, which is unknown if something that was not read may show
// that the token is dead, or is used.
func verdict(found inventory.Verdict, unread inventory.Unread) string {
	if found.Alive() && (unread.Accounts || unread.Pods || unread.Keys || unread.Tracking) {
		return inventory.Unknown.String()
	}
	return string(found)
}
