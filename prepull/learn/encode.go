package learn

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"
)

// maxDecoded bounds what Decode unpacks: far above any window that Encode makes, far below what a small compressed text
// could blow up to.
const maxDecoded = 4 << 20

// stored is the JSON form of a window.
type stored struct {
	Version int           `json:"version"`
	Slot    time.Duration `json:"slot"`
	Through time.Time     `json:"through,omitzero"`
	Images  []storedImage `json:"images,omitempty"`
}

type storedImage struct {
	Name  string `json:"name"`
	Bytes int64  `json:"bytes,omitempty"`
	// Counts are [slot, starts, pulls], oldest first.
	Counts [][3]int64 `json:"counts"`
}

// storedVersion is of the form above. A window of another version is started afresh: it is statistics, not state. The sizes
// of eventVersion came from Events, which anybody may write, and are not taken over.
const storedVersion, eventVersion = 2, 1

// Encode renders the window as of now, gzipped JSON, the same bytes for the same content.
func (w *Window) Encode(now time.Time) ([]byte, error) {
	w.forget(now)
	out := stored{Version: storedVersion, Slot: w.slotSize(), Through: w.through.UTC()}
	for _, name := range slices.Sorted(maps.Keys(w.images)) {
		r := w.images[name]
		img := storedImage{Name: name, Bytes: r.bytes}
		for _, slot := range slices.Sorted(maps.Keys(r.counts)) {
			c := r.counts[slot]
			img.Counts = append(img.Counts, [3]int64{slot, c.starts, c.pulls})
		}
		out.Images = append(out.Images, img)
	}
	var buf bytes.Buffer
	zip := gzip.NewWriter(&buf)
	if err := json.NewEncoder(zip).Encode(out); err != nil {
		return nil, fmt.Errorf("encode window: %w", err)
	}
	if err := zip.Close(); err != nil {
		return nil, fmt.Errorf("compress window: %w", err)
	}
	return buf.Bytes(), nil
}

// Decode reads what Encode wrote, into a window of the given length: what was counted in slots of another size is moved
// into those of this one. The error is for a log: an empty window to go on with is returned with it.
func Decode(data []byte, span time.Duration) (*Window, error) {
	w := New(span)
	if len(data) == 0 {
		return w, nil
	}
	zip, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return w, fmt.Errorf("decompress window: %w", err)
	}
	var in stored
	if err := json.NewDecoder(io.LimitReader(zip, maxDecoded)).Decode(&in); err != nil {
		return w, fmt.Errorf("decode window: %w", err)
	}
	if in.Version != storedVersion && in.Version != eventVersion || in.Slot < time.Second {
		return w, fmt.Errorf("decode window: version %d with slots of %v is not known here", in.Version, in.Slot)
	}
	for _, img := range in.Images {
		if img.Name == "" || len(img.Name) > MaxName || len(w.images) >= 2*MaxImages {
			continue
		}
		r := w.record(img.Name)
		if in.Version != eventVersion {
			r.bytes = max(img.Bytes, 0)
		}
		for _, c := range img.Counts {
			middle := time.Unix(0, c[0]*int64(in.Slot)+int64(in.Slot)/2)
			slot := w.slot(middle)
			have := r.counts[slot]
			r.counts[slot] = count{starts: have.starts + max(c[1], 0), pulls: have.pulls + max(c[2], 0)}
		}
	}
	w.through = in.Through
	w.forget(w.through)
	return w, nil
}
