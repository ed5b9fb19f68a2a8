package timeline

import (
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// BootID is the kernel's name for this boot, the same as node.status.nodeInfo.bootID.
func BootID() (string, error) {
	raw, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read boot ID: %w", err)
	}
	return strings.TrimSpace(string(raw)), nil
}

// KernelStart is when the kernel of this boot started, by the clock as it is set now.
func KernelStart() (time.Time, error) {
	var since unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &since); err != nil {
		return time.Time{}, fmt.Errorf("read boot clock: %w", err)
	}
	return time.Now().Add(-time.Duration(since.Nano())), nil
}

// ProcessStart is when a process was started.
func ProcessStart(pid int) (time.Time, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return time.Time{}, fmt.Errorf("read start of process: %w", err)
	}
	ticks, err := startTicks(string(raw))
	if err != nil {
		return time.Time{}, err
	}
	kernel, err := KernelStart()
	if err != nil {
		return time.Time{}, err
	}
	return kernel.Add(time.Duration(ticks) * (time.Second / ticksPerSecond)), nil
}

// ticksPerSecond is USER_HZ, which is 100 on every architecture that Kubernetes runs on.
const ticksPerSecond = 100

// startTicks reads field 22 of /proc/PID/stat, the ticks from boot to the start. The name in field 2 may hold anything.
func startTicks(stat string) (int64, error) {
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	const index = 22 - 3
	var ticks int64
	if len(fields) <= index {
		return 0, fmt.Errorf("read start of process: %d fields", len(fields))
	}
	if _, err := fmt.Sscanf(fields[index], "%d", &ticks); err != nil {
		return 0, fmt.Errorf("read start of process: %w", err)
	}
	return ticks, nil
}
