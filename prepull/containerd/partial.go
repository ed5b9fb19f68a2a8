package containerd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

// partials keep the compressed bytes of layers that are not finished, so that an agent which is killed costs its successor
// no byte that had come. They are for the page cache, which survives a process, and not for the disk: a file is removed as
// soon as its layer is finished, mostly before the kernel begins to write it back. What is certain to take longer is not
// kept, as far as one layer at most is lost by that.
//
//	<staging>/partial-<boot>/<digest>-<range size>
//
// A file is as long as the layer, with holes where nothing has come, and behind it has eight bytes for each range: how
// much of the range is there. Bytes are written before they are counted, and no order holds across a power loss: files of
// another boot are cleared. Whatever they hold, the layer's digest decides.
type partials struct {
	dir string

	mu    sync.Mutex
	bare  bool // a layer is on its way that is not kept
	inUse map[string]*partial
}

// keptAnyway is the compressed size, in bytes, up to which every layer is kept: a few seconds of a fast network.
const keptAnyway = 128 << 20

// partial is the file of one layer. A nil one keeps nothing.
type partial struct {
	all         *partials
	path        string
	file        *os.File // nil for a layer that is not kept
	size, chunk int64
	bare        bool         // it is the one layer that may go without
	off         atomic.Bool  // it keeps nothing any longer
	found       atomic.Int64 // bytes that an earlier attempt had left

	mu      sync.Mutex
	writes  *claim
	granted int64
}

// open returns what keeps a layer, with all that an earlier attempt left of it; nil when somebody else is at it, or when
// there is nothing left and no room.
func (a *partials) open(desc ocispec.Descriptor, chunk int, room bool, writes *claim) *partial {
	a.mu.Lock()
	defer a.mu.Unlock()
	p := &partial{
		all: a, size: desc.Size, chunk: int64(chunk), writes: writes,
		path: filepath.Join(a.dir, fmt.Sprintf("%s-%d", desc.Digest.Encoded(), chunk)),
	}
	if _, busy := a.inUse[p.path]; busy {
		return nil
	}
	flags := os.O_RDWR | unix.O_NOFOLLOW
	if _, err := os.Lstat(p.path); err != nil { // what is left is used in any case
		switch {
		case desc.Size > keptAnyway && !a.bare:
			a.bare, p.bare = true, true
			return p
		case !room:
			return nil
		}
		flags |= os.O_CREATE
	}
	f, err := openLocked(p.path, flags)
	if err != nil {
		return nil // it would have been a help and is no need
	}
	p.file = f
	a.inUse[p.path] = p
	return p
}

// openLocked opens a file that no other process has open like this.
func openLocked(path string, flags int) (*os.File, error) {
	f, err := os.OpenFile(path, flags, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// Load fills data, which begins with a range at offset, with what is there of it, and returns how much that is.
func (p *partial) Load(offset int64, data []byte) int {
	if p.file == nil || p.off.Load() {
		return 0
	}
	var entry [8]byte
	if _, err := p.file.ReadAt(entry[:], p.entry(offset)); err != nil {
		return 0
	}
	n := min(binary.LittleEndian.Uint64(entry[:]), uint64(len(data)))
	if _, err := p.file.ReadAt(data[:n], offset); err != nil {
		return 0
	}
	p.found.Add(int64(n))
	return int(n)
}

// Save keeps bytes that came, each range's in their order. A disk that has no room ends the keeping, and nothing else.
func (p *partial) Save(offset int64, data []byte) {
	if p.file == nil || p.off.Load() || len(data) == 0 {
		return
	}
	if !p.spend(int64(len(data))) {
		p.giveUp()
		return
	}
	var entry [8]byte
	binary.LittleEndian.PutUint64(entry[:], uint64(offset%p.chunk)+uint64(len(data)))
	_, err := p.file.WriteAt(data, offset)
	if err == nil {
		_, err = p.file.WriteAt(entry[:], p.entry(offset))
	}
	if err != nil {
		p.giveUp()
	}
}

// spend takes room for what is kept, without pushing others off the disk.
func (p *partial) spend(n int64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.granted < n {
		granted, err := p.writes.ask(n, 0)
		if err != nil {
			return false
		}
		p.granted = granted
	}
	p.granted -= n
	return true
}

// entry is where the count of a range lies.
func (p *partial) entry(offset int64) int64 { return p.size + 8*(offset/p.chunk) }

// giveUp gives the room back. The file's name goes first: nobody shall find what is still being written.
func (p *partial) giveUp() {
	if !p.off.Swap(true) {
		_ = os.Remove(p.path)
		_ = p.file.Truncate(0)
	}
}

// close ends the keeping: for good, or until the next attempt.
func (p *partial) close(keep bool) {
	if p == nil {
		return
	}
	p.all.mu.Lock()
	defer p.all.mu.Unlock()
	if p.bare {
		p.all.bare = false
		return
	}
	delete(p.all.inUse, p.path)
	p.writes.end()
	if !keep {
		p.giveUp()
	}
	_ = p.file.Close()
}

// forget removes what is left of layers, but for those that somebody is at.
func (a *partials) forget(digests ...string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, dgst := range digests {
		left, err := filepath.Glob(filepath.Join(a.dir, dgst+"-*"))
		if err != nil {
			continue
		}
		for _, path := range left {
			a.remove(path)
		}
	}
}

// remove removes what nobody is at, and reports whether it did.
func (a *partials) remove(path string) bool {
	if _, ours := a.inUse[path]; ours {
		return false
	}
	f, err := openLocked(path, os.O_RDWR|unix.O_NOFOLLOW)
	if err != nil {
		return false
	}
	return errors.Join(os.Remove(path), f.Close()) == nil
}

// drop gives all room back but what another process is at, and reports whether that was any.
func (a *partials) drop() (some bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, p := range a.inUse {
		some = some || !p.off.Load()
		p.giveUp()
	}
	files, err := os.ReadDir(a.dir)
	if err != nil {
		return some
	}
	for _, f := range files {
		if a.remove(filepath.Join(a.dir, f.Name())) {
			some = true
		}
	}
	return some
}

// forgetPartials removes what was kept of an image's layers.
func (n *node) forgetPartials(p *pull) {
	if n.staging == nil || p.resolved == nil {
		return
	}
	var digests []string
	for _, l := range p.resolved.Layers {
		digests = append(digests, l.Digest.Encoded())
	}
	n.staging.partials.forget(digests...)
}
