package timeline

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// MaxCompactBytes bounds the annotation headstart.dev/timeline.
const MaxCompactBytes = 4 << 10

// maxSpan is the longest boot that the compact form holds; it keeps hostile numbers from overflowing a time.
const maxSpan = 30 * 24 * time.Hour

// compact is the form of the annotation: phases in seconds since Zero, to the millisecond.
// {"node":"n1","bootID":"...","zero":"2026-11-02T08:30:00.123Z","phases":[{"name":"image","detail":"web:v1","start":1.5,"end":9.25,
// "stages":[{"name":"fetch","seconds":6.5}]}],"more":3}
// A phase without end runs. More counts the phases that did not fit.
type compact struct {
	Node   string         `json:"node,omitempty"`
	BootID string         `json:"bootID,omitempty"`
	Zero   time.Time      `json:"zero"`
	Phases []compactPhase `json:"phases"`
	More   int            `json:"more,omitempty"`
}

type compactPhase struct {
	Name   Name     `json:"name"`
	Detail string   `json:"detail,omitempty"`
	Start  float64  `json:"start"`
	End    *float64 `json:"end,omitempty"`
	Stages []Stage  `json:"stages,omitempty"`
}

// Compact renders the annotation, at most MaxCompactBytes. Where the boot has more than fits, the stages of the
// shortest image pulls are left out first, then those pulls themselves: they explain least.
func (t Timeline) Compact() (string, error) {
	zero := t.Zero().UTC().Truncate(time.Millisecond)
	out := compact{Node: t.Node, BootID: t.BootID, Zero: zero, Phases: make([]compactPhase, 0, len(t.Phases))}
	for _, p := range t.Phases {
		c := compactPhase{Name: p.Name, Detail: shorten(p.Detail), Start: seconds(p.Start.Sub(zero))}
		if !p.Running() {
			end := seconds(p.End.Sub(zero))
			c.End = &end
		}
		for _, s := range p.Stages {
			c.Stages = append(c.Stages, Stage{Name: s.Name, Seconds: math.Round(s.Seconds*1000) / 1000})
		}
		out.Phases = append(out.Phases, c)
	}
	for {
		text, err := json.Marshal(out)
		if err != nil {
			return "", fmt.Errorf("encode timeline: %w", err)
		}
		if len(text) <= MaxCompactBytes || len(out.Phases) == 0 {
			return string(text), nil
		}
		if dropStages(out.Phases) {
			continue
		}
		out.Phases = dropLeast(out.Phases)
		out.More++
	}
}

// maxDetailBytes keeps the end of an image's name, which tells images apart.
const maxDetailBytes = 96

func shorten(detail string) string {
	if len(detail) <= maxDetailBytes {
		return detail
	}
	tail := detail[len(detail)-maxDetailBytes+3:]
	for !utf8.RuneStart(tail[0]) {
		tail = tail[1:]
	}
	return "..." + tail
}

func seconds(d time.Duration) float64 { return math.Round(d.Seconds()*1000) / 1000 }

// dropStages removes the stages of the shortest phase that has any, and says whether there was one.
func dropStages(phases []compactPhase) bool {
	least, shortest := -1, math.Inf(1)
	for i, p := range phases {
		if length := p.length(); len(p.Stages) > 0 && (least < 0 || length < shortest) {
			least, shortest = i, length
		}
	}
	if least < 0 {
		return false
	}
	phases[least].Stages = nil
	return true
}

// length is that of the phase in seconds, without end for one that runs.
func (p compactPhase) length() float64 {
	if p.End == nil {
		return math.Inf(1)
	}
	return *p.End - p.Start
}

// dropLeast removes the shortest image pull, or the last phase where there is none.
func dropLeast(phases []compactPhase) []compactPhase {
	least := len(phases) - 1
	shortest := math.Inf(1)
	for i, p := range phases {
		if p.Name == Image && p.length() < shortest {
			least, shortest = i, p.length()
		}
	}
	return slices.Delete(phases, least, least+1)
}

// Parse reads the annotation. It comes from a node and is therefore hostile: a text that is too long, of another form or
// with times that cannot be is an error, and control characters never reach a terminal.
func Parse(text string) (Timeline, error) {
	if len(text) > MaxCompactBytes {
		return Timeline{}, fmt.Errorf("parse timeline: %d bytes, at most %d are allowed", len(text), MaxCompactBytes)
	}
	var in compact
	if err := json.Unmarshal([]byte(text), &in); err != nil {
		return Timeline{}, fmt.Errorf("parse timeline: %w", err)
	}
	out := Timeline{Node: printable(in.Node), BootID: printable(in.BootID)}
	for i, c := range in.Phases {
		p := Phase{Name: Name(printable(string(c.Name))), Detail: printable(c.Detail)}
		start, ok := at(in.Zero, c.Start)
		if !ok {
			return Timeline{}, fmt.Errorf("parse timeline: phases[%d].start: %v is no time of a boot", i, c.Start)
		}
		p.Start = start
		if c.End != nil {
			if p.End, ok = at(in.Zero, *c.End); !ok || p.End.Before(start) {
				return Timeline{}, fmt.Errorf("parse timeline: phases[%d].end: %v is no time after its start", i, *c.End)
			}
		}
		if p.Stages, ok = parseStages(c.Stages); !ok {
			return Timeline{}, fmt.Errorf("parse timeline: phases[%d].stages: no times of a boot", i)
		}
		out.Phases = append(out.Phases, p)
	}
	out.sort()
	return out, nil
}

// parseStages makes stages of a node printable, if their times can be.
func parseStages(stages []Stage) ([]Stage, bool) {
	var out []Stage
	for _, s := range stages {
		if s.Seconds < 0 || s.Seconds > maxSpan.Seconds() {
			return nil, false
		}
		out = append(out, Stage{Name: printable(s.Name), Seconds: s.Seconds})
	}
	return out, true
}

// at adds seconds to zero, if they are within maxSpan.
func at(zero time.Time, secs float64) (time.Time, bool) {
	if math.IsNaN(secs) || math.Abs(secs) > maxSpan.Seconds() {
		return time.Time{}, false
	}
	return zero.Add(time.Duration(math.Round(secs*1000)) * time.Millisecond), true
}

func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
}
