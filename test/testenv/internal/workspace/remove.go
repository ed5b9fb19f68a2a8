package workspace

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

const (
	// settleTimeout is how long killed processes and busy cgroups may take to vanish.
	settleTimeout = 10 * time.Second
	settlePeriod  = 10 * time.Millisecond
	netnsDir      = "/run/netns"
	cgroupRoot    = "/sys/fs/cgroup"
)

// remove ends every process of the workspace and then takes away its mounts, namespaces, links, cgroups and folder.
func remove(id, dir string) error {
	strays, err := strayCgroups(id, dir)
	if err != nil {
		return err
	}
	if err := killAll(id, dir); err != nil {
		return err
	}
	if err := errors.Join(unmountBelow(dir), removeNetwork(id), removeCgroups(id), removeShimSockets(dir), removeCNIResults(id)); err != nil {
		return err
	}
	for _, stray := range strays {
		removeStray(stray)
	}
	if left, err := mountsBelow(dir); err != nil || len(left) > 0 {
		return errors.Join(err, fmt.Errorf("remove workspace %s: still mounted: %v", id, left))
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove workspace %s: %w", id, err)
	}
	return nil
}

// killAll kills the processes of a workspace until none is left: a process may fork while it is looked at.
func killAll(id, dir string) error {
	deadline := time.Now().Add(settleTimeout)
	for {
		pids, err := processes(id, dir)
		if err != nil || len(pids) == 0 {
			return err
		}
		for _, pid := range pids {
			if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("kill process %d of workspace %s: %w", pid, id, err)
			}
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("kill the processes of workspace %s: still there: %v", id, pids)
		}
		<-time.After(settlePeriod)
	}
}

// processes returns the living processes of a workspace: those that carry its mark in their environment, those in its
// cgroups, and those whose root file system is an overlay in its folder (containers, whose shim may be dead).
func processes(id, dir string) ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var pids []int
	for _, entry := range entries {
		var pid int
		if _, err := fmt.Sscanf(entry.Name(), "%d", &pid); err != nil || pid <= 1 || pid == os.Getpid() {
			continue
		}
		if belongs(pid, id, dir) {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// belongs says whether a process is part of a workspace. A process that ends meanwhile is not.
func belongs(pid int, id, dir string) bool {
	proc := fmt.Sprintf("/proc/%d/", pid)
	environ, err := os.ReadFile(proc + "environ")
	if err != nil {
		return false
	}
	if slices.ContainsFunc(bytes.Split(environ, []byte{0}), func(entry []byte) bool { return string(entry) == EnvKey+"="+id }) {
		return !zombie(proc)
	}
	cgroups, err := os.ReadFile(proc + "cgroup")
	if err == nil && bytes.Contains(cgroups, []byte("/"+resourcePrefix(id))) {
		return !zombie(proc)
	}
	return rootedIn(proc, dir) && !zombie(proc)
}

// rootedIn says whether the root file system of a process is a mount whose layers are in dir.
func rootedIn(proc, dir string) bool {
	mounts, err := os.ReadFile(proc + "mountinfo")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(mounts)) {
		if fields := strings.Fields(line); len(fields) > 5 && fields[4] == "/" && strings.Contains(line, dir+"/") {
			return true
		}
	}
	return false
}

// zombie says whether a process has ended and only waits for its parent.
func zombie(proc string) bool {
	stat, err := os.ReadFile(proc + "stat")
	if err != nil {
		return true
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return strings.HasPrefix(rest, "Z") || strings.HasPrefix(rest, "X")
}

// mountsBelow returns the mount points in dir, deepest last.
func mountsBelow(dir string) ([]string, error) {
	file, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("list mounts: %w", err)
	}
	defer func() { _ = file.Close() }()
	var points []string
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20) // an overlay of a hundred layers has a long line
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) > 4 && strings.HasPrefix(fields[4], dir+"/") {
			points = append(points, fields[4])
		}
	}
	return points, lines.Err()
}

// unmountBelow takes away all mounts in dir. A busy one is detached: its processes are dead by now.
func unmountBelow(dir string) error {
	points, err := mountsBelow(dir)
	if err != nil {
		return err
	}
	for _, point := range slices.Backward(points) {
		if err := unix.Unmount(point, unix.UMOUNT_NOFOLLOW); err == nil || errors.Is(err, unix.EINVAL) {
			continue
		}
		if err := unix.Unmount(point, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("unmount %s: %w", point, err)
		}
	}
	return nil
}

// shimSocket is where every containerd, private or not, puts the sockets of its shims.
var shimSocket = regexp.MustCompile(`/run/containerd/s/[0-9a-f]{64}`)

// removeShimSockets removes the sockets of killed shims, which the shims' bundles name.
func removeShimSockets(dir string) error {
	bundles := filepath.Join(dir, "state", "io.containerd.runtime.v2.task", "*", "*")
	for _, name := range []string{"address", "bootstrap.json"} {
		paths, err := filepath.Glob(filepath.Join(bundles, name))
		if err != nil {
			return fmt.Errorf("look for shims: %w", err)
		}
		for _, path := range paths {
			content, err := os.ReadFile(path)
			if err != nil {
				return fmt.Errorf("read a shim's bundle: %w", err)
			}
			socket := shimSocket.Find(content)
			if socket == nil {
				continue
			}
			if err := os.Remove(string(socket)); err != nil && !errors.Is(err, os.ErrNotExist) {
				return fmt.Errorf("remove a shim's socket: %w", err)
			}
		}
	}
	return nil
}

// cniResults is where libcni keeps what a plugin answered; its caller in containerd has no setting for it.
const cniResults = "/var/lib/cni/results"

// removeCNIResults removes the cached results of the workspace's pod network, and the folders above if they are empty.
func removeCNIResults(id string) error {
	paths, err := filepath.Glob(filepath.Join(cniResults, resourcePrefix(id)+"*"))
	if err != nil {
		return fmt.Errorf("look for CNI results: %w", err)
	}
	if len(paths) == 0 {
		return nil
	}
	for _, path := range paths {
		// The result of the loopback plugin for the same container: "cni-loopback-CONTAINER-lo".
		container := strings.Split(strings.TrimPrefix(filepath.Base(path), resourcePrefix(id)), "-")
		same := filepath.Join(cniResults, "cni-loopback-"+container[max(len(container)-2, 0)]+"-lo")
		for _, path := range []string{path, same} {
			if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
				return fmt.Errorf("remove a CNI result: %w", err)
			}
		}
	}
	if unix.Rmdir(cniResults) == nil {
		_ = unix.Rmdir(filepath.Dir(cniResults)) // not empty: then it belongs to others
	}
	return nil
}

func removeNetwork(id string) error {
	names, err := filepath.Glob(filepath.Join(netnsDir, resourcePrefix(id)+"*"))
	if err != nil {
		return fmt.Errorf("look for network namespaces: %w", err)
	}
	for _, name := range names {
		if err := netns.DeleteNamed(filepath.Base(name)); err != nil {
			return fmt.Errorf("delete network namespace %q: %w", filepath.Base(name), err)
		}
	}
	links, err := netlink.LinkList()
	for errors.Is(err, netlink.ErrDumpInterrupted) {
		links, err = netlink.LinkList() // a link came or went meanwhile
	}
	if err != nil {
		return fmt.Errorf("list network links: %w", err)
	}
	for _, link := range links {
		if !strings.HasPrefix(link.Attrs().Name, linkPrefix(id)) {
			continue
		}
		// The peer of a veth vanishes with its end, and with a deleted namespace a moment later.
		if err := netlink.LinkDel(link); err != nil && !errors.Is(err, unix.ENODEV) && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("delete network link %q: %w", link.Attrs().Name, err)
		}
	}
	return nil
}
