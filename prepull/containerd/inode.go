package containerd

import (
	"os"
	"syscall"
)

// inodeOf returns a file's inode number, which is what names a namespace; 0 when it is not known.
func inodeOf(info os.FileInfo) uint64 {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return stat.Ino
	}
	return 0
}
