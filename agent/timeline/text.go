package timeline

import (
	"fmt"
	"io"
	"math"
	"strings"
	"time"
	"unicode/utf8"

	"headstart.dev/internal/columns"
)

const (
	// leastBar and mostBar are the width of the drawn bar in the text form, in characters: what the names leave of a line.
	leastBar, mostBar = 26, 40
	// leastTick is what a mark of the axis needs.
	leastTick = 8
	// maxState bounds the column of lengths, in which a state stands in place of one.
	maxState = 18
)

// WriteText draws one line a phase: when it began, how long it took, and a bar below an axis; and one for its stages. No
// line has more than columns.Width characters.
func (t Timeline) WriteText(w io.Writer) error {
	if len(t.Phases) == 0 {
		_, err := fmt.Fprintln(w, "nothing is recorded yet")
		return err
	}
	drawn := t.scale()
	tookWidth, labelWidth := len("running"), len("phase")
	for _, p := range t.Phases {
		tookWidth = max(tookWidth, utf8.RuneCountInString(columns.Cut(p.took(), maxState)))
	}
	room := columns.Width - leastBar - tookWidth - len("  123.456s    ")
	labels := make([]string, len(t.Phases))
	for i, p := range t.Phases {
		labels[i] = p.label(room)
		labelWidth = max(labelWidth, utf8.RuneCountInString(labels[i]))
	}
	width := min(leastBar+room-labelWidth, mostBar)
	line := func(label, start, took, bar string) string {
		padding := strings.Repeat(" ", labelWidth-utf8.RuneCountInString(label))
		return strings.TrimRight(fmt.Sprintf("%s%s  %8s  %*s  %s", label, padding, start, tookWidth, took, bar), " ") + "\n"
	}
	var out strings.Builder
	out.WriteString(columns.Cut(fmt.Sprintf("node %s, from %s, %s in all", orDash(t.Node), t.Zero().Format(time.RFC3339Nano), secs(t.Last().Sub(t.Zero()))), columns.Width) + "\n")
	out.WriteString(line("phase", "start", "took", drawn.axis(width)))
	for i, p := range t.Phases {
		out.WriteString(line(labels[i], secs(p.Start.Sub(drawn.from)), columns.Cut(p.took(), maxState), drawn.bar(p, width)))
		if len(p.Stages) > 0 {
			out.WriteString(columns.Cut("  of it "+p.stages(), columns.Width) + "\n")
		}
	}
	_, err := io.WriteString(w, out.String())
	return err
}

// secs is a length in seconds, with fewer decimals where it is long.
func secs(d time.Duration) string {
	if d >= 1000*time.Second {
		return fmt.Sprintf("%.0fs", d.Seconds())
	}
	return fmt.Sprintf("%.3fs", d.Seconds())
}

func (p Phase) label(width int) string {
	if p.Detail == "" {
		return columns.Cut(string(p.Name), width)
	}
	name := columns.Cut(string(p.Name), width/2)
	return name + " " + columns.CutImage(p.Detail, width-utf8.RuneCountInString(name)-1)
}

// stages renders the stages as one line, "" for none.
func (p Phase) stages() string {
	parts := make([]string, 0, len(p.Stages))
	for _, s := range p.Stages {
		parts = append(parts, fmt.Sprintf("%s %.3fs", s.Name, s.Seconds))
	}
	return strings.Join(parts, ", ")
}

// took is the length of the phase, "-" for a moment, and for one that has not ended what keeps it, or "running".
func (p Phase) took() string {
	switch {
	case p.State != "":
		return p.State
	case p.Running():
		return "running"
	case p.Moment():
		return "-"
	}
	return secs(p.End.Sub(p.Start))
}

// axis draws the marks of the time above the bars: "|0s       |5s".
func (s scale) axis(width int) string {
	var out strings.Builder
	for _, tick := range s.ticks(width / leastTick) {
		at := s.column(tick.share, width)
		if text := "|" + tick.label; at+len(text) <= width {
			out.WriteString(strings.Repeat(" ", max(at-out.Len(), 0)) + text)
		}
	}
	return out.String()
}

func (s scale) column(share float64, width int) int { return int(math.Round(share * float64(width-1))) }

// bar draws the phase: '|' for a moment, '=' for a stretch, '>' at its end where it goes on.
func (s scale) bar(p Phase, width int) string {
	from := s.column(s.share(p.Start), width)
	left := strings.Repeat(" ", from)
	switch {
	case p.Start.After(s.to) || p.Running() || p.End.After(s.to):
		return left + strings.Repeat("=", width-1-from) + ">"
	case p.Moment():
		return left + "|"
	}
	return left + strings.Repeat("=", s.column(s.share(p.End), width)-from+1)
}

func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}
