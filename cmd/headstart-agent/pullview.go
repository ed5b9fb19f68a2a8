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
