package binaries

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"
)

// programFlags are those of a release (deploy/image/compile.go), but for the build ID, by which the go command sees that
// nothing has changed.
var programFlags = []string{"-trimpath", "-buildvcs=false", "-tags=netgo,osusergo", "-ldflags=-s -w"}

// Command returns the path of one of the project's own commands, for example "headstart-agent", compiled as for a release
// from the sources as they are. It is compiled again only when they have changed, in out/programs; "make programs" does it
// ahead of time.
func Command(ctx context.Context, progress io.Writer, name string) (string, error) {
	commands.Lock()
	defer commands.Unlock()
	if path, ok := commands.built[name]; ok {
		return path, nil
	}
	path, err := command(ctx, progress, name)
	if err == nil {
		commands.built[name] = path
	}
	return path, err
}

// commands are those that this process has asked the go command for: it takes seconds to find that nothing has changed.
var commands = struct {
	sync.Mutex
	built map[string]string
}{built: map[string]string{}}

func command(ctx context.Context, progress io.Writer, name string) (string, error) {
	root, err := ModuleRoot()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(root, "out", "programs")
	if err := os.MkdirAll(filepath.Join(dir, "next"), 0o755); err != nil {
		return "", fmt.Errorf("make the folder for programs: %w", err)
	}
	unlock, err := lock(ctx, filepath.Join(dir, ".lock"), progress)
	if err != nil {
		return "", err
	}
	defer unlock()
	// The go command overwrites its target, which may be running: so it has one of its own, and what runs is a copy that
	// appears by rename.
	next, path := filepath.Join(dir, "next", name), filepath.Join(dir, name)
	cmd := exec.CommandContext(ctx, "go", append(append([]string{"build"}, programFlags...), "-o", next, "./cmd/"+name)...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "GOFLAGS=", "CGO_CFLAGS="+cgoFlags)
	if output, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w: %s", name, err, output)
	}
	built, err := os.Stat(next)
	if err != nil {
		return "", fmt.Errorf("build %s: %w", name, err)
	}
	if old, err := os.Stat(path); err == nil && old.ModTime().Equal(built.ModTime()) && old.Size() == built.Size() {
		return path, nil
	}
	if err := install(next, path, built.ModTime()); err != nil {
		return "", fmt.Errorf("build %s: %w", name, err)
	}
	return path, nil
}

// cgoFlags leave out the hundred warnings of NVIDIA's header.
const cgoFlags = "-O2 -Wno-deprecated-declarations"

// install copies a program, with its time, so that the copy is whole as soon as it is there.
func install(from, to string, modified time.Time) error {
	content, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	temporary := to + ".new"
	if err := os.WriteFile(temporary, content, 0o755); err != nil {
		return err
	}
	if err := os.Chtimes(temporary, modified, modified); err != nil {
		return err
	}
	return os.Rename(temporary, to)
}
