package binaries

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// versionTimeout bounds how long a program may take to say its version.
const versionTimeout = 5 * time.Second

// adopt links servers of the right version that are installed into dir, and returns the names of those that are not.
func (m Module) adopt(ctx context.Context, progress io.Writer, source, dir string, names []string) (left []string, err error) {
	for _, name := range names {
		path := m.installed(ctx, source, name)
		if path == "" {
			left = append(left, name)
			continue
		}
		link := filepath.Join(dir, name)
		if err := os.Remove(link); err != nil && !errors.Is(err, fs.ErrNotExist) { // it leads to what is gone
			return nil, fmt.Errorf("forget server %q: %w", name, err)
		}
		if err := os.Symlink(path, link); err != nil {
			return nil, fmt.Errorf("use the installed server %q: %w", name, err)
		}
		fmt.Fprintf(progress, "testenv: %s is installed in the right version: %s\n", name, path)
	}
	return left, nil
}

// installed returns where a server of the right version lies that somebody else has put there: under KUBEBUILDER_ASSETS or
// on PATH. "" is nowhere; one that says nothing, or another version, is none.
func (m Module) installed(ctx context.Context, source, name string) string {
	want := m.version(source, name)
	if want == "" {
		return ""
	}
	for _, dir := range append([]string{os.Getenv("KUBEBUILDER_ASSETS")}, filepath.SplitList(os.Getenv("PATH"))...) {
		path := filepath.Join(dir, name)
		if !filepath.IsAbs(path) {
			continue
		}
		if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, versionTimeout)
		said, err := exec.CommandContext(ctx, path, "--version").CombinedOutput() //nolint:gosec // whoever sets this user's PATH runs programs as him anyway
		cancel()
		if err == nil && saysVersion(string(said), want) {
			return path
		}
	}
	return ""
}

// saysVersion reports whether what a program printed of itself has the version as a word: v1.37.2 is neither v1.37.20 nor
// v1.37.2-rc.1.
func saysVersion(said, want string) bool {
	return regexp.MustCompile(`(^|[\s:v])` + regexp.QuoteMeta(strings.TrimPrefix(want, "v")) + `($|\s|\+)`).MatchString(said)
}

// version is that of the module which has the server's main package, as go.mod requires it; "" when it has none of its own.
func (m Module) version(source, name string) string {
	requires, err := os.ReadFile(filepath.Join(source, "go.mod"))
	if err != nil {
		return ""
	}
	for pkg := m.packages[name]; strings.Contains(pkg, "/"); pkg = pkg[:strings.LastIndex(pkg, "/")] {
		found := regexp.MustCompile(`(?m)^(?:require)?\s*` + regexp.QuoteMeta(pkg) + ` (v\S+)`).FindSubmatch(requires)
		if found != nil {
			return string(found[1])
		}
	}
	return ""
}
