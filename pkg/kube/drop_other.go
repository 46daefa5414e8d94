//go:build !linux

package kube

import (
	"errors"
	"syscall"
)

// dropNewConnections is not implemented: connections that are not accepted yet are reset.
func ignoreNew(syscall.Conn) error { return errors.ErrUnsupported }
