package keys

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestFilesPathsAreAllFiles(t *testing.T) {
	files := Files{PrivateKeyFile: "private", KeyFiles: []string{"one", "two"}}
	if diff := cmp.Diff([]string{"private", "one", "two"}, files.paths()); diff != "" {
		t.Errorf("paths (-want +got):\n%s", diff)
	}
}
