// Package binaries builds the servers of the testbed from their Go modules and keeps them.
//
// A binary is built once for each combination of test/tools' go.mod, go.sum and main.go files, build flags and Go version, into
// the user's cache folder; later calls only look. A file lock keeps concurrent test binaries from building the same thing
// twice, and a finished binary appears by rename, so that a killed build leaves nothing that looks whole. Start from Ensure.
package binaries

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// kubernetesVersion is stamped into the Kubernetes servers; it must be that of k8s.io/kubernetes in test/tools/go.mod.
const kubernetesVersion = "v1.37.2"

// The names of the servers, as Ensure takes them and as the binaries are called.
const (
	Etcd              = "etcd"
	APIServer         = "kube-apiserver"
	Scheduler         = "kube-scheduler"
	ControllerManager = "kube-controller-manager"
	Kubelet           = "kubelet"
	Containerd        = "containerd"
	Shim              = "containerd-shim-runc-v2"
	Ctr               = "ctr"
	Registry          = "registry"
)

// All returns the names of every server of the main module, sorted.
func All() []string { return slices.Sorted(maps.Keys(mainModule.packages)) }

// buildFlags are the flags of every build. -s -w halves the link time and the size; the version is what kubectl, the
// kubelet and feature negotiation read.
func (m Module) buildFlags() []string {
	major, minor, _ := strings.Cut(strings.TrimPrefix(kubernetesVersion, "v"), ".")
	minor, _, _ = strings.Cut(minor, ".")
	const pkg = "k8s.io/component-base/version."
	flags := []string{"-trimpath"}
	if m.shares {
		flags = append(flags, "-tags=netgo,osusergo,no_btrfs")
	}
	return append(flags, "-ldflags", fmt.Sprintf("-s -w -X %sgitVersion=%s -X %sgitMajor=%s -X %sgitMinor=%s",
		pkg, kubernetesVersion, pkg, major, pkg, minor))
}

// Ensure returns the folder that holds the named servers of the main module, building those that are missing and that
// nobody has installed. It blocks while another process builds. Progress goes to progress, one line at a time, and only when
// something is built or found.
func Ensure(ctx context.Context, progress io.Writer, names ...string) (string, error) {
	return mainModule.ensure(ctx, progress, names...)
}

func (m Module) ensure(ctx context.Context, progress io.Writer, names ...string) (string, error) {
	for _, name := range names {
		if m.packages[name] == "" {
			return "", fmt.Errorf("build server %q: not one of %s", name, strings.Join(slices.Sorted(maps.Keys(m.packages)), ", "))
		}
	}
	source, err := m.source()
	if err != nil {
		return "", err
	}
	dir, err := m.cacheDir(source)
	if err != nil {
		return "", err
	}
	if len(missing(dir, names)) == 0 {
		return dir, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("make the folder for built servers: %w", err)
	}
	unlock, err := lock(ctx, filepath.Join(dir, ".lock"), progress)
	if err != nil {
		return "", err
	}
	defer unlock()
	left, err := m.adopt(ctx, progress, source, dir, missing(dir, names))
	if err != nil {
		return "", err
	}
	if len(left) > 0 {
		if err := m.build(ctx, progress, source, dir, left); err != nil {
			return "", err
		}
	}
	return dir, nil
}

// missing returns those of names that dir does not hold, sorted and without repetition.
func missing(dir string, names []string) []string {
	var left []string
	for _, name := range names {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			left = append(left, name)
		}
	}
	slices.Sort(left)
	return slices.Compact(left)
}

// cacheDir names the folder for what the module at dir builds with the flags and the Go version of today.
func (m Module) cacheDir(module string) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the user's cache folder: %w", err)
	}
	sum := sha256.New()
	mains, err := filepath.Glob(filepath.Join(module, "*", "main.go")) // what is built of sources of our own
	if err != nil {
		return "", fmt.Errorf("find the servers' sources: %w", err)
	}
	for _, name := range append([]string{filepath.Join(module, "go.mod"), filepath.Join(module, "go.sum")}, mains...) {
		content, err := os.ReadFile(name)
		if err != nil {
			return "", fmt.Errorf("read the servers' module: %w", err)
		}
		sum.Write(content)
	}
	fmt.Fprintln(sum, m.buildFlags(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return filepath.Join(cache, "headstart", "tools", hex.EncodeToString(sum.Sum(nil))[:16]), nil
}

// ModuleRoot returns the folder of the module headstart.dev that holds the working directory.
func ModuleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find the module root: %w", err)
	}
	for {
		content, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && strings.HasPrefix(string(content), "module headstart.dev\n") {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("find the module root: no go.mod of headstart.dev above the working directory; run from inside the repository")
		}
		dir = parent
	}
}

// lock takes an exclusive lock on path and returns what releases it. The kernel releases it when the process dies.
func lock(ctx context.Context, path string, progress io.Writer) (func(), error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open the build lock: %w", err)
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err == nil {
		return func() { _ = file.Close() }, nil
	}
	fmt.Fprintln(progress, "testenv: waiting for another process that builds servers")
	locked := make(chan error, 1)
	go func() { locked <- unix.Flock(int(file.Fd()), unix.LOCK_EX) }()
	select {
	case err := <-locked:
		if err != nil {
			_ = file.Close()
			return nil, fmt.Errorf("take the build lock: %w", err)
		}
		return func() { _ = file.Close() }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for another process that builds servers: %w", ctx.Err())
	}
}
