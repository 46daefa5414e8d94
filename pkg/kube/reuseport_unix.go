//go:build unix

package kube

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

func setReusePort(_, _ string, raw syscall.RawConn) error {
	var errSet error
	err := raw.Control(func(fd uintptr) { errSet = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
	return errors.Join(err, errSet)
}
