package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"headstart.dev/cmd/internal/cli"
	"headstart.dev/deploy/install"
	"headstart.dev/deploy/systemd"
)

func newInstallCommand() *cobra.Command {
	var root string
	cmd := &cobra.Command{
		Use:   "install --host-root DIR",
		Short: "Copies the agent, its systemd unit and a default config to a host",
		Long: "install copies this binary to /usr/local/bin, writes and enables its systemd unit, and writes /etc/headstart/agent.yaml\n" +
			"where there is none, all below DIR. Done again it writes only what differs. The unit starts with containerd: at the\n" +
			"next boot, or after 'systemctl daemon-reload && systemctl start --no-block " + systemd.UnitName + "' on the host.",
		Example: "  headstart-agent install --host-root /host   # in a container that has the host's root there\n" +
			"  headstart-agent install --host-root /       # while an AMI is baked",
		Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if root == "" {
				return cli.Usagef("--host-root is missing: give the folder that holds the host's root, / on the host itself")
			}
			self, err := os.Executable()
			if err != nil {
				return fmt.Errorf("find the agent's own binary: %w", err)
			}
			changes, err := install.Install(root, self)
			for _, c := range changes {
				state := "unchanged"
				if c.Written {
					state = "written"
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%-9s %s\n", state, filepath.Join(root, c.Path))
			}
			return err
		},
	}
	cmd.Flags().StringVar(&root, "host-root", "", "folder that holds the host's root")
	return cmd
}
