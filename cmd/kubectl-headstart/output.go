package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// clientcmdContext overrides the context's namespace where one is given.
func clientcmdContext(namespace string) clientcmdapi.Context {
	return clientcmdapi.Context{Namespace: namespace}
}

// outputFlag adds -o; the first form is the default.
func outputFlag(cmd *cobra.Command, value *string, forms ...string) {
	cmd.Flags().StringVarP(value, "output", "o", forms[0], strings.Join(forms, " or "))
	cmd.PreRunE = func(*cobra.Command, []string) error {
		if !slices.Contains(forms, *value) {
			return usageError{fmt.Errorf("-o %q: want %s", *value, strings.Join(forms, " or "))}
		}
		return nil
	}
}

func writeJSON(w io.Writer, value any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(value)
}
