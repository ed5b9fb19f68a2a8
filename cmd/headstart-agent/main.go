// Command headstart-agent gets a node ready while it boots: it pre-pulls images, probes what pods depend on, and
// publishes both as conditions of its own Node.
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
	fmt.Fprintln(os.Stderr, "headstart-agent:", err)
	return exitCode(err)
}

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "headstart-agent",
		Short: "Gets a node ready while it boots",
		Long: "headstart-agent runs on a node. It pre-pulls images while the node boots, probes what pods depend on (CNI, CSI,\n" +
			"GPU), and publishes both as conditions of its own Node.",
		Args:                       subcommandOnly,
		RunE:                       func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		SuggestionsMinimumDistance: 2,
		SilenceErrors:              true,
		SilenceUsage:               true,
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w; see '%s --help'", err, cmd.CommandPath())}
	})
	root.AddCommand(newRunCommand(), newPullCommand(), newProbeCommand(), newTimelineCommand(), newInstallCommand())
	return root
}
