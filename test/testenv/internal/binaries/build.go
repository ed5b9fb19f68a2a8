package binaries

import (
	"bufio"
	"bytes"
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

// progressPeriod is how often a running build says how far it is: often enough to see that it lives, seldom enough for a
// log file.
const progressPeriod = 15 * time.Second

// build compiles the named servers with one go command, so that what they share is loaded once, and moves each into dir.
func (m Module) build(ctx context.Context, progress io.Writer, source, dir string, names []string) error {
	out, err := os.MkdirTemp(dir, ".build-")
	if err != nil {
		return fmt.Errorf("make a folder to build in: %w", err)
	}
	defer func() { _ = os.RemoveAll(out) }()

	start := time.Now()
	fmt.Fprintf(progress, "testenv: building %d servers from source, once: %s\n", len(names), strings.Join(names, ", "))
	args := append([]string{"build", "-v", "-o", out + "/"}, buildFlags()...)
	for _, name := range names {
		args = append(args, m.packages[name])
	}
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = source
	cmd.Env = append(os.Environ(), m.environ()...)
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
	return nil
}

// environ is what a build must not take from its surroundings.
func (m Module) environ() []string {
	cgo := "0"
	if m.cgo {
		cgo = "1"
	}
	return []string{"CGO_ENABLED=" + cgo, "GOWORK=off", "GOFLAGS="}
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
