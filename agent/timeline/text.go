package timeline

import (
	"fmt"
	"io"
	"math"
	"strings"
	"time"
)

// barWidth is the width of the drawn bar in the text form, in characters.
const barWidth = 40

// WriteText draws one line a phase: when it began, how long it took, and a bar; and one for its stages.
func (t Timeline) WriteText(w io.Writer) error {
	if len(t.Phases) == 0 {
		_, err := fmt.Fprintln(w, "nothing is recorded yet")
		return err
	}
	zero, last := t.Zero(), t.Last()
	labels := make([]string, len(t.Phases))
	width := len("phase")
	for i, p := range t.Phases {
		labels[i] = p.label()
		width = max(width, len(labels[i]))
	}
	var out strings.Builder
	fmt.Fprintf(&out, "node %s, from %s, %.3fs in all\n", orDash(t.Node), zero.Format(time.RFC3339Nano), last.Sub(zero).Seconds())
	fmt.Fprintf(&out, "%-*s  %9s  %9s  %s\n", width, "phase", "start", "took", "")
	for i, p := range t.Phases {
		fmt.Fprintf(&out, "%-*s  %8.3fs  %9s  %s\n", width, labels[i], p.Start.Sub(zero).Seconds(), p.took(), p.bar(zero, last))
		if len(p.Stages) > 0 {
			fmt.Fprintf(&out, "  of it %s\n", p.stages())
		}
	}
	_, err := io.WriteString(w, out.String())
	return err
}

func (p Phase) label() string {
	if p.Detail == "" {
		return string(p.Name)
	}
	return string(p.Name) + " " + shorten(p.Detail)
}

// stages renders the stages as one line, "" for none.
func (p Phase) stages() string {
	parts := make([]string, 0, len(p.Stages))
	for _, s := range p.Stages {
		parts = append(parts, fmt.Sprintf("%s %.3fs", s.Name, s.Seconds))
	}
	return strings.Join(parts, ", ")
}

// took is the length of the phase, "-" for a moment and "running" for one that has not ended.
func (p Phase) took() string {
	switch {
	case p.Running():
		return "running"
	case p.Moment():
		return "-"
	}
	return fmt.Sprintf("%.3fs", p.End.Sub(p.Start).Seconds())
}

// bar draws the phase between zero and last: '|' for a moment, '=' for a stretch, '>' at its end where it still runs.
func (p Phase) bar(zero, last time.Time) string {
	column := func(at time.Time) int {
		if !last.After(zero) {
			return 0
		}
		share := at.Sub(zero).Seconds() / last.Sub(zero).Seconds()
		return min(max(int(math.Round(share*(barWidth-1))), 0), barWidth-1)
	}
	from := column(p.Start)
	if p.Moment() {
		return strings.Repeat(" ", from) + "|"
	}
	end, tip := last, ">"
	if !p.Running() {
		end, tip = p.End, "="
	}
	return strings.Repeat(" ", from) + strings.Repeat("=", column(end)-from) + tip
}

func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}
