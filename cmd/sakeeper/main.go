// Command sakeeper is the ServiceAccount control plane of Kubernetes as software of its own. Each
// subcommand is one part of it, in a folder of its name.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A second Ctrl-C ends the process at once. A second SIGTERM does not: some supervisors send
	// two, and the process would end without releasing its Lease.
	context.AfterFunc(ctx, func() { signal.Reset(os.Interrupt) })
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "sakeeper: %s\n", strings.ReplaceAll(err.Error(), "\n", "\nsakeeper: "))
		os.Exit(1)
	}
}
