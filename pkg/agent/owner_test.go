package agent

import (
	"os"
	"syscall"
	"testing"
)

func expectOwner(t *testing.T, file string, uid, gid uint32) {
	t.Helper()
	info, err := os.Stat(file)
	must(t, err)
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || stat.Uid != uid || stat.Gid != gid {
		t.Errorf("owner %+v", info.Sys())
	}
}
