package binaries

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Karpenter is the name of the binary that EnsureKarpenter builds. It has a module of its own, test/tools/karpenter, so
// it is none of All.
const Karpenter = "karpenter-kwok"

// EnsureKarpenter returns the path of Karpenter with its KWOK provider, built once, and the folders of its CRDs.
func EnsureKarpenter(ctx context.Context, progress io.Writer) (path string, crdDirs []string, err error) {
	root, err := ModuleRoot()
	if err != nil {
		return "", nil, err
	}
	module := filepath.Join(root, "test", "tools", "karpenter")
	dir, err := cacheDir(module)
	if err != nil {
		return "", nil, err
	}
	path = filepath.Join(dir, Karpenter)
	if len(missing(dir, []string{Karpenter})) > 0 {
		if err := buildKarpenter(ctx, progress, module, dir); err != nil {
			return "", nil, err
		}
	}
	source, err := goIn(ctx, module, "list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/karpenter")
	if err != nil {
		return "", nil, err
	}
	source = strings.TrimSpace(source)
	return path, []string{filepath.Join(source, "kwok", "charts", "crds"), filepath.Join(source, "kwok", "apis", "crds")}, nil
}

func buildKarpenter(ctx context.Context, progress io.Writer, module, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make the folder for built servers: %w", err)
	}
	unlock, err := lock(ctx, filepath.Join(dir, ".lock"), progress)
	if err != nil {
		return err
	}
	defer unlock()
	if len(missing(dir, []string{Karpenter})) == 0 {
		return nil
	}
	fmt.Fprintln(progress, "testenv: building Karpenter with its KWOK provider from source, once: 3 to 6 minutes")
	built := filepath.Join(dir, ".build-"+Karpenter)
	if _, err := goIn(ctx, module, "build", "-trimpath", "-ldflags", "-s -w", "-o", built, "sigs.k8s.io/karpenter/kwok"); err != nil {
		return err
	}
	if err := os.Rename(built, filepath.Join(dir, Karpenter)); err != nil {
		return fmt.Errorf("keep server %q: %w", Karpenter, err)
	}
	return nil
}

// goIn runs the go command in a module and returns what it prints.
func goIn(ctx context.Context, module string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = module
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("go %s in %s: %w: %s", args[0], module, err, stderr.String())
	}
	return string(out), nil
}
