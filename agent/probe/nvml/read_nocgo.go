//go:build !linux || !cgo

package nvml

import (
	"context"
	"errors"
	"io"
)

// Supported says whether this build can load the library.
const Supported = false

// Read reports that this build cannot.
func Read(string) Report {
	return Report{Outcome: OutcomeUnsupported, Error: errUnsupported.Error()}
}

var errUnsupported = errors.New("this headstart-agent was built with CGO_ENABLED=0 and cannot load NVML: use the release build")

// Follow reports that this build cannot.
func Follow(context.Context, string, io.Writer) error { return errUnsupported }
