package binaries

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"
)

// progressPeriod is how often a running build says how far it is: nobody shall wonder whether it lives.
const progressPeriod = 5 * time.Second

// build compiles the named servers with one go command, so that what they share is loaded once, and moves each into dir.
func (m Module) build(ctx context.Context, progress io.Writer, source, dir string, names []string) error {
	out, err := os.MkdirTemp(dir, ".build-")
	if err != nil {
		return fmt.Errorf("make a folder to build in: %w", err)
	}
	defer func() { _ = os.RemoveAll(out) }()

	start := time.Now()
	fmt.Fprintf(progress, "testenv: building %d servers from source, once: %s%s\n", len(names), strings.Join(names, ", "), m.lastTime(dir))
	args := append([]string{"build", "-v", "-o", out + "/"}, m.buildFlags()...)
	for _, name := range names {
		args = append(args, m.packages[name])
	}
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = source
	scratch, remove := scratchDir()
	defer remove()
	cmd.Env = append(append(os.Environ(), m.environ()...), "GOTMPDIR="+scratch)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return fmt.Errorf("build servers: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("build servers: %w", err)
	}
	var compiled atomic.Int64
	done := make(chan struct{})
	go report(done, progress, out, names, start, &compiled)
	messages := compilerOutput(stderr, &compiled)
	err = cmd.Wait()
	close(done)
	if err != nil {
		return fmt.Errorf("build servers %s: %w\n%s", strings.Join(names, ", "), err, messages)
	}
	for _, name := range names {
		if err := os.Rename(filepath.Join(out, builtName(m.packages[name])), filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("keep server %q: %w", name, err)
		}
	}
	fmt.Fprintf(progress, "testenv: built %d servers in %.0f s\n", len(names), time.Since(start).Seconds())
	m.remember(dir, time.Since(start), compiled.Load())
	return nil
}

// manyPackages tells a first build from one that found most in Go's build cache.
const manyPackages = 50

// lastTime says what the module's build took the last time that it had much to do, in parentheses, or nothing.
func (m Module) lastTime(dir string) string {
	took, err := os.ReadFile(m.tookFile(dir))
	if err != nil {
		return ""
	}
	return fmt.Sprintf(" (the last time that took %s)", bytes.TrimSpace(took))
}

// remember keeps what a build took, for the next time that go.mod changes. That nobody can be told is no failure.
func (m Module) remember(dir string, took time.Duration, packages int64) {
	if packages > manyPackages {
		_ = os.WriteFile(m.tookFile(dir), fmt.Appendf(nil, "%.0f s for %d packages\n", took.Seconds(), packages), 0o600)
	}
}

// tookFile lies beside the folders of built servers: it outlives their versions.
func (m Module) tookFile(dir string) string {
	return filepath.Join(filepath.Dir(dir), "took-"+cmp.Or(m.dir, "servers"))
}

// environ is what a build must not take from its surroundings.
func (m Module) environ() []string {
	cgo := "0"
	if m.cgo {
		cgo = "1"
	}
	return []string{"CGO_ENABLED=" + cgo, "CGO_CFLAGS=" + cgoFlags, "GOWORK=off", "GOFLAGS="}
}

// builtName is the file name that "go build" gives to a main package: the last path element that is no version.
func builtName(pkg string) string {
	base := path.Base(pkg)
	if len(base) > 1 && base[0] == 'v' && strings.Trim(base[1:], "0123456789") == "" {
		return path.Base(path.Dir(pkg))
	}
	return base
}

// compilerOutput counts the packages that "go build -v" names and returns all other lines, which are errors.
func compilerOutput(stderr io.Reader, compiled *atomic.Int64) string {
	var messages bytes.Buffer
	lines := bufio.NewScanner(stderr)
	for lines.Scan() {
		line := lines.Text()
		if strings.ContainsAny(line, " :\t") {
			messages.WriteString(line + "\n")
			continue
		}
		compiled.Add(1)
	}
	return messages.String()
}

func report(done <-chan struct{}, progress io.Writer, out string, names []string, start time.Time, compiled *atomic.Int64) {
	tick := time.NewTicker(progressPeriod)
	defer tick.Stop()
	for {
		select {
		case <-done:
			return
		case <-tick.C:
			linked, _ := filepath.Glob(filepath.Join(out, "*")) // the pattern is well formed
			fmt.Fprintf(progress, "testenv: %.0f s: %d of %d servers, %d packages compiled\n",
				time.Since(start).Seconds(), len(linked), len(names), compiled.Load())
		}
	}
}
