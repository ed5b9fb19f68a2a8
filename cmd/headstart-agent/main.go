// Command headstart-agent gets a node ready while it boots: it pre-pulls images, probes what pods depend on, and
// publishes both as conditions of its own Node.
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
		Use:   "headstart-agent",
		Short: "Gets a node ready while it boots",
		Long: "headstart-agent runs on a node. It pre-pulls images while the node boots, probes what pods depend on (CNI, CSI,\n" +
			"GPU), and publishes both as conditions of its own Node.",
	}
	root.AddCommand(newRunCommand(), newPullCommand(), newProbeCommand(), newTimelineCommand(), newInstallCommand())
	cli.Complete(root)
	return root
}
