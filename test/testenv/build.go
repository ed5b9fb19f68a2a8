package testenv

import (
	"context"
	"io"
	"os"
	"slices"

	"headstart.dev/test/testenv/internal/binaries"
)

// BuildServers builds the named servers, or all, unless they are built already, and returns the folder that holds them.
func BuildServers(ctx context.Context, progress io.Writer, names ...string) (string, error) {
	if len(names) == 0 {
		names = binaries.All()
	}
	return binaries.Ensure(ctx, progress, names...)
}

// BootServers are what one node and its cluster run: all servers but clients for tests.
func BootServers() []string {
	return slices.DeleteFunc(binaries.All(), func(name string) bool { return name == binaries.Ctr })
}

// BuildEverything builds all that any test runs besides this project's own programs: the servers, Karpenter, Helm, the SOCI
// snapshotter and the older releases of containerd.
func BuildEverything(ctx context.Context, progress io.Writer) error {
	for _, module := range binaries.Modules() {
		if _, err := module.Ensure(ctx, progress); err != nil {
			return err
		}
	}
	return nil
}

// DeployTools returns the folder that holds helm and kustomize, built from their module.
func DeployTools(ctx context.Context, progress io.Writer) (string, error) {
	return binaries.HelmModule.Ensure(ctx, progress)
}

// BuildCommand returns the path of one of the project's commands, for example "headstart-agent", compiled as for a release
// if the sources have changed. The file is shared: nobody writes to it.
func BuildCommand(ctx context.Context, name string) (string, error) {
	return binaries.Command(ctx, os.Stderr, name)
}

// ModuleRoot returns the repository's root, found from the working directory.
func ModuleRoot() (string, error) { return binaries.ModuleRoot() }
