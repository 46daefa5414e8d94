package signer_test

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sakeeper/sakeeper/pkg/signer"
)

func socketAt(path string) signer.Socket {
	return signer.Socket{Flag: "--socket", Path: path, Mode: 0o620, Group: os.Getgid()}
}

func TestOnlyTheSocketOfAnEndedProcessIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.sock")
	first, err := socketAt(path).Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Lstat(path)
	if err != nil || info.Mode() != fs.ModeSocket|0o620 {
		t.Errorf("mode %v, error %v", info.Mode(), err)
	}
	const served = ": another process serves this socket; stop it, or give this one another path"
	if _, err := socketAt(path).Listen(t.Context()); err == nil || err.Error() != "--socket: "+path+served {
		t.Errorf("a second server: %v", err)
	}
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after the close: %v", err)
	}

	// A socket without a lock, left by a process that was killed, or of another program.
	other, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := socketAt(path).Listen(t.Context()); err == nil || err.Error() != "--socket: "+path+served {
		t.Errorf("beside another program: %v", err)
	}
	other.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	next, err := socketAt(path).Listen(t.Context())
	if err != nil {
		t.Fatalf("a stale socket: %v", err)
	}
	defer func() { _ = next.Close() }()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "unix", path)
	if err != nil {
		t.Fatalf("the socket that was taken over: %v", err)
	}
	_ = conn.Close()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 2 { // and the lock
		t.Errorf("left behind: %v, error %v", entries, err)
	}
}

func TestListenRefusesABadPath(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		file:                             "is there already, and is not a socket",
		filepath.Join(dir, "no", "such"): "no such file or directory",
		filepath.Join(file, "below"):     "not a directory",
	} {
		if _, err := socketAt(path).Listen(t.Context()); err == nil || err.Error() != "--socket: "+path+": "+want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	if content, err := os.ReadFile(file); string(content) != "precious" {
		t.Errorf("the file holds %q, error %v", content, err)
	}
	long := filepath.Join(dir, strings.Repeat("x", 120))
	if _, err := socketAt(long).Listen(t.Context()); err == nil || !strings.HasPrefix(err.Error(), "--socket: "+long+": the path is too long for a unix socket, by ") {
		t.Errorf("a path that is too long: %v", err)
	}
}
