// Command servers builds the servers of the testbed ahead of time: all, or those that are named. Tests build what they
// need by themselves; this is for a machine that shall have it done before.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"headstart.dev/test/testenv"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	dir, err := testenv.BuildServers(ctx, os.Stderr, os.Args[1:]...)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "servers:", err)
		os.Exit(1)
	}
	fmt.Fprintln(os.Stdout, dir)
}
