// Command kubectl-headstart shows what holds nodes and pods, where a boot spent its time, and what a warm pool would
// cost. On the PATH it is "kubectl headstart".
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	code := run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

// run executes one command line and returns the exit code: 0 done, 1 failed, 2 usage.
func run(ctx context.Context, args []string) int {
	root := newRootCommand()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	fmt.Fprintln(os.Stderr, "kubectl-headstart:", err)
	return exitCode(err)
}

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "kubectl-headstart",
		Short:         "Shows what holds nodes and pods, and what would release them",
		Long:          "kubectl headstart shows what holds nodes and pods, where a boot spent its time, and what a warm pool would cost.",
		Annotations:   map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl headstart"},
		Args:          cobra.NoArgs,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w; see '%s --help'", err, cmd.CommandPath())}
	})
	root.AddCommand(newStatusCommand(), newWhyCommand(), newTimelineCommand(), newPlanCommand(), newUserdataCommand())
	return root
}
