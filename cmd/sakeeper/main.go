// Command sakeeper is the ServiceAccount control plane of Kubernetes as software
// of its own; each subcommand is one part of it.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
)

func main() {
	runtime.MemProfileRate = 0 // nobody reads the samples
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A second Ctrl-C ends the process at once. A second SIGTERM does not: some
	// supervisors send two, and the lease would stay held.
	context.AfterFunc(ctx, func() { signal.Reset(os.Interrupt) })
	if os.Getenv("GOGC") == "" { // who sets it knows better
		go thrift(ctx)
	}
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "sakeeper: %s\n", strings.ReplaceAll(err.Error(), "\n", "\nsakeeper: "))
		os.Exit(1)
	}
}
