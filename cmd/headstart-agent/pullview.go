package main

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"headstart.dev/prepull"
	"headstart.dev/prepull/containerd"
)

// lineView prints one line an image when it has settled, and one for each new failure.
type lineView struct {
	out, errOut io.Writer

	mu   sync.Mutex
	told map[string]string // the last error that was printed, by image
}

func (v *lineView) observe(s prepull.ImageStatus) {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case s.State == prepull.StateWarm || s.State == prepull.StateLazy:
		fmt.Fprintln(v.out, describe(s))
	case s.Error != "" && v.told[s.Name] != s.Error && !s.Settled():
		v.told[s.Name] = s.Error
		fmt.Fprintf(v.errOut, "%s: %s; trying again\n", s.Name, s.Error)
	}
}

func (v *lineView) finish(statuses []prepull.ImageStatus, _ *containerd.Discovery) {
	for _, s := range statuses {
		if s.State != prepull.StateWarm && s.State != prepull.StateLazy {
			fmt.Fprintln(v.out, describe(s))
		}
	}
}

// describe is one image in one line.
func describe(s prepull.ImageStatus) string {
	switch s.State {
	case prepull.StateWarm, prepull.StateLazy:
		took := s.Finished.Sub(s.Started).Round(10 * time.Millisecond)
		if s.Engine == "" {
			return fmt.Sprintf("%s %s, was there already (%s)", s.Name, strings.ToLower(string(s.State)), took)
		}
		return fmt.Sprintf("%s %s in %s, %s fetched of %s, engine %s", s.Name, strings.ToLower(string(s.State)), took,
			size(s.FetchedBytes), size(s.TotalBytes), s.Engine)
	default:
		reason := s.Error
		if reason == "" {
			reason = "stopped before it was there"
		}
		return fmt.Sprintf("%s failed: %s", s.Name, reason)
	}
}

// size renders bytes for a person.
func size(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.0f MiB", float64(n)/(1<<20))
	default:
		return fmt.Sprintf("%.0f KiB", float64(n)/(1<<10))
	}
}

// barWidth is that of one bar in characters: with name and numbers a line fits 100 columns.
const barWidth = 24

// barView draws one bar an image and moves the cursor up to draw them anew.
type barView struct {
	out io.Writer

	mu       sync.Mutex
	order    []string
	statuses map[string]prepull.ImageStatus
	drawn    int
	at       time.Time
}

func newBarView(out io.Writer) *barView {
	return &barView{out: out, statuses: map[string]prepull.ImageStatus{}}
}

func (v *barView) observe(s prepull.ImageStatus) {
	v.mu.Lock()
	defer v.mu.Unlock()
	before, known := v.statuses[s.Name]
	if !known {
		v.order = append(v.order, s.Name)
	}
	v.statuses[s.Name] = s
	if before.State == s.State && time.Since(v.at) < 100*time.Millisecond {
		return
	}
	v.draw()
}

func (v *barView) finish(statuses []prepull.ImageStatus, _ *containerd.Discovery) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, s := range statuses {
		v.statuses[s.Name] = s
	}
	v.draw()
}

func (v *barView) draw() {
	var text strings.Builder
	if v.drawn > 0 {
		fmt.Fprintf(&text, "\x1b[%dA", v.drawn)
	}
	for _, name := range v.order {
		text.WriteString("\r\x1b[2K" + bar(v.statuses[name]) + "\n")
	}
	v.drawn, v.at = len(v.order), time.Now()
	fmt.Fprint(v.out, text.String())
}

// bar is one image's line.
func bar(s prepull.ImageStatus) string {
	if s.Settled() {
		return describe(s)
	}
	filled := 0
	if s.TotalBytes > 0 {
		filled = int(min(s.DoneBytes, s.TotalBytes) * barWidth / s.TotalBytes)
	}
	name := s.Name
	if runes := []rune(name); len(runes) > 40 {
		name = "…" + string(runes[len(runes)-39:])
	}
	line := fmt.Sprintf("%-40s [%s%s] %s of %s", name, strings.Repeat("=", filled), strings.Repeat(" ", barWidth-filled),
		size(s.DoneBytes), size(s.TotalBytes))
	if s.Error != "" {
		line += "  " + s.Error
	}
	return line
}
