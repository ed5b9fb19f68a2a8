package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"headstart.dev/cmd/internal/cli"
	"headstart.dev/deploy/userdata"
)

// maxValuesBytes bounds what is read from a values file.
const maxValuesBytes = 1 << 20

func newUserdataCommand() *cobra.Command {
	var system, file, merge string
	cmd := &cobra.Command{
		Use:   "userdata --os al2023|bottlerocket -f VALUES [--merge FILE]",
		Short: "Prints userData that installs and starts the agent while a node boots",
		Long: "userdata prints what goes into spec.userData of a Karpenter EC2NodeClass (or a launch template). AL2023 gets MIME\n" +
			"multipart, Bottlerocket TOML. The values must name the agent's image by digest (or another source of it): it runs as\n" +
			"root on every node. With --merge it is written into userData that is there already, whose parts and settings stay; done\n" +
			"again, it replaces its own.",
		Example: "  kubectl headstart userdata --os al2023 -f values.yaml\n" +
			"  kubectl headstart userdata --os al2023 -f values.yaml --merge existing-userdata.txt\n" +
			"  # values.yaml\n" +
			"  agent: {image: 111122223333.dkr.ecr.us-east-1.amazonaws.com/headstart-agent@sha256:4bcf...}\n" +
			"  config:\n" +
			"    images: [{image: registry.example/app:v1, required: true}]",
		Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if system != string(userdata.AL2023) && system != string(userdata.Bottlerocket) {
				return cli.Usagef("--os %q: want al2023 or bottlerocket", system)
			}
			values, err := readValues(file, cmd.InOrStdin())
			if err != nil {
				return err
			}
			earlier, err := readEarlier(merge, file, cmd.InOrStdin())
			if err != nil {
				return err
			}
			out, err := userdata.Merge(userdata.OS(system), values, earlier)
			if err != nil {
				return err
			}
			for _, warning := range values.Warnings(userdata.OS(system)) {
				fmt.Fprintln(cmd.ErrOrStderr(), "warning:", warning)
			}
			_, err = io.WriteString(cmd.OutOrStdout(), out)
			return err
		},
	}
	cmd.Flags().StringVar(&system, "os", "", "operating system of the AMI: al2023 or bottlerocket")
	cmd.Flags().StringVarP(&file, "filename", "f", "", "values file, - for standard input")
	cmd.Flags().StringVar(&merge, "merge", "", "userData `file` to write into, - for standard input: MIME multipart, a shell script, a NodeConfig, a cloud-config, or TOML")
	return cmd
}

// readEarlier reads userData that is there already.
func readEarlier(merge, values string, stdin io.Reader) ([]byte, error) {
	if merge == "-" && values == "-" {
		return nil, cli.Usagef("--merge and -f cannot both be standard input")
	}
	if merge == "" {
		return nil, nil
	}
	text, err := readFile(merge, stdin, maxValuesBytes)
	if err != nil {
		return nil, fmt.Errorf("read userData to merge into: %w", err)
	}
	return text, nil
}

func readValues(file string, stdin io.Reader) (userdata.Values, error) {
	if file == "" {
		return userdata.Values{}, cli.Usagef("-f is missing: name a values file that says where the agent comes from, such as " +
			"agent: {image: registry.example/headstart-agent@sha256:...}")
	}
	text, err := readFile(file, stdin, maxValuesBytes)
	if err != nil {
		return userdata.Values{}, fmt.Errorf("read values: %w", err)
	}
	values, err := userdata.Parse(text)
	if err != nil {
		return values, fmt.Errorf("%s: %w", file, err)
	}
	return values, nil
}
