package install

import (
	_ "embed" // the default config is a file that people can read
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"

	"headstart.dev/deploy/systemd"
)

// Where things go, relative to the host's root.
const (
	binaryPath = "usr/local/bin/headstart-agent"
	configPath = "etc/headstart/agent.yaml"
	unitPath   = "etc/systemd/system/" + systemd.UnitName
	// wantsPath is what "systemctl enable" makes of the unit's WantedBy.
	wantsPath = "etc/systemd/system/containerd.service.wants/" + systemd.UnitName
)

//go:embed agent.yaml
var defaultConfig string

// Change says what happened to one file.
type Change struct {
	// Path is absolute on the host.
	Path string
	// Written is false when the file was as wanted already, or is the user's own.
	Written bool
}

// Install makes the host at root have the binary at self, the unit, enabled, and a config. A config that is there stays.
// Each file is replaced by one rename, so a reader sees the old one or the new one; done twice, the second time writes
// nothing. Symbolic links that leave root are refused.
func Install(root, self string) (changes []Change, err error) {
	host, err := os.OpenRoot(root)
	if err != nil {
		return nil, fmt.Errorf("open host root: %w", err)
	}
	defer func() { err = errors.Join(err, host.Close()) }()
	steps := []struct {
		path string
		make func(*os.Root, string) (bool, error)
	}{
		{binaryPath, func(host *os.Root, to string) (bool, error) { return copyFile(host, to, self) }},
		{configPath, func(host *os.Root, to string) (bool, error) {
			if _, err := host.Lstat(to); !errors.Is(err, fs.ErrNotExist) {
				return false, err
			}
			return writeFile(host, to, []byte(defaultConfig), 0o600)
		}},
		{unitPath, func(host *os.Root, to string) (bool, error) {
			return writeFile(host, to, []byte(systemd.Unit), 0o644)
		}},
		{wantsPath, func(host *os.Root, to string) (bool, error) { return link(host, to, "../"+systemd.UnitName) }},
	}
	for _, step := range steps {
		if err := host.MkdirAll(path.Dir(step.path), 0o755); err != nil {
			return changes, fmt.Errorf("make folder of /%s: %w", step.path, hint(err))
		}
		written, err := step.make(host, step.path)
		if err != nil {
			return changes, fmt.Errorf("install /%s: %w", step.path, hint(err))
		}
		changes = append(changes, Change{Path: "/" + step.path, Written: written})
	}
	return changes, nil
}

// errReadOnly is what a host whose system is an image answers.
var errReadOnly = errors.New("this host's system is read-only (Bottlerocket, EKS Auto Mode): use 'kubectl headstart userdata --os bottlerocket' or the DaemonSet")

func hint(err error) error {
	if errors.Is(err, errROFS) {
		return errors.Join(err, errReadOnly)
	}
	return err
}

// writeFile makes the file hold content, with this mode.
func writeFile(host *os.Root, to string, content []byte, mode fs.FileMode) (bool, error) {
	if old, err := host.ReadFile(to); err == nil && string(old) == string(content) {
		return false, host.Chmod(to, mode)
	}
	return true, replace(host, to, mode, func(w io.Writer) error {
		_, err := w.Write(content)
		return err
	})
}

// copyFile makes the file a copy of the one at from, executable.
func copyFile(host *os.Root, to, from string) (bool, error) {
	in, err := os.Open(from)
	if err != nil {
		return false, fmt.Errorf("open the agent's own binary: %w", err)
	}
	defer func() { _ = in.Close() }()
	same, err := sameContent(host, to, in)
	if err != nil || same {
		return false, err
	}
	if _, err := in.Seek(0, io.SeekStart); err != nil {
		return false, fmt.Errorf("read the agent's own binary: %w", err)
	}
	return true, replace(host, to, 0o755, func(w io.Writer) error {
		_, err := io.Copy(w, in)
		return err
	})
}

// replace writes beside the file and renames: never a half-written binary under the name that systemd starts.
func replace(host *os.Root, to string, mode fs.FileMode, write func(io.Writer) error) error {
	temp := to + ".headstart-new"
	if err := host.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	out, err := host.OpenFile(temp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	err = write(out)
	// The umask may have taken bits from the mode.
	err = errors.Join(err, out.Chmod(mode))
	err = errors.Join(err, out.Sync(), out.Close())
	if err == nil {
		err = host.Rename(temp, to)
	}
	if err != nil {
		return errors.Join(err, host.Remove(temp))
	}
	return nil
}

func link(host *os.Root, to, target string) (bool, error) {
	if old, err := host.Readlink(to); err == nil && old == target {
		return false, nil
	}
	if err := host.Remove(to); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	return true, host.Symlink(target, to)
}
