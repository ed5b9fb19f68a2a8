package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// suggestionDistance is how many letters may be wrong in a word for which another is suggested.
const suggestionDistance = 2

// Complete finishes a root command once it has its subcommands: it adds "version" and --version, and makes every word that
// nobody knows a UsageError with a suggestion, where cobra would print the help and call that a success.
func Complete(root *cobra.Command) {
	root.SilenceErrors, root.SilenceUsage = true, true
	root.SetFlagErrorFunc(flagError)
	root.AddCommand(newVersionCommand(root))
	root.Version = Current().Version
	root.SetVersionTemplate(Current().line(root) + "\n")
	root.SetHelpCommand(newHelpCommand(root))
	root.InitDefaultCompletionCmd()
	strict(root)
}

// strict lets commands that do nothing themselves take no word but that of a subcommand.
func strict(cmd *cobra.Command) {
	cmd.SuggestionsMinimumDistance = suggestionDistance
	if cmd.HasSubCommands() {
		cmd.Args = subcommandOnly
		if !cmd.Runnable() {
			cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
		}
	}
	for _, sub := range cmd.Commands() {
		strict(sub)
	}
}

// Execute runs one command line and returns the exit code. Errors are one line on the command's stderr.
func Execute(ctx context.Context, root *cobra.Command, args []string) int {
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err != nil {
		fmt.Fprintf(root.ErrOrStderr(), "%s: %v\n", root.Name(), err)
	}
	return ExitCode(err)
}

// Args makes a wrong number of arguments a UsageError.
func Args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return Usagef("%w; %s", err, see(cmd))
		}
		return nil
	}
}

// NoArgs refuses arguments.
func NoArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return Usagef("%s takes no argument, and was given %q; %s", cmd.CommandPath(), args[0], see(cmd))
	}
	return nil
}

// subcommandOnly is for a command with subcommands: what comes after it must be one of them.
func subcommandOnly(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return Usagef("unknown command %q%s; %s", args[0], didYouMean(cmd, args[0]), see(cmd))
}

func didYouMean(cmd *cobra.Command, word string) string {
	like := cmd.SuggestionsFor(word)
	if len(like) == 0 {
		return ""
	}
	return ": did you mean " + strings.Join(like, " or ") + "?"
}

func see(cmd *cobra.Command) string { return "see '" + cmd.CommandPath() + " --help'" }

// flagError tells of a flag that cannot be understood. Behind a word that nobody knows it is the word that is wrong: the
// flag may well be one of the command that was meant.
func flagError(cmd *cobra.Command, err error) error {
	if cmd.HasSubCommands() && cmd.Flags().NArg() > 0 {
		return subcommandOnly(cmd, cmd.Flags().Args())
	}
	return Usagef("%w; %s", err, see(cmd))
}

// newHelpCommand is cobra's, but for topics that are not there.
func newHelpCommand(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "Shows the help of a command",
		RunE: func(_ *cobra.Command, args []string) error {
			cmd, rest, err := root.Find(args)
			if err != nil || cmd == nil || len(rest) > 0 && cmd.HasSubCommands() {
				return subcommandOnly(root, args)
			}
			cmd.InitDefaultHelpFlag()
			return cmd.Help()
		},
	}
}
