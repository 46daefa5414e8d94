package main

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestUnchangedMappings(t *testing.T) {
	const smaps = `00400000-014fb000 r-xp 00000000 fe:00 4720 /bin/sakeeper
Rss:               14764 kB
Anonymous:             0 kB
014fb000-0267c000 r--p 010fb000 fe:00 4720 /bin/sakeeper
Anonymous:             0 kB
02670000-0267c000 r--p 010fb000 fe:00 4720 /bin/sakeeper
Anonymous:             8 kB
0267c000-02734000 rw-p 0227c000 fe:00 4720 /bin/sakeeper
Anonymous:             0 kB
02734000-0477f000 rw-p 00000000 00:00 0 
Anonymous:             0 kB
7f0000000000-7f0000001000 r--p 00000000 fe:00 4721 /lib/other
Anonymous:             0 kB
7f0000001000-7f0000002000 r--p 00000000 00:00 0 
Anonymous:             0 kB
`
	want := []mapping{{0x400000, 0x10fb000}, {0x14fb000, 0x1181000}}
	if diff := cmp.Diff(want, unchanged(strings.NewReader(smaps), "/bin/sakeeper"), cmp.AllowUnexported(mapping{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestForgetCode(t *testing.T) {
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.Open("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	if len(unchanged(file, path)) == 0 {
		t.Error("nothing of this program's file is mapped")
	}
	if err := forgetCode(); err != nil {
		t.Error(err)
	}
}
