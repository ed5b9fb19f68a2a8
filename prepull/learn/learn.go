// Package learn remembers which images pods really started with, and ranks them by what having them on a node saves. It
// is pure: the caller brings the clock and keeps the encoded window. A Window is not safe for concurrent use. Start from
// Window.
package learn

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"time"
)

// Bounds. A window is stored in a ConfigMap, of which a cluster's etcd holds at most 1 MiB: 512 images of 28 slots are
// about 200 KiB of JSON and 30 KiB compressed.
const (
	// Slots is into how many parts a window is cut: it slides by one part at a time, a week by six hours.
	Slots = 28
	// MaxImages is how many images are remembered; those that save least are forgotten first.
	MaxImages = 512
	// halfLife is after how many slots a start counts half: a day of a week. Without it the images of yesterday's
	// releases, which nobody starts any more, would lead the ranking for days (test/bench/learn shows it).
	halfLife = 4
	// MaxName is the length over which a name is no image's.
	MaxName = 512
)

// Start is one container start.
type Start struct {
	// Image is the normalised reference.
	Image string
	// At is when the container started.
	At time.Time
	// First says that the node had started no container of this image before: without a prepull, it had to be pulled.
	First bool
}

// Window counts starts over a sliding time. The zero value is empty and counts nothing: use New or Decode.
type Window struct {
	span    time.Duration
	images  map[string]*record
	through time.Time
}

type record struct {
	bytes  int64
	counts map[int64]count // by slot
}

type count struct{ starts, pulls int64 }

// New returns an empty window of the given length, at least a minute.
func New(span time.Duration) *Window {
	return &Window{span: max(span, time.Minute), images: map[string]*record{}}
}

// Span is the length of the window.
func (w *Window) Span() time.Duration { return w.span }

// Through is the latest start that was counted: after a restart, what is not later is known already.
func (w *Window) Through() time.Time { return w.through }

// Count counts one start. One that is older than the window, or whose name cannot be an image's, is ignored.
func (w *Window) Count(s Start) {
	if s.Image == "" || len(s.Image) > MaxName || s.At.Before(w.through.Add(-w.span)) {
		return
	}
	r := w.record(s.Image)
	slot := w.slot(s.At)
	c := r.counts[slot]
	c.starts++
	if s.First {
		c.pulls++
	}
	r.counts[slot] = c
	if s.At.After(w.through) {
		w.through = s.At
	}
	// Twice the limit before sorting: forgetting one image at a time would sort for every name that a hostile pod makes up.
	if len(w.images) > 2*MaxImages {
		w.forget(w.through)
	}
}

// Measured tells how large an image is. 0, and an image that no pod has started, change nothing.
func (w *Window) Measured(image string, bytes int64) {
	if r := w.images[image]; r != nil && bytes > 0 {
		r.bytes = bytes
	}
}

func (w *Window) record(image string) *record {
	r := w.images[image]
	if r == nil {
		r = &record{counts: map[int64]count{}}
		w.images[image] = r
	}
	return r
}

func (w *Window) slotSize() time.Duration { return max(w.span/Slots, time.Second) }

func (w *Window) slot(t time.Time) int64 { return t.UnixNano() / int64(w.slotSize()) }

// Ranked is one image of the ranking.
type Ranked struct {
	Image string
	// Starts counts container starts, Pulls those that had to pull the image or found it prepulled.
	Starts, Pulls int64
	// Bytes is the size of the image, 0 while nobody knows it.
	Bytes int64
	// Recent is Pulls with those of the present counting whole and older ones less and less.
	Recent float64
	// Saved is what having the image on every node saves: Recent x Bytes. An image of unknown size is taken to be as
	// large as the average one.
	Saved int64
}

// Rank returns all images with a start in the window that ends now, the one that saves most first, then by starts, then
// by name.
func (w *Window) Rank(now time.Time) []Ranked {
	oldest, present := w.slot(now.Add(-w.span)), w.slot(now)
	ranked := make([]Ranked, 0, len(w.images))
	var known, sum int64
	for name, r := range w.images {
		one := Ranked{Image: name, Bytes: r.bytes}
		// In order of time: a sum of fractions depends on it, and a ranking must not.
		for _, slot := range slices.Sorted(maps.Keys(r.counts)) {
			if c := r.counts[slot]; slot > oldest {
				one.Starts += c.starts
				one.Pulls += c.pulls
				one.Recent += float64(c.pulls) * math.Exp2(-float64(max(present-slot, 0))/halfLife)
			}
		}
		if one.Starts == 0 {
			continue
		}
		if r.bytes > 0 {
			known++
			sum += r.bytes
		}
		ranked = append(ranked, one)
	}
	average := int64(1)
	if known > 0 {
		average = sum / known
	}
	for i := range ranked {
		ranked[i].Saved = int64(ranked[i].Recent * float64(cmp.Or(ranked[i].Bytes, average)))
	}
	slices.SortFunc(ranked, func(a, b Ranked) int {
		return cmp.Or(cmp.Compare(b.Saved, a.Saved), cmp.Compare(b.Starts, a.Starts), cmp.Compare(a.Image, b.Image))
	})
	return ranked
}

// Fit orders images for a disk that cannot hold them all: those first that save most for the room that they take.
func Fit(ranked []Ranked) []Ranked {
	return slices.SortedStableFunc(slices.Values(ranked), func(a, b Ranked) int { return cmp.Compare(b.Recent, a.Recent) })
}

// forget drops slots that have left the window that ends now, and images beyond MaxImages.
func (w *Window) forget(now time.Time) {
	oldest := w.slot(now.Add(-w.span))
	keep := map[string]bool{}
	for i, r := range w.Rank(now) {
		if i < MaxImages {
			keep[r.Image] = true
		}
	}
	for name, r := range w.images {
		if !keep[name] {
			delete(w.images, name)
			continue
		}
		for slot := range r.counts {
			if slot <= oldest {
				delete(r.counts, slot)
			}
		}
	}
}
