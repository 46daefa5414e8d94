package controlplane

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// auditLog is an audit log that a test writes.
type auditLog struct {
	*Audit
	t *testing.T
}

// add adds an event about a namespace.
func (l auditLog) add(stage, verb, id, name string) {
	l.t.Helper()
	file, err := os.OpenFile(l.path, os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o600)
	if err == nil {
		_, err = fmt.Fprintf(file, `{"auditID":%q,"verb":%q,"stage":%q,"objectRef":{"resource":"namespaces","name":%q}}`+"\n", id, verb, stage, name)
	}
	if err != nil {
		l.t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		l.t.Error(err)
	}
}

func (l auditLog) expect(want bool, barrier string, keep func(Request) bool) {
	l.t.Helper()
	if err := l.follow(); err != nil {
		l.t.Fatal(err)
	}
	if got := l.writes.answered(barrierPrefix+barrier, keep); got != want {
		l.t.Errorf("after barrier %s all is answered: %t", barrier, got)
	}
}

func TestWritesBeforeABarrierAreWaitedFor(t *testing.T) {
	l := auditLog{&Audit{path: filepath.Join(t.TempDir(), "audit.log")}, t}
	named := func(name string) func(Request) bool { return func(r Request) bool { return r.Object.Name == name } }
	l.add("RequestReceived", "create", "1", "one")
	l.expect(false, "a", nil)
	l.add("ResponseComplete", "get", "2", barrierPrefix+"a")
	l.add("RequestReceived", "create", "3", "three")
	l.expect(false, "a", nil)
	l.expect(false, "a", named("one"))
	l.expect(true, "a", named("three"))
	l.add("ResponseComplete", "get", "4", barrierPrefix+"b")
	l.add("ResponseComplete", "create", "1", "one")
	l.expect(true, "a", nil)
	l.expect(true, "b", named("one"))
	l.expect(false, "b", nil)
	if err := l.serverDied(); err != nil {
		t.Error(err)
	}
	l.expect(true, "b", nil)
}

func TestTheLogIsReadFromAMarkOn(t *testing.T) {
	l := auditLog{&Audit{path: filepath.Join(t.TempDir(), "audit.log")}, t}
	var ends []int64
	for _, id := range []string{"1", "2", "3"} {
		l.add("ResponseComplete", "get", id, "name")
		end, err := l.end()
		if err != nil {
			t.Fatal(err)
		}
		ends = append(ends, int64(end))
	}
	for begin, want := range map[int64]string{0: "123", ends[0] - 1: "23", ends[0]: "23", ends[0] + 1: "3", ends[1]: "3", ends[2]: ""} {
		got := ""
		if end, err := l.read(begin, func(r Request) { got += r.ID }); end != ends[2] || err != nil || got != want {
			t.Errorf("from %d on: %q to %d, %v; want %q to %d", begin, got, end, err, want, ends[2])
		}
	}
}
