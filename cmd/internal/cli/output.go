package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"
)

// Forms of output that several commands have.
const (
	Text = "text"
	Wide = "wide"
	Name = "name"
	JSON = "json"
	YAML = "yaml"
	HTML = "html"
)

// OutputFlag adds -o; the first form is the default. Another one is refused before the command runs.
func OutputFlag(cmd *cobra.Command, value *string, forms ...string) {
	cmd.Flags().StringVarP(value, "output", "o", forms[0], strings.Join(forms, ", "))
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error {
		if !slices.Contains(forms, *value) {
			return Usagef("-o %q: want %s; %s", *value, strings.Join(forms, ", "), see(cmd))
		}
		return nil
	}
}

// Print writes a value as JSON or YAML. Both have the names of the JSON tags.
func Print(w io.Writer, form string, value any) error {
	text, err := json.MarshalIndent(value, "", "  ")
	if err == nil && form == YAML {
		text, err = yaml.JSONToYAML(text)
	}
	if err != nil {
		return fmt.Errorf("print %s: %w", form, err)
	}
	_, err = fmt.Fprintln(w, strings.TrimSpace(string(text)))
	return err
}
