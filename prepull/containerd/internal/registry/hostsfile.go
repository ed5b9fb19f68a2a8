package registry

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/pelletier/go-toml/v2"
)

// hostsFile is the hosts.toml of a registry as it was read, or the fact that there was none.
type hostsFile struct {
	path     string // "" is none
	root     []string
	domain   string
	modified time.Time
	size     int64
	// problem is why it cannot be read. containerd then goes on without it, and what comes of that says nothing of the file.
	problem error
}

func findHostsFile(roots []string, domain string) hostsFile {
	f := hostsFile{root: roots, domain: domain}
	dir, err := hostDir(roots)(domain)
	if err != nil {
		return f
	}
	path := filepath.Join(dir, "hosts.toml")
	if info, err := os.Stat(path); err == nil {
		f.path, f.modified, f.size = path, info.ModTime(), info.Size()
	}
	return f
}

func readHostsFile(roots []string, domain string) hostsFile {
	f := findHostsFile(roots, domain)
	if f.path == "" {
		return f
	}
	data, err := os.ReadFile(f.path)
	if err != nil {
		f.problem = err
		return f
	}
	var anything map[string]any
	if err := toml.Unmarshal(data, &anything); err != nil {
		where := ""
		if syntax, ok := errors.AsType[*toml.DecodeError](err); ok {
			row, column := syntax.Position()
			where = fmt.Sprintf(":%d:%d", row, column)
		}
		f.problem = fmt.Errorf("%s%s: %w", f.path, where, err)
	}
	return f
}

// unchanged reports whether the file is still what it was.
func (f hostsFile) unchanged() bool {
	now := findHostsFile(f.root, f.domain)
	return now.path == f.path && now.modified.Equal(f.modified) && now.size == f.size
}

// fault marks what a registry did not serve, and tells of a hosts.toml that was passed over on the way.
func (r *Repository) fault(err error) error {
	if err == nil {
		return nil
	}
	if r.hostsFile.problem != nil {
		err = fmt.Errorf("%w; and its hosts file is not in force: %s", err, r.hostsFile.problem.Error())
	}
	return fetchError{err}
}

// fetchError is a failure of the registry, and of whatever lies before it.
type fetchError struct{ error }

func (e fetchError) Unwrap() error { return e.error }

func (e fetchError) Is(target error) bool { return target == ErrFetch }
