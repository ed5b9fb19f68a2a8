// Command servers builds the servers of the testbed ahead of time: all of test/tools, those that are named, or with -all
// everything that any test runs. Tests build what they need by themselves; this is for a machine that shall have it done
// before.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"headstart.dev/test/testenv"
)

func main() {
	all := flag.Bool("all", false, "also Karpenter, Helm, SOCI and older containerds")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	dir, err := testenv.BuildServers(ctx, os.Stderr, flag.Args()...)
	if err == nil && *all {
		err = testenv.BuildEverything(ctx, os.Stderr)
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "servers:", err)
		os.Exit(1)
	}
	fmt.Fprintln(os.Stdout, dir)
}
