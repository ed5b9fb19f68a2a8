package image

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// compilers are the C cross compilers, by the names that Debian and others give them.
var compilers = map[string]string{"amd64": "x86_64-linux-gnu-gcc", "arm64": "aarch64-linux-gnu-gcc"}

// compiler is the C compiler for an architecture.
func compiler(arch string) (string, error) {
	if arch == runtime.GOARCH {
		return "gcc", nil
	}
	cc, ok := compilers[arch]
	if !ok {
		return "", fmt.Errorf("no C compiler is known for %q: choose from amd64, arm64", arch)
	}
	if _, err := exec.LookPath(cc); err != nil {
		return "", fmt.Errorf("compile for %s: %w: install gcc-%s (Debian)", arch, err, strings.TrimSuffix(strings.ReplaceAll(cc, "_", "-"), "-gcc"))
	}
	return cc, nil
}

// linkerFlags leave out what differs between two builds of the same sources, and have the program know its release.
func linkerFlags(options Options) string {
	flags := []string{"-s", "-w", "-buildid="}
	for _, set := range []struct{ name, value string }{{"release", options.Version}, {"revision", options.Revision}} {
		if set.value != "" {
			flags = append(flags, fmt.Sprintf("-X 'headstart.dev/cmd/internal/cli.%s=%s'", set.name, set.value))
		}
	}
	return strings.Join(flags, " ")
}

// compile returns a binary that depends on the sources, the toolchains, the version and the revision alone. One that imports
// no C is static; CGO is on all the same, for what two programs share would be compiled twice without. Names are resolved by
// Go's own resolver: the image has no plugins for the C library's.
func compile(ctx context.Context, spec Spec, options Options, arch string) ([]byte, error) {
	dir, err := os.MkdirTemp("", "headstart-image-")
	if err != nil {
		return nil, fmt.Errorf("compile %s: %w", spec.Command, err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	out := filepath.Join(dir, spec.Command)
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-tags=netgo,osusergo", "-ldflags="+linkerFlags(options), "-o", out, "./cmd/"+spec.Command)
	cmd.Dir = options.Source
	cmd.Env = append(os.Environ(), "GOOS=linux", "GOARCH="+arch, "GOAMD64=v1", "GOARM64=v8.0", "GOFLAGS=", "CGO_ENABLED=1")
	if spec.CGO {
		cc, err := compiler(arch)
		if err != nil {
			return nil, err
		}
		cmd.Env = append(cmd.Env, "CC="+cc, "CGO_CFLAGS=-O2 -Wno-deprecated-declarations", "CGO_LDFLAGS=")
	}
	if text, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("compile %s for %s: %w: %s", spec.Command, arch, err, strings.TrimSpace(string(text)))
	}
	binary, err := os.ReadFile(out)
	if err != nil {
		return nil, fmt.Errorf("compile %s: %w", spec.Command, err)
	}
	return binary, nil
}
