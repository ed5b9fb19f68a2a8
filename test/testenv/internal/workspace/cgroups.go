package workspace

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// cgroups returns the top cgroups of a workspace in all hierarchies, of version 1 and 2.
func cgroups(id string) ([]string, error) {
	unified, err := filepath.Glob(filepath.Join(cgroupRoot, resourcePrefix(id)+"*"))
	if err != nil {
		return nil, fmt.Errorf("look for cgroups: %w", err)
	}
	split, err := filepath.Glob(filepath.Join(cgroupRoot, "*", resourcePrefix(id)+"*"))
	if err != nil {
		return nil, fmt.Errorf("look for cgroups: %w", err)
	}
	return append(unified, split...), nil
}

// removeCgroups removes the workspace's cgroups, children first. A cgroup stays busy for a moment after its last process.
func removeCgroups(id string) error {
	tops, err := cgroups(id)
	if err != nil {
		return err
	}
	deadline := time.Now().Add(settleTimeout)
	for _, top := range tops {
		for {
			err := removeCgroup(top)
			if err == nil {
				break
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("remove cgroup %s: %w", top, err)
			}
			<-time.After(settlePeriod)
		}
	}
	return nil
}

func removeCgroup(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list cgroup: %w", err)
	}
	for _, entry := range entries {
		if entry.IsDir() {
			if err := removeCgroup(filepath.Join(dir, entry.Name())); err != nil {
				return err
			}
		}
	}
	if err := unix.Rmdir(dir); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove cgroup: %w", err)
	}
	return nil
}

// strayCgroups returns the cgroups outside the workspace's own that its containers run in: a container that no kubelet
// started has one below a folder that all containerds share.
func strayCgroups(id, dir string) ([]string, error) {
	pids, err := processes(id, dir)
	if err != nil {
		return nil, err
	}
	var strays []string
	for _, pid := range pids {
		proc := fmt.Sprintf("/proc/%d/", pid)
		if !rootedIn(proc, dir) {
			continue
		}
		content, err := os.ReadFile(proc + "cgroup")
		if err != nil {
			continue // it has ended
		}
		for line := range strings.Lines(string(content)) {
			fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
			if len(fields) == 3 && strings.Count(fields[2], "/") > 1 {
				strays = append(strays, filepath.Join(cgroupRoot, hierarchy(fields[1]), fields[2]))
			}
		}
	}
	slices.Sort(strays)
	return slices.Compact(strays), nil
}

// hierarchy is the folder of a cgroup hierarchy by its name in /proc/PID/cgroup.
func hierarchy(controllers string) string {
	if controllers != "" {
		return strings.TrimPrefix(controllers, "name=")
	}
	if _, err := os.Stat(filepath.Join(cgroupRoot, "unified")); err == nil {
		return "unified"
	}
	return ""
}

// removeStray removes a stray cgroup and the folders above it that became empty. What is not empty belongs to others.
func removeStray(dir string) {
	deadline := time.Now().Add(settleTimeout)
	for dir != cgroupRoot && filepath.Dir(dir) != cgroupRoot {
		err := unix.Rmdir(dir)
		if errors.Is(err, unix.EBUSY) && time.Now().Before(deadline) && !holdsCgroups(dir) {
			<-time.After(settlePeriod) // its last process is still being taken away
			continue
		}
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return
		}
		dir = filepath.Dir(dir)
	}
}

func holdsCgroups(dir string) bool {
	entries, err := os.ReadDir(dir)
	return err != nil || slices.ContainsFunc(entries, os.DirEntry.IsDir)
}
