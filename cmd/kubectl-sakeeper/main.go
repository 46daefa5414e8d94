// Command kubectl-sakeeper is a kubectl plugin that shows which ServiceAccount tokens a cluster holds
// in Secrets, who uses them, and what could be done with each. It writes nothing.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/sakeeper/sakeeper/cmd/kubectl-sakeeper/options"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, func() { signal.Reset(os.Interrupt) }) // a second Ctrl-C ends the process at once
	err := run(ctx, os.Args[1:], options.StandardStreams())
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "kubectl sakeeper: %s\n", strings.ReplaceAll(err.Error(), "\n", "\nkubectl sakeeper: "))
	}
	os.Exit(options.ExitCode(err))
}
