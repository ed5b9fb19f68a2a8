package binaries

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// scratchBytes is the room that a build of everything needs for its temporary files, with head-room.
const scratchBytes = 6 << 30

// scratchDir returns a folder for the compiler's temporary files, "" for the usual one, and what removes it. A build makes
// many small files a package, and on an old root file system each costs up to 0.6 ms of kernel time; in memory they do not.
func scratchDir() (dir string, remove func()) {
	const memory = "/dev/shm"
	var fs unix.Statfs_t
	if unix.Statfs(memory, &fs) != nil || int64(fs.Bavail)*fs.Bsize < scratchBytes || freeMemory() < 2*scratchBytes {
		return "", func() {}
	}
	dir, err := os.MkdirTemp(memory, "headstart-build-")
	if err != nil {
		return "", func() {}
	}
	return dir, func() { _ = os.RemoveAll(dir) }
}

// freeMemory is how many bytes the machine can give, 0 when it does not say.
func freeMemory() int64 {
	info, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	var kilobytes int64
	if _, after, found := strings.Cut(string(info), "MemAvailable:"); found {
		_, _ = fmt.Sscan(after, &kilobytes) // 0 where it is no number
	}
	return kilobytes << 10
}
