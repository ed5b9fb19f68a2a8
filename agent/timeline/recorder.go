package timeline

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// maxFileBytes is what a timeline file may have: a boot of thousands of images.
const maxFileBytes = 4 << 20

// Recorder collects the phases of this boot. Every change is handed to Changed, and written by Save. It is safe for
// concurrent use.
type Recorder struct {
	path string
	now  func() time.Time

	mu       sync.Mutex
	timeline Timeline
	// taken says that phases of an earlier agent were taken over.
	taken   bool
	changed chan struct{}
}

// NewRecorder returns a Recorder that keeps its file at path and takes over what an earlier agent has recorded there of
// the same boot of the same node. An empty node is one whose name is not known yet: SetNode tells it.
func NewRecorder(path, node, bootID string) *Recorder {
	r := &Recorder{path: path, now: time.Now, changed: make(chan struct{}, 1)}
	if earlier, err := Load(path); err == nil && bootID != "" && earlier.BootID == bootID && (node == "" || earlier.Node == node) {
		r.timeline = earlier
		r.taken = len(earlier.Phases) > 0
	} else {
		r.timeline.Node = node
	}
	r.timeline.BootID = bootID
	return r
}

// Changed receives after changes; several may fall together.
func (r *Recorder) Changed() <-chan struct{} { return r.changed }

// Begin starts a phase now. A phase that is known keeps its first start.
func (r *Recorder) Begin(name Name, detail string) {
	r.Record(Phase{Name: name, Detail: detail, Start: r.now()})
}

// End ends a phase now. A phase that has ended, or was not begun, stays as it is.
func (r *Recorder) End(name Name, detail string) {
	r.mu.Lock()
	i := r.timeline.index(name, detail)
	running := i >= 0 && r.timeline.Phases[i].Running()
	if running {
		r.timeline.Phases[i].End = r.now()
	}
	r.mu.Unlock()
	if running {
		r.signal()
	}
}

// Mark records a moment, now.
func (r *Recorder) Mark(name Name, detail string) {
	now := r.now()
	r.Record(Phase{Name: name, Detail: detail, Start: now, End: now})
}

// Record adds a phase whose times are known. A phase that is known keeps its start, and its end if it has one: the first
// time counts.
func (r *Recorder) Record(p Phase) {
	r.mu.Lock()
	changed := true
	if i := r.timeline.index(p.Name, p.Detail); i < 0 {
		r.timeline.Phases = append(r.timeline.Phases, p)
	} else if known := &r.timeline.Phases[i]; known.Running() && !p.Running() && !p.End.Before(known.Start) {
		known.End, known.Stages = p.End, p.Stages
	} else {
		changed = false
	}
	r.timeline.sort()
	r.mu.Unlock()
	if changed {
		r.signal()
	}
}

// Drop removes every phase of these names: they belonged to a Node object that is no more.
func (r *Recorder) Drop(names ...Name) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.timeline.Phases = slices.DeleteFunc(r.timeline.Phases, func(p Phase) bool { return slices.Contains(names, p.Name) })
}

// Forget removes one phase: what it waited for is not there to wait for.
func (r *Recorder) Forget(name Name, detail string) {
	r.mu.Lock()
	i := r.timeline.index(name, detail)
	if i >= 0 {
		r.timeline.Phases = slices.Delete(r.timeline.Phases, i, i+1)
	}
	r.mu.Unlock()
	if i >= 0 {
		r.signal()
	}
}

// SetNode names the node once the API server has told its name. What was taken over of another node is dropped.
func (r *Recorder) SetNode(node string) {
	r.mu.Lock()
	differs := r.timeline.Node != node
	if differs && r.taken && r.timeline.Node != "" {
		r.timeline.Phases = nil
	}
	r.timeline.Node = node
	r.mu.Unlock()
	if differs {
		r.signal()
	}
}

// Timeline returns a copy.
func (r *Recorder) Timeline() Timeline {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := r.timeline
	out.Phases = slices.Clone(out.Phases)
	return out
}

func (r *Recorder) signal() {
	select {
	case r.changed <- struct{}{}:
	default:
	}
}

// Save writes the file: whole or not at all.
func (r *Recorder) Save() error {
	raw, err := json.Marshal(r.Timeline())
	if err != nil {
		return fmt.Errorf("encode timeline: %w", err)
	}
	if err := writeAtomic(r.path, append(raw, '\n')); err != nil {
		return fmt.Errorf("write timeline: %w", err)
	}
	return nil
}

// Load reads a timeline file. A missing one is fs.ErrNotExist.
func Load(path string) (Timeline, error) {
	info, err := os.Stat(path)
	if err != nil {
		return Timeline{}, fmt.Errorf("read timeline: %w", err)
	}
	if !info.Mode().IsRegular() || info.Size() > maxFileBytes {
		return Timeline{}, fmt.Errorf("read timeline %s: not a regular file of at most 4 MiB", path)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return Timeline{}, fmt.Errorf("read timeline: %w", err)
	}
	var t Timeline
	if err := json.Unmarshal(raw, &t); err != nil {
		return Timeline{}, fmt.Errorf("read timeline %s: %w", path, err)
	}
	t.Node, t.BootID = printable(t.Node), printable(t.BootID)
	for i := range t.Phases {
		t.Phases[i].Name = Name(printable(string(t.Phases[i].Name)))
		t.Phases[i].Detail = printable(t.Phases[i].Detail)
		for j := range t.Phases[i].Stages {
			t.Phases[i].Stages[j].Name = printable(t.Phases[i].Stages[j].Name)
		}
	}
	t.sort()
	return t, nil
}

// writeAtomic replaces a file by rename. It does not sync: the file describes this boot and lies on a tmpfs.
func writeAtomic(path string, content []byte) (err error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	temp, err := os.CreateTemp(dir, ".timeline-*")
	if err != nil {
		return err
	}
	defer func() {
		if removeErr := os.Remove(temp.Name()); err == nil && !errors.Is(removeErr, fs.ErrNotExist) {
			err = removeErr
		}
	}()
	_, err = temp.Write(content)
	if chmodErr := temp.Chmod(0o644); err == nil {
		err = chmodErr
	}
	if closeErr := temp.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return err
	}
	return os.Rename(temp.Name(), path)
}
