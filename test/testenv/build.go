package testenv

import (
	"context"
	"io"

	"headstart.dev/test/testenv/internal/binaries"
)

// BuildServers builds the named servers, or all, unless they are built already, and returns the folder that holds them.
func BuildServers(ctx context.Context, progress io.Writer, names ...string) (string, error) {
	if len(names) == 0 {
		names = binaries.All()
	}
	return binaries.Ensure(ctx, progress, names...)
}

// ModuleRoot returns the repository's root, found from the working directory.
func ModuleRoot() (string, error) { return binaries.ModuleRoot() }
