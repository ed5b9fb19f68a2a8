package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/opencontainers/image-spec/identity"
	"golang.org/x/sys/unix"

	"headstart.dev/test/testenv"
	"headstart.dev/test/testenv/disk"
	"headstart.dev/test/testenv/treehash"
)

// run is one pull by one contender on a fresh containerd.
type run struct {
	server *server
	ctd    *testenv.Containerd
	refs   []string
	dir    string // a fresh file system in memory
	tools  string
	// profile is where an engine writes its processor profile, "" for none.
	profile string

	mu      sync.Mutex
	cpu     time.Duration
	memory  int64
	written int64 // by the programs that were run
}

// figures of one run.
type figures struct {
	Contender string  `json:"contender"`
	Seconds   float64 `json:"seconds"`
	CPU       float64 `json:"cpuSeconds"`
	Fetched   int64   `json:"fetchedBytes"`
	Written   int64   `json:"writtenBytes"`
	Disk      int64   `json:"peakDiskBytes"`
	Memory    int64   `json:"peakMemoryBytes"`
	Servers   int64   `json:"serversPeakMemoryBytes"` // containerd and what it asks
	Tree      string  `json:"tree"`                   // of all below the root directories
	RootModes string  `json:"rootModes"`              // of the root directories, each mode once
}

func (r *run) tool(name string) string { return r.tools + "/" + name }

func (r *run) addUsage(state *os.ProcessState) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cpu += state.UserTime() + state.SystemTime()
	if usage, ok := state.SysUsage().(*syscall.Rusage); ok {
		r.memory = max(r.memory, usage.Maxrss<<10)
	}
}

// measure runs a contender once: fresh file system, fresh containerd, and all of it gone afterwards.
func measure(ctx context.Context, c contender, s *server, refs []string, o options) (f figures, err error) {
	dir, err := os.MkdirTemp("", "headstart-bench-")
	if err != nil {
		return f, err
	}
	remove, err := freshDisk(ctx, o.fs, dir)
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, remove()) }()
	if err := os.Setenv("TMPDIR", dir); err != nil {
		return f, err
	}
	defer func() { _ = os.Unsetenv("TMPDIR") }()
	ctd, err := newContainerd(ctx, c, s.host)
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, ctd.Stop()) }()
	servers := ctd.PIDs()
	r := &run{server: s, ctd: ctd, refs: refs, dir: dir, tools: o.tools, profile: o.profile}
	s.sent.Store(0)
	before, usedBefore, writtenBefore := sum(servers, cpuOf), used(dir), sum(servers, writtenByPID)
	peak := watchDisk(dir)
	began := time.Now()
	if err := c.run(ctx, r); err != nil {
		return f, fmt.Errorf("%s: %w", c.name, err)
	}
	f = figures{Contender: c.name, Seconds: time.Since(began).Seconds(), Disk: peak() - usedBefore, Fetched: s.sent.Load(), Memory: r.memory}
	f.CPU = (sum(servers, cpuOf) - before + r.cpu).Seconds()
	f.Written = sum(servers, writtenByPID) - writtenBefore
	f.Servers = sum(servers, peakMemoryOf)
	if c.writes {
		f.Written += r.written
	}
	if c.name != bareName {
		f.Tree, f.RootModes, err = treesOf(ctx, ctd, refs)
	}
	return f, err
}

// freshDisk mounts an empty file system at dir and returns what takes both away. What earlier runs have written is on
// the machine's own disk before it returns: nobody pays for another's dirty pages.
func freshDisk(ctx context.Context, kind, dir string) (remove func() error, err error) {
	file := dir + ".img"
	if kind == "tmpfs" {
		err = unix.Mount("tmpfs", dir, "tmpfs", 0, "size=12g")
	} else {
		err = disk.Mount(ctx, kind, file, dir)
	}
	if err != nil {
		return nil, fmt.Errorf("mount a fresh file system: %w", err)
	}
	unix.Sync()
	return func() error {
		err := errors.Join(unix.Unmount(dir, unix.MNT_DETACH), os.Remove(dir))
		if removed := os.Remove(file); removed != nil && !errors.Is(removed, fs.ErrNotExist) {
			err = errors.Join(err, removed)
		}
		return err
	}, nil
}

// watchDisk samples how full a file system is and returns its peak when called.
func watchDisk(dir string) func() int64 {
	stop, peak := make(chan struct{}), make(chan int64, 1)
	go func() {
		ticker := time.NewTicker(20 * time.Millisecond)
		defer ticker.Stop()
		var most int64
		for {
			most = max(most, used(dir))
			select {
			case <-stop:
				peak <- most
				return
			case <-ticker.C:
			}
		}
	}()
	return func() int64 { close(stop); return <-peak }
}

func used(dir string) int64 {
	var stat unix.Statfs_t
	if err := unix.Statfs(dir, &stat); err != nil {
		return 0
	}
	return int64(stat.Blocks-stat.Bfree) * stat.Bsize
}

// sum adds up a figure of several processes.
func sum[T int64 | time.Duration](pids []int, of func(pid int) T) (all T) {
	for _, pid := range pids {
		all += of(pid)
	}
	return all
}

// peakMemoryOf is the most memory that a process has had resident, in bytes.
func peakMemoryOf(pid int) int64 {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	_, after, _ := strings.Cut(string(data), "VmHWM:")
	var kib int64
	if _, err := fmt.Sscan(after, &kib); err != nil {
		return 0
	}
	return kib << 10
}

func writtenByPID(pid int) int64 { return writtenBy(strconv.Itoa(pid)) }

// writtenBy is what a process has handed to write calls, in bytes: files, and the little that goes to sockets. Where
// containerd finds igzip or unpigz and inflates by a child, what goes to and from that counts as well.
func writtenBy(pid string) int64 {
	data, err := os.ReadFile("/proc/" + pid + "/io")
	if err != nil {
		return 0
	}
	var rchar, wchar int64
	if _, err := fmt.Sscanf(string(data), "rchar: %d\nwchar: %d", &rchar, &wchar); err != nil {
		return 0
	}
	return wchar
}

// clockTicks is the unit of /proc/PID/stat on Linux for all architectures that Go has.
const clockTicks = 100

// cpuOf is the processor time of a process and of the children that it has waited for.
func cpuOf(pid int) time.Duration {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
	var ticks int64
	for _, i := range []int{11, 12, 13, 14} { // utime, stime, cutime, cstime
		n, err := strconv.ParseInt(fields[i], 10, 64)
		if err == nil {
			ticks += n
		}
	}
	return time.Duration(ticks) * time.Second / clockTicks
}

// treesOf digests the root file systems of all images together, and lists the modes of their root directories.
func treesOf(ctx context.Context, ctd *testenv.Containerd, refs []string) (digest, rootModes string, err error) {
	c, err := client.New(ctd.Address())
	if err != nil {
		return "", "", err
	}
	defer func() { _ = c.Close() }()
	ctx = namespaces.WithNamespace(ctx, "k8s.io")
	ctx, done, err := c.WithLease(ctx)
	if err != nil {
		return "", "", err
	}
	defer func() { _ = done(ctx) }()
	all, modes := sha256.New(), map[string]struct{}{}
	for _, ref := range refs {
		img, err := c.GetImage(ctx, ref)
		if err != nil {
			return "", "", err
		}
		diffs, err := img.RootFS(ctx)
		if err != nil {
			return "", "", err
		}
		service := c.SnapshotService(ctd.Snapshotter())
		mounts, err := service.View(ctx, "bench-view", identity.ChainID(diffs).String())
		if err != nil {
			return "", "", err
		}
		var sum string
		err = mount.WithReadonlyTempMount(ctx, mounts, func(root string) (err error) {
			info, err := os.Stat(root)
			if err != nil {
				return err
			}
			modes[fmt.Sprintf("%04o", info.Mode().Perm())] = struct{}{}
			sum, err = treehash.Sum(root, treehash.Options{NoDirTimes: true, NoRoot: true})
			return err
		})
		if err := errors.Join(err, service.Remove(ctx, "bench-view")); err != nil {
			return "", "", err
		}
		all.Write([]byte(sum))
	}
	return hex.EncodeToString(all.Sum(nil))[:12], strings.Join(slices.Sorted(maps.Keys(modes)), " "), nil
}

func digestOf(data []byte) string {
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:])
}
