// Command sakeeper is the ServiceAccount control plane of Kubernetes as software
// of its own; each subcommand is one part of it.
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
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintf(os.Stderr, "sakeeper: %s\n", strings.ReplaceAll(err.Error(), "\n", "\nsakeeper: "))
		os.Exit(1)
	}
}
