package containerd

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrNoRoom: the disk is too full for another layer. It heals when the kubelet collects garbage.
var ErrNoRoom = errors.New("not enough room on the disk")

// unpackRatio predicts a layer's size on the disk from its compressed size.
// Source: measured over Debian, Go, Python and CUDA images: 2.2 to 3.4.
const unpackRatio = 2.8

// minFreeInodes is the share of inodes, in percent, below which nothing is unpacked: the kubelet evicts pods at 5% on EKS.
// Source: amazon-eks-ami nodeadm/internal/kubelet/config.go@v20260724, nodefs.inodesFree.
const minFreeInodes = 6

// room says what a file system must keep free.
type room struct {
	bytes   int64
	percent int
}

// asNoRoom gives a disk that has become full its meaning, whoever came upon it: this process or containerd, whose errors
// come as texts.
func asNoRoom(err error) error {
	full := errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || strings.Contains(err.Error(), unix.ENOSPC.Error())
	if !full || errors.Is(err, ErrNoRoom) {
		return err
	}
	return fmt.Errorf("%w: %w", err, ErrNoRoom)
}

// roomFor reports ErrNoRoom when a layer of the given compressed size would leave less free than is to be kept. Bytes that
// are kept for another attempt are given up before that.
func (n *node) roomFor(compressed int64) error {
	err := n.hasRoom(compressed)
	if errors.Is(err, ErrNoRoom) && n.staging != nil && n.staging.partials.drop() {
		err = n.hasRoom(compressed)
	}
	return err
}

func (n *node) hasRoom(compressed int64) error {
	if n.found.SnapshotterRoot == "" {
		return nil // the snapshotter does not say where its files are
	}
	var stat unix.Statfs_t
	if err := unix.Statfs(n.found.SnapshotterRoot, &stat); err != nil {
		return fmt.Errorf("ask for the room at %s: %w", n.found.SnapshotterRoot, err)
	}
	total, free := int64(stat.Blocks)*stat.Bsize, int64(stat.Bavail)*stat.Bsize
	keep := max(n.keepFree.bytes, total/100*int64(n.keepFree.percent))
	need := int64(float64(compressed) * unpackRatio)
	if free-need < keep {
		return fmt.Errorf("%s has %d MiB free, the layer takes about %d MiB and %d MiB are to stay free: %w",
			n.found.SnapshotterRoot, free>>20, need>>20, keep>>20, ErrNoRoom)
	}
	if stat.Files > 0 && stat.Ffree*100/stat.Files < minFreeInodes {
		return fmt.Errorf("%s has %d of %d inodes free: %w", n.found.SnapshotterRoot, stat.Ffree, stat.Files, ErrNoRoom)
	}
	return nil
}
