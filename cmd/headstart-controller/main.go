// Command headstart-controller is Headstart's cluster side: it holds and releases startup taints, lifts scheduling gates
// and keeps capacity warm.
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
	var o options
	root := &cobra.Command{
		Use:   "headstart-controller",
		Short: "Releases nodes and pods the moment that they can run",
		Long: "headstart-controller carries out NodeReadinessRules (startup taints), GatePolicies (scheduling gates) and WarmPools.\n" +
			"Run two replicas: one leads, the other is warm and takes over without a wait.",
		Example: "  headstart-controller --kubeconfig ~/.kube/config --leader-elect=false\n" +
			"  headstart-controller --rules=native,guide",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.validate(); err != nil {
				return cli.Usage(err)
			}
			return start(cmd.Context(), &o, cmd.ErrOrStderr())
		},
	}
	o.bind(root.Flags())
	root.AddCommand(newUpgradeCRDsCommand(), newCleanUpCommand())
	cli.Complete(root)
	return root
}
