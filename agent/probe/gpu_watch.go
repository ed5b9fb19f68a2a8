package probe

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"headstart.dev/agent/probe/nvml"
)

const (
	// followRetry is how soon a follower of the driver's events that has ended is started again, and how often it is looked
	// whether there is anything to follow. Starting a process is dear during a boot.
	followRetry = 10 * time.Second
	// letGoPeriod is how often a follower is looked at: a driver upgrade that finds the driver in use fails.
	letGoPeriod = time.Second
)

// Watch sees device files, validations, plugins and the kubelet's sockets come, and follows the driver's own events while
// others use the driver.
func (p *GPU) Watch(ctx context.Context, wake func()) error {
	var following sync.WaitGroup
	defer following.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	following.Go(func() {
		for {
			if driverUsers(p.SysDir, nil) > 0 {
				p.followEvents(ctx, wake)
			}
			if !wait(ctx, followRetry, nil) {
				return
			}
		}
	})
	return watchDirs(ctx, wake, p.ValidationsDir, filepath.Join(p.KubeletDir, "device-plugins"), filepath.Join(p.KubeletDir, "pod-resources"))
}

// followEvents reads one child's events until it ends. A child that follows has the driver open, and a module that is in
// use cannot be removed, nor a GPU reset: so it is ended as soon as it is the last that uses the driver. An upgrade begins
// by taking all others off the node.
func (p *GPU) followEvents(ctx context.Context, wake func()) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	events, output := io.Pipe()
	read := make(chan struct{})
	go func() {
		defer close(read)
		lines := bufio.NewScanner(events)
		for lines.Scan() {
			var event nvml.Event
			if json.Unmarshal(lines.Bytes(), &event) == nil && event.Critical() && !slices.Contains(p.IgnoreXIDs, event.XID) {
				p.record(event)
				wake()
			}
		}
		// A line without end: the child is no follower.
		_ = events.CloseWithError(lines.Err())
	}()
	command := isolated(ctx, p.FollowCommand)
	command.Stdout = output
	var letting sync.WaitGroup
	letting.Go(func() {
		for wait(ctx, letGoPeriod, nil) {
			if driverUsers(p.SysDir, ownChildren()) <= 0 {
				cancel()
			}
		}
	})
	var follower child
	// It ends with ctx; one that hangs in the kernel is left to the kernel.
	_ = follower.run(ctx, command)
	cancel()
	letting.Wait()
	_ = output.Close()
	<-read
}

// driverUsers is how many use the NVIDIA driver, as the kernel counts, but for modules that lie on top of it and for our
// own processes. It is 0 where the driver is not loaded.
func driverUsers(sysDir string, own []int) int {
	users := 0
	for _, module := range []string{"nvidia", "nvidia_uvm"} {
		dir := filepath.Join(sysDir, "module", module)
		raw, err := os.ReadFile(filepath.Join(dir, "refcnt"))
		if err != nil {
			continue
		}
		count, err := strconv.Atoi(strings.TrimSpace(string(raw)))
		if err != nil {
			continue
		}
		holders, _ := os.ReadDir(filepath.Join(dir, "holders"))
		users += max(count-len(holders), 0)
	}
	for _, pid := range own {
		users -= openDevices(pid)
	}
	return users
}

// ownChildren lists the processes that this one has started.
func ownChildren() []int {
	files, _ := filepath.Glob("/proc/self/task/*/children")
	var out []int
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		for text := range strings.FieldsSeq(string(raw)) {
			if pid, err := strconv.Atoi(text); err == nil {
				out = append(out, pid)
			}
		}
	}
	return out
}

// openDevices counts the device files of the driver that a process has open.
func openDevices(pid int) int {
	files, _ := filepath.Glob(filepath.Join("/proc", strconv.Itoa(pid), "fd", "*"))
	count := 0
	for _, file := range files {
		if target, err := os.Readlink(file); err == nil && strings.HasPrefix(target, "/dev/nvidia") {
			count++
		}
	}
	return count
}

func (p *GPU) record(event nvml.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.faults == nil {
		p.faults = map[string]uint64{}
	}
	p.faults[event.UUID] = event.XID
}
