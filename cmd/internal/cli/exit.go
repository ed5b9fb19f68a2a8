package cli

import (
	"errors"
	"fmt"
)

// UsageError marks a command line or a config file that cannot be understood: exit code 2. Trying again does not help.
type UsageError struct{ error }

func (e UsageError) Unwrap() error { return e.error }

// Usage marks err; nil stays nil.
func Usage(err error) error {
	if err == nil {
		return nil
	}
	return UsageError{err}
}

// Usagef makes a UsageError of a text.
func Usagef(format string, args ...any) error { return UsageError{fmt.Errorf(format, args...)} }

// ExitCode is what the shell sees of an error: 0 for none, 2 for a UsageError, 1 for every other.
func ExitCode(err error) int {
	if err == nil {
		return 0
	}
	if _, usage := errors.AsType[UsageError](err); usage {
		return 2
	}
	return 1
}
