package signer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Socket describes a unix socket to listen on.
type Socket struct {
	// Flag is the flag with the path, for errors. Path is the path of the socket.
	Flag, Path string
	// Mode is the mode of the file: to connect, a process needs write permission.
	Mode fs.FileMode
	// Group is the group of the file. Negative: the group of the process.
	Group int
}

// Listen listens on the socket. It replaces the socket of a process that has ended, and returns
// an error if another process serves it. Close of the listener removes the file.
func (s Socket) Listen(ctx context.Context) (net.Listener, error) {
	listener, err := s.listen(ctx)
	if err != nil {
		return nil, fmt.Errorf("%s: %s: %w", s.Flag, s.Path, err)
	}
	return listener, nil
}

// maxPath is the maximum length of a path in an address, without the zero byte (unix(7)).
const maxPath = 107

var errServed = errors.New("another process serves this socket; stop it, or give this one another path")

func (s Socket) listen(ctx context.Context) (net.Listener, error) {
	// The kernel releases the lock when the process ends, even if it is killed.
	lock, err := os.OpenFile(s.Path+".lock", os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, withoutPath(err)
	}
	l := &listener{path: s.Path, lock: lock}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(errServed, lock.Close())
	}
	if l.Listener, err = s.open(ctx); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return l, nil
}

// open makes the socket under another name, and renames it after its mode and group are set.
func (s Socket) open(ctx context.Context) (net.Listener, error) {
	if err := s.checkPath(ctx); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(filepath.Dir(s.Path), ".s") // 0700
	if err != nil {
		return nil, withoutPath(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	temporary := filepath.Join(dir, "s")
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	opened, err := net.ListenUnix("unix", &net.UnixAddr{Name: temporary, Net: "unix"})
	if err != nil {
		return nil, withoutPath(err)
	}
	opened.SetUnlinkOnClose(false)
	err = os.Chown(temporary, -1, s.Group)
	if err == nil {
		err = os.Chmod(temporary, s.Mode)
	}
	if err == nil {
		err = os.Rename(temporary, s.Path)
	}
	if err != nil {
		return nil, errors.Join(withoutPath(err), opened.Close())
	}
	return opened, nil
}

// checkPath returns an error if the path is too long, is not a socket, or is a socket that a
// process without the lock serves.
func (s Socket) checkPath(ctx context.Context) error {
	if longest := max(len(s.Path), len(filepath.Dir(s.Path))+len("/.s1234567890/s")); longest > maxPath {
		return fmt.Errorf("the path is too long for a unix socket, by %d bytes", longest-maxPath)
	}
	info, err := os.Lstat(s.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return withoutPath(err)
	case info.Mode().Type() != fs.ModeSocket:
		return errors.New("is there already, and is not a socket")
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", s.Path)
	if err == nil {
		return errors.Join(errServed, conn.Close())
	}
	return nil
}

// listener removes its file when it is closed.
type listener struct {
	net.Listener

	path string
	lock *os.File
}

// Close implements [net.Listener].
func (l *listener) Close() error {
	err := l.Listener.Close()
	if removeErr := os.Remove(l.path); err == nil && !errors.Is(removeErr, fs.ErrNotExist) {
		err = removeErr
	}
	return errors.Join(err, l.lock.Close())
}

// withoutPath returns err without the path, for an error that already has it.
func withoutPath(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err
	}
	if e, ok := errors.AsType[*os.LinkError](err); ok {
		return e.Err
	}
	if e, ok := errors.AsType[*net.OpError](err); ok {
		return e.Err
	}
	return err
}
