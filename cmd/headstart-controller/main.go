// Command headstart-controller is Headstart's cluster side: it holds and releases startup taints, lifts scheduling gates
// and keeps capacity warm.
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
	fmt.Fprintln(os.Stderr, "headstart-controller:", err)
	return exitCode(err)
}

func newRootCommand() *cobra.Command {
	var o options
	root := &cobra.Command{
		Use:   "headstart-controller",
		Short: "Releases nodes and pods the moment that they can run",
		Long: "headstart-controller carries out NodeReadinessRules (startup taints), GatePolicies (scheduling gates) and WarmPools.\n" +
			"Run two replicas: one leads, the other is warm and takes over without a wait.",
		Example: "  headstart-controller --kubeconfig ~/.kube/config --leader-elect=false\n" +
			"  headstart-controller --rules=native,guide",
		Args:          usageArgs,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.validate(); err != nil {
				return usageError{err}
			}
			return start(cmd.Context(), &o, cmd.ErrOrStderr())
		},
	}
	o.bind(root.Flags())
	root.AddCommand(newUpgradeCRDsCommand(), newCleanUpCommand())
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w; see '%s --help'", err, cmd.CommandPath())}
	})
	return root
}

func usageArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("unexpected argument %q; see '%s --help'", args[0], cmd.CommandPath())}
	}
	return nil
}
