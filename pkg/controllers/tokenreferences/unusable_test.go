package tokenreferences

import (
	"strings"
	"testing"

	"github.com/sakeeper/sakeeper/pkg/testkit"
)

func TestAnEntryThatNoSecretCanBeMeantByHasOneEvent(t *testing.T) {
	for _, name := range []string{"", "a/b", "..", "."} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, apiServer{}, robot(name))
			for range 3 {
				if requeueAfter, err := f.sync(testkit.Context(t), objectName("team/robot")); requeueAfter != 0 || err != nil {
					t.Errorf("requeued after %v, error %v", requeueAfter, err)
				}
			}
			events := testkit.Events(f.recorder)
			if len(events) != 1 || !strings.HasPrefix(events[0], "Warning UnusableSecretReference ") {
				t.Errorf("events %q", events)
			}
		})
	}
}
