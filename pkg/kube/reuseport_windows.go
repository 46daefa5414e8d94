package kube

import (
	"errors"
	"syscall"
)

// setReusePort is for servers: of these, only the plugin of kubectl runs on Windows.
func setReusePort(string, string, syscall.RawConn) error { return errors.ErrUnsupported }
