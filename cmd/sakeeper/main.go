// Command sakeeper is the ServiceAccount control plane of Kubernetes as software
// of its own; each subcommand is one part of it.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
)

func main() {
	thrift()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A second Ctrl-C ends the process at once. A second SIGTERM does not: some
	// supervisors send two, and the lease would stay held.
	context.AfterFunc(ctx, func() { signal.Reset(os.Interrupt) })
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "sakeeper: %s\n", strings.ReplaceAll(err.Error(), "\n", "\nsakeeper: "))
		os.Exit(1)
	}
}

// thrift trades a little of the processor's time, which servers that mostly wait have, for
// memory: the garbage collector lets the heap grow by half, not by all of what is alive
// (GOGC says otherwise), and the allocator takes no samples, which nobody reads.
func thrift() {
	runtime.MemProfileRate = 0
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50)
	}
}
