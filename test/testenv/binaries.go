package testenv

import (
	"context"
	"os"

	"headstart.dev/test/testenv/internal/binaries"
)

// Binaries returns the folder that holds the named servers, such as containerd or kubelet, for tests that start them in a
// machine of their own. What is missing is built, which is told to stderr.
func Binaries(ctx context.Context, names ...string) (string, error) {
	return binaries.Ensure(ctx, os.Stderr, names...)
}
