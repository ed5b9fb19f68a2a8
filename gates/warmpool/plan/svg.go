package plan

import (
	"fmt"
	"html"
	"html/template"
	"math"
	"slices"
	"strings"
	"time"
)

// Sizes of the drawings, in units of their view box.
const (
	drawWidth   = 1100.0
	marginLeft  = 44.0
	marginRight = 8.0
	rowHeight   = 132.0
	tallHeight  = 260.0
	axisHeight  = 22.0
)

// frame maps time and replicas to a drawing. All drawings of one frame share its scales, so that they compare by eye.
type frame struct {
	from, to        time.Time
	peakDemand, top float64
	tall            bool
}

func newFrame(rows []Row, from, to time.Time) frame {
	f := frame{from: from, to: to, peakDemand: 1, top: 1}
	for _, row := range rows {
		for _, c := range row.Columns {
			if c.At.Before(from) || c.At.After(to) {
				continue
			}
			f.peakDemand = max(f.peakDemand, c.Demand)
			f.top = max(f.top, float64(c.Ready), float64(c.Asked))
		}
	}
	return f
}

func (f frame) height() float64 {
	if f.tall {
		return tallHeight
	}
	return rowHeight
}

func (f frame) x(at time.Time) float64 {
	share := at.Sub(f.from).Seconds() / max(1, f.to.Sub(f.from).Seconds())
	return marginLeft + share*(drawWidth-marginLeft-marginRight)
}

func (f frame) y(value, top float64) float64 {
	return 6 + (f.height()-axisHeight-6)*(1-value/top)
}

// cell is what one pixel column of a drawing shows: extremes, so that nothing short is lost.
type cell struct {
	x                    float64
	at                   time.Time
	low, high            int32
	demand               float64
	asked, missed, total int
	used                 bool
}

// cells gathers columns into one cell a unit of width.
func (f frame) cells(columns []Column) []cell {
	cells := make([]cell, int(drawWidth)+1)
	for _, c := range columns {
		if c.At.Before(f.from) || c.At.After(f.to) {
			continue
		}
		k := &cells[int(f.x(c.At))]
		if !k.used {
			*k = cell{x: math.Floor(f.x(c.At)), at: c.At, low: c.Ready, used: true}
		}
		k.low, k.high = min(k.low, c.Ready), max(k.high, c.Ready)
		k.demand = max(k.demand, c.Demand)
		k.asked, k.missed = max(k.asked, c.Asked), max(k.missed, c.Missed)
		k.total += c.Missed
	}
	used := cells[:0]
	for _, c := range cells {
		if c.used {
			used = append(used, c)
		}
	}
	return used
}

// demand draws what the workload asked for.
func (f frame) demand(columns []Column) template.HTML {
	var b strings.Builder
	f.open(&b, "Demand over time", f.peakDemand)
	cells := f.cells(columns)
	if len(cells) > 0 {
		fmt.Fprintf(&b, `<path class="demand" d="M%.1f %.1f`, cells[0].x, f.y(0, 1))
		for _, c := range cells {
			fmt.Fprintf(&b, "L%.1f %.1f", c.x, f.y(c.demand, f.peakDemand))
		}
		fmt.Fprintf(&b, `L%.1f %.1fZ"/>`, cells[len(cells)-1].x, f.y(0, 1))
	}
	return f.shut(&b)
}

// pool draws what one strategy held, the pods that asked, and those that found nothing.
func (f frame) pool(row Row) template.HTML {
	var b strings.Builder
	f.open(&b, row.Name+": replicas ready, pods that asked, pods that missed", f.top)
	cells := f.cells(row.Columns)
	f.band(&b, cells, tones[row.Name])
	f.bars(&b, cells)
	return f.shut(&b)
}

// overlay draws all strategies over the pods that asked.
func (f frame) overlay(rows []Row) template.HTML {
	var b strings.Builder
	f.open(&b, "One day: pods that asked against what each strategy held", f.top)
	for _, c := range f.cells(rows[0].Columns) {
		if c.asked > 0 {
			f.bar(&b, "asked", c, 0, c.asked, fmt.Sprintf("%s: %d pods asked", c.at.UTC().Format("15:04"), c.asked))
		}
	}
	for _, row := range slices.Backward(rows) {
		fmt.Fprintf(&b, `<path class="line %s" d="`, tones[row.Name])
		for k, c := range f.cells(row.Columns) {
			verb := "L"
			if k == 0 {
				verb = "M"
			}
			fmt.Fprintf(&b, "%s%.1f %.1f", verb, c.x, f.y(float64(c.low), f.top))
		}
		b.WriteString(`"/>`)
	}
	return f.shut(&b)
}

func (f frame) band(b *strings.Builder, cells []cell, tone string) {
	if len(cells) == 0 {
		return
	}
	fmt.Fprintf(b, `<path class="band %s" d="M%.1f %.1f`, tone, cells[0].x, f.y(0, 1))
	for _, c := range cells {
		fmt.Fprintf(b, "V%.1fH%.1f", f.y(float64(c.high), f.top), c.x+1)
	}
	fmt.Fprintf(b, `V%.1fZ"/>`, f.y(0, 1))
}

func (f frame) bars(b *strings.Builder, cells []cell) {
	for _, c := range cells {
		if c.asked > c.missed {
			f.bar(b, "asked", c, 0, c.asked-c.missed, "")
		}
		if c.missed > 0 {
			f.bar(b, "missed", c, c.asked-c.missed, c.asked, fmt.Sprintf("%s: %d pods waited for a node", day(c.at), c.total))
		}
	}
}

func (f frame) bar(b *strings.Builder, class string, c cell, from, to int, title string) {
	top := f.y(float64(to), f.top)
	fmt.Fprintf(b, `<rect class="%s" x="%.0f" y="%.1f" width="%s" height="%.1f">`, class, c.x, top,
		map[bool]string{true: "2", false: "1.4"}[class == "missed"], f.y(float64(from), f.top)-top)
	if title != "" {
		fmt.Fprintf(b, "<title>%s</title>", html.EscapeString(title))
	}
	b.WriteString("</rect>")
}

// open begins a drawing with its grid.
func (f frame) open(b *strings.Builder, label string, top float64) {
	fmt.Fprintf(b, `<svg viewBox="0 0 %.0f %.0f" role="img" aria-label="%s">`, drawWidth, f.height(), html.EscapeString(label))
	for _, value := range ticks(top) {
		y := f.y(value, top)
		fmt.Fprintf(b, `<line class="grid" x1="%.0f" x2="%.0f" y1="%.1f" y2="%.1f"/><text class="tick" x="%.0f" y="%.1f" text-anchor="end">%g</text>`,
			marginLeft, drawWidth-marginRight, y, y, marginLeft-6, y+4, value)
	}
	step, format := 24*time.Hour, "Mon 2"
	if f.to.Sub(f.from) <= 25*time.Hour {
		step, format = 2*time.Hour, "15:04"
	}
	for f.to.Sub(f.from) > 24*step {
		step *= 2
	}
	for at := f.from.UTC().Truncate(step); !at.After(f.to); at = at.Add(step) {
		if at.Before(f.from) {
			continue
		}
		x := f.x(at)
		fmt.Fprintf(b, `<line class="grid" x1="%.1f" x2="%.1f" y1="6" y2="%.1f"/>`, x, x, f.y(0, 1))
		if x < drawWidth-40 {
			fmt.Fprintf(b, `<text class="tick" x="%.1f" y="%.1f">%s</text>`, x+3, f.height()-6, at.Format(format))
		}
	}
}

func (f frame) shut(b *strings.Builder) template.HTML {
	b.WriteString("</svg>")
	return template.HTML(b.String()) //nolint:gosec // built above from numbers, times and escaped labels only
}

// ticks are about three round numbers up to top.
func ticks(top float64) []float64 {
	step := math.Pow(10, math.Floor(math.Log10(max(1, top/3))))
	for _, k := range []float64{5, 2} {
		if top/(step*k) >= 3 {
			step *= k
			break
		}
	}
	var out []float64
	for v := 0.0; v <= top; v += step {
		out = append(out, v)
	}
	return out
}
