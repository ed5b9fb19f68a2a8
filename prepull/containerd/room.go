package containerd

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"headstart.dev/prepull"
)

// ErrNoRoom: the disk is too full for what is to be written. It heals when the kubelet collects garbage.
var ErrNoRoom = errors.New("not enough room on the disk")

// minFreeInodes is the share of inodes, in percent, below which nothing is unpacked: the kubelet evicts pods at 5% on EKS.
// Source: amazon-eks-ami nodeadm/internal/kubelet/config.go@v20260724, nodefs.inodesFree.
const minFreeInodes = 6

// What a writer is granted at once: little enough that a disk which others fill as well is looked at often, and less where
// room is scarce, because what is granted and not written is lacking elsewhere.
const (
	mostGranted  = 64 << 20
	shareGranted = 8 // of what is free
)

// room says what a file system must keep free.
type room struct {
	bytes   int64
	percent int
}

// roomError is a disk without room: what was to be written, and what there is.
type roomError struct {
	path             string
	need, free, keep int64
	// own is what of need is for the layer itself; the rest others have been granted, and will be done with it.
	own    int64
	total  int64
	inodes string // what is the matter with them; "" is nothing
}

func (e *roomError) Error() string {
	if e.inodes != "" {
		return fmt.Sprintf("%s has %s: %s", e.path, e.inodes, ErrNoRoom)
	}
	return fmt.Sprintf("%s has %s free, %s are needed at least and %s are to stay free: %s",
		e.path, mebibytes(e.free), mebibytes(e.need), mebibytes(e.keep), ErrNoRoom)
}

func (e *roomError) Unwrap() error { return ErrNoRoom }

// never reports whether no clearing of the disk can make the room, nor any growth of it that is to be expected.
func (e *roomError) never() bool { return e.inodes == "" && e.own > beyondDisk*e.total }

// beyondDisk is how many times its disk a layer must be for nobody to wait for it.
const beyondDisk = 2

// mebibytes rounds up what is there a little of.
func mebibytes(n int64) string {
	const mib = 1 << 20
	if n > 0 && n < mib {
		return fmt.Sprintf("%d KiB", (n+1023)>>10)
	}
	return fmt.Sprintf("%d MiB", (n+mib-1)/mib)
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

// ledger knows what has been granted on the disk and may not have been written yet, by all pulls of the process.
type ledger struct {
	mu      sync.Mutex
	granted int64
}

// claim is what one writer was granted. A nil one grants all.
type claim struct {
	node  *node
	holds int64 // guarded by the ledger
}

// claim begins to write; the caller ends it.
func (n *node) claim() *claim { return &claim{node: n} }

// grant is a layer.Room. What was granted before counts as written.
func (c *claim) grant(now, later int64) (int64, error) {
	granted, err := c.ask(now, later)
	if errors.Is(err, ErrNoRoom) && c.node.staging != nil && c.node.staging.partials.drop() {
		granted, err = c.ask(now, later)
	}
	return granted, err
}

// ask is grant without giving up what is kept for another attempt.
func (c *claim) ask(now, later int64) (int64, error) {
	if c == nil {
		return math.MaxInt64, nil
	}
	l := c.node.ledger
	l.mu.Lock()
	defer l.mu.Unlock()
	l.granted -= c.holds
	c.holds = 0
	free, err := c.node.free(now+later, l.granted)
	if err != nil {
		return 0, err
	}
	c.holds = max(now, min(mostGranted, free/shareGranted))
	l.granted += c.holds
	return c.holds, nil
}

func (c *claim) end() {
	if c == nil {
		return
	}
	l := c.node.ledger
	l.mu.Lock()
	defer l.mu.Unlock()
	l.granted -= c.holds
	c.holds = 0
}

// roomFor reports ErrNoRoom when so many bytes would leave less free than is to be kept. Bytes that are kept for another
// attempt are given up before that.
func (n *node) roomFor(bytes int64) error {
	c := n.claim()
	defer c.end()
	_, err := c.grant(0, bytes)
	return err
}

// hasRoom is roomFor without giving anything up.
func (n *node) hasRoom(bytes int64) bool {
	c := n.claim()
	defer c.end()
	_, err := c.ask(0, bytes)
	return err == nil
}

// free returns what may be written on the snapshotter's disk, when it is at least what somebody needs beside what others were
// granted.
func (n *node) free(own, others int64) (int64, error) {
	need := own + others
	if n.found.SnapshotterRoot == "" {
		return mostGranted * shareGranted, nil // the snapshotter does not say where its files are
	}
	var stat unix.Statfs_t
	if err := unix.Statfs(n.found.SnapshotterRoot, &stat); err != nil {
		return 0, fmt.Errorf("ask for the room at %s: %w", n.found.SnapshotterRoot, err)
	}
	e := &roomError{path: n.found.SnapshotterRoot, need: need, own: own, total: int64(stat.Blocks) * stat.Bsize, free: int64(stat.Bavail) * stat.Bsize}
	e.keep = max(n.keepFree.bytes, e.total/100*int64(n.keepFree.percent))
	if e.free-need < e.keep {
		return 0, e
	}
	if stat.Files > 0 && stat.Ffree*100/stat.Files < minFreeInodes {
		e.inodes = fmt.Sprintf("%d of %d inodes free", stat.Ffree, stat.Files)
		return 0, e
	}
	return e.free - e.keep, nil
}

// capacity is what the snapshotter's disk holds, 0 when that is not known.
func (n *node) capacity() int64 {
	var stat unix.Statfs_t
	if n.found.SnapshotterRoot == "" || unix.Statfs(n.found.SnapshotterRoot, &stat) != nil {
		return 0
	}
	return int64(stat.Blocks) * stat.Bsize
}

// How often a disk is looked at: for room to come, which only garbage collection makes, and while containerd writes on
// somebody's behalf, who cannot be asked before.
const (
	roomPoll  = 2 * time.Second
	floorPoll = 100 * time.Millisecond
)

// afterRoom makes a failure for lack of room one that is not tried again until there is room for all that the pull has
// written before it failed, which is given back meanwhile, and for what it lacked.
func (n *node) afterRoom(err error, written int64) error {
	lacking := int64(mostGranted)
	if e, ok := errors.AsType[*roomError](err); ok {
		if e.never() {
			return prepull.Permanent(err)
		}
		lacking = e.need
	}
	return prepull.Later(err, func(ctx context.Context) error {
		ticker := time.NewTicker(roomPoll)
		defer ticker.Stop()
		for {
			if n.hasRoom(written + lacking) {
				return nil
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-ticker.C:
			}
		}
	})
}

// aboveFloor ends the returned context with ErrNoRoom when the disk has less free than it is to keep: for work of
// containerd, which asks for no room.
func (n *node) aboveFloor(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		ticker := time.NewTicker(floorPoll)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
			if _, err := n.free(0, 0); errors.Is(err, ErrNoRoom) {
				cancel(err)
				return
			}
		}
	}()
	return ctx, func() {
		cancel(nil)
		<-done
	}
}

// floorCause returns why aboveFloor has ended a context, beside the error that came of it.
func floorCause(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); err != nil && errors.Is(cause, ErrNoRoom) {
		return fmt.Errorf("%w (%w)", cause, err)
	}
	return err
}
