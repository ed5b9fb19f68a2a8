package cli_test

import (
	"bytes"
	"encoding/json"
	"runtime"
	"testing"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"

	"headstart.dev/cmd/internal/cli"
)

// execute runs a command line of a program that has status and pull, and pull's --pin.
func execute(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	root := &cobra.Command{Use: "prog"}
	pull := &cobra.Command{Use: "pull IMAGE", Args: cli.Args(cobra.ExactArgs(1)), RunE: func(*cobra.Command, []string) error { return nil }}
	pull.Flags().Bool("pin", false, "")
	root.AddCommand(pull, &cobra.Command{Use: "status", Args: cli.NoArgs, RunE: func(*cobra.Command, []string) error { return nil }})
	cli.Complete(root)
	var out, errs bytes.Buffer
	root.SetOut(&out)
	root.SetErr(&errs)
	code = cli.Execute(t.Context(), root, args)
	return code, out.String(), errs.String()
}

func TestWordsThatNobodyKnows(t *testing.T) {
	for name, tc := range map[string]struct {
		args []string
		code int
		says string
	}{
		"a typo":                       {[]string{"statsu"}, 2, `unknown command "statsu": did you mean status?`},
		"a typo before a flag":         {[]string{"pul", "--pin", "nginx"}, 2, `unknown command "pul": did you mean pull?`},
		"a word like no other":         {[]string{"frobnicate"}, 2, `unknown command "frobnicate"; see 'prog --help'`},
		"a word behind a command":      {[]string{"status", "now"}, 2, `takes no argument, and was given "now"`},
		"an argument that is missing":  {[]string{"pull"}, 2, "see 'prog pull --help'"},
		"a flag that nobody knows":     {[]string{"pull", "--pn"}, 2, "unknown flag: --pn"},
		"help of a typo":               {[]string{"help", "statsu"}, 2, "did you mean status?"},
		"completion for no such shell": {[]string{"completion", "bsh"}, 2, "did you mean bash"},
		"a form of output of version":  {[]string{"version", "-o", "xml"}, 2, "want text, json, yaml"},
		"an argument of version":       {[]string{"version", "x"}, 2, "takes no argument"},
		"no command":                   {nil, 0, ""},
		"help":                         {[]string{"help"}, 0, ""},
		"help of a command":            {[]string{"help", "pull"}, 0, ""},
		"a command":                    {[]string{"status"}, 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			code, out, errs := execute(t, tc.args...)
			require.Equal(t, tc.code, code)
			require.Contains(t, errs, tc.says)
			if code != 0 {
				require.Empty(t, out)
				require.Regexp(t, "^prog: [^\n]+\n$", errs, "one line")
			}
		})
	}
}

func TestVersion(t *testing.T) {
	_, line, _ := execute(t, "version")
	require.Regexp(t, `^prog \S+, commit \S+, `+runtime.Version()+` `+runtime.GOOS+`/`+runtime.GOARCH+"\n$", line)
	code, flag, _ := execute(t, "--version")
	require.Zero(t, code)
	require.Equal(t, line, flag)

	for form, parse := range map[string]func([]byte, any) error{
		"json": json.Unmarshal, "yaml": func(text []byte, into any) error { return yaml.Unmarshal(text, into) },
	} {
		_, out, _ := execute(t, "version", "-o", form)
		var got cli.Build
		require.NoError(t, parse([]byte(out), &got))
		require.Equal(t, cli.Current(), got)
		require.NotEmpty(t, got.Version)
		require.NotEmpty(t, got.Commit)
	}
}
