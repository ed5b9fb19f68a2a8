package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// usageError marks a command line or a config file that cannot be understood: exit code 2. Trying again does not help.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// usage marks err; nil stays nil.
func usage(err error) error {
	if err == nil {
		return nil
	}
	return usageError{err}
}

// exitCode maps an error to what the shell sees.
func exitCode(err error) int {
	if _, usage := errors.AsType[usageError](err); usage {
		return 2
	}
	return 1
}

// noArgs refuses arguments.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("%s takes no argument, and was given %q; see '%[1]s --help'", cmd.CommandPath(), args[0])}
	}
	return nil
}

// subcommandOnly is for a command that does nothing itself: what comes after it must be a command that it has.
func subcommandOnly(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	text := fmt.Sprintf("unknown command %q", args[0])
	if like := cmd.SuggestionsFor(args[0]); len(like) > 0 {
		text += fmt.Sprintf(": did you mean %s?", strings.Join(like, " or "))
	}
	return usageError{fmt.Errorf("%s; see '%s --help'", text, cmd.CommandPath())}
}
