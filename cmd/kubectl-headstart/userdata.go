package main

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"headstart.dev/deploy/userdata"
)

// maxValuesBytes bounds what is read from a values file.
const maxValuesBytes = 1 << 20

func newUserdataCommand() *cobra.Command {
	var system, file string
	cmd := &cobra.Command{
		Use:   "userdata --os al2023|bottlerocket",
		Short: "Prints userData that installs and starts the agent while a node boots",
		Long: "userdata prints what goes into spec.userData of a Karpenter EC2NodeClass (or a launch template). AL2023 gets MIME\n" +
			"multipart, Bottlerocket TOML. Without -f the node gets the agent's image of this release and a CNI probe.",
		Example: "  kubectl headstart userdata --os al2023 -f values.yaml\n" +
			"  # values.yaml\n" +
			"  agent: {image: 111122223333.dkr.ecr.us-east-1.amazonaws.com/headstart-agent@sha256:4bcf...}\n" +
			"  config:\n" +
			"    images: [{image: registry.example/app:v1, required: true}]",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if system != string(userdata.AL2023) && system != string(userdata.Bottlerocket) {
				return usageError{fmt.Errorf("--os %q: want al2023 or bottlerocket", system)}
			}
			values, err := readValues(file, cmd.InOrStdin())
			if err != nil {
				return err
			}
			out, err := userdata.Render(userdata.OS(system), values)
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
	return cmd
}

// readValues reads the file, standard input for "-", or nothing for "".
func readValues(file string, stdin io.Reader) (userdata.Values, error) {
	if file == "" {
		return userdata.Parse(nil)
	}
	in := stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return userdata.Values{}, fmt.Errorf("read values: %w", err)
		}
		defer func() { _ = f.Close() }()
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, maxValuesBytes))
	if err != nil {
		return userdata.Values{}, fmt.Errorf("read values %q: %w", file, err)
	}
	values, err := userdata.Parse(text)
	if err != nil {
		return values, fmt.Errorf("%s: %w", file, err)
	}
	return values, nil
}
