package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"headstart.dev/cmd/internal/cli"
	"headstart.dev/readiness/inspect"
)

func newStatusCommand() *cobra.Command {
	var (
		flags  clusterFlags
		output string
	)
	cmd := &cobra.Command{
		Use:   "status [NODE]",
		Short: "Shows nodes, their conditions, and what still holds them",
		Example: "  kubectl headstart status\n" +
			"  kubectl headstart status ip-10-0-0-1.ec2.internal -o json",
		Args: cli.Args(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := flags.connect()
			if err != nil {
				return err
			}
			name := ""
			if len(args) > 0 {
				name = args[0]
			}
			return status(cmd, c, name, output, time.Now())
		},
	}
	flags.register(cmd)
	cli.OutputFlag(cmd, &output, "text", "json")
	return cmd
}

func status(cmd *cobra.Command, c *cluster, name, output string, now time.Time) error {
	nodes, err := c.nodes(cmd.Context(), name)
	if err != nil {
		return err
	}
	rules, err := c.rules(cmd.Context(), warner(cmd))
	if err != nil {
		return err
	}
	report := inspect.Nodes(nodes, rules, now)
	if output == "json" {
		return cli.Print(cmd.OutOrStdout(), cli.JSON, report)
	}
	if err := inspect.WriteStatus(cmd.OutOrStdout(), report, now); err != nil || name != "" {
		return err
	}
	return c.writeLearned(cmd.Context(), cmd.OutOrStdout(), warner(cmd), now)
}

func warner(cmd *cobra.Command) func(string) {
	return func(text string) { fmt.Fprintln(cmd.ErrOrStderr(), "warning:", text) }
}
