package kube

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// dropNewConnections makes a listening socket drop the packets that ask for a new connection,
// which have SYN and not ACK among the flags in byte 13 of the TCP header (RFC 9293, 3.1).
// Handshakes that have begun go on.
func dropNewConnections(listener syscall.Conn) error {
	const flags, syn, ack = 13, 0x02, 0x10
	program := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: flags},
		{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: syn | ack},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: syn, Jt: 0, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0}, // dropped
		{Code: unix.BPF_RET | unix.BPF_K, K: 0xffffffff},
	}
	raw, err := listener.SyscallConn()
	if err != nil {
		return err
	}
	fprog := &unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]} //nolint:gosec // five
	var errSet error
	err = raw.Control(func(fd uintptr) {
		errSet = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, fprog)
	})
	return errors.Join(err, errSet)
}
