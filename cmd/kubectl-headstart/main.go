// Command kubectl-headstart shows what holds nodes and pods, where a boot spent its time, and what a warm pool would
// cost. On the PATH it is "kubectl headstart".
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"headstart.dev/cmd/internal/cli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	code := run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

// run executes one command line and returns the exit code: 0 done, 1 failed, 2 usage.
func run(ctx context.Context, args []string) int { return cli.Execute(ctx, newRootCommand(), args) }

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:         "kubectl-headstart",
		Short:       "Shows what holds nodes and pods, and what would release them",
		Long:        "kubectl headstart shows what holds nodes and pods, where a boot spent its time, and what a warm pool would cost.",
		Annotations: map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl headstart"},
	}
	root.AddCommand(newStatusCommand(), newWhyCommand(), newTimelineCommand(), newPlanCommand(), newUserdataCommand())
	cli.Complete(root)
	return root
}
