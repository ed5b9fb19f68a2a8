package main

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/spf13/cobra"

	"headstart.dev/agent"
	"headstart.dev/agent/timeline"
	"headstart.dev/cmd/internal/cli"
)

func newTimelineCommand() *cobra.Command {
	var output, stateDir string
	cmd := &cobra.Command{
		Use:   "timeline",
		Short: "Shows this node's boot, phase by phase",
		Example: "  headstart-agent timeline\n" +
			"  headstart-agent timeline -o html > boot.html",
		Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			path := filepath.Join(stateDir, agent.TimelineFile)
			boot, err := timeline.Load(path)
			if errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("%s does not exist: no agent has run since the node booted, or it runs with another --state-dir", path)
			}
			if err != nil {
				return err
			}
			switch output {
			case cli.Text:
				return boot.WriteText(cmd.OutOrStdout())
			case cli.HTML:
				return boot.WriteHTML(cmd.OutOrStdout())
			}
			return cli.Print(cmd.OutOrStdout(), output, boot)
		},
	}
	cli.OutputFlag(cmd, &output, cli.Text, cli.JSON, cli.YAML, cli.HTML)
	cmd.Flags().StringVar(&stateDir, "state-dir", "/run/headstart", "`folder` in which the agent keeps its timeline")
	return cmd
}
