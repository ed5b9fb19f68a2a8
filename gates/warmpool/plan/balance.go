package plan

import (
	"fmt"
	"html"
	"html/template"
	"math"
	"slices"
	"strings"
	"unicode/utf8"
)

// Sizes of the drawing of cost against misses, in units of its view box.
const (
	balanceWidth, balanceHeight         = 520.0, 260.0
	balanceLeft, balanceRight           = 64.0, 90.0
	balanceBottom, balanceTop           = 40.0, 10.0
	dotRadius, dotGap                   = 8.0, 5.0
	letterWidth, lineHeight, lineAscent = 7.5, 16.0, 12.0 // of the labels: 13 px, of any font
)

// box is a rectangle of a drawing.
type box struct{ left, top, right, bottom float64 }

func (b box) meets(o box) bool {
	return b.left < o.right && o.left < b.right && b.top < o.bottom && o.top < b.bottom
}

func (b box) within(o box) bool {
	return b.left >= o.left && b.right <= o.right && b.top >= o.top && b.bottom <= o.bottom
}

// dot is one strategy in the drawing.
type dot struct {
	name, tone string
	x, y       float64
	// label is where its name stands: beside the dot where there is room, else above or below that.
	label box
}

func (d *dot) box() box {
	return box{d.x - dotRadius, d.y - dotRadius, d.x + dotRadius, d.y + dotRadius}
}

// place gives each dot a label that meets no other label and no dot, within the frame. Where there is no such place it stays
// beside its dot.
func place(dots []dot, frame box) {
	for i := range dots {
		d := &dots[i]
		width := letterWidth * float64(utf8.RuneCountInString(d.name))
		var places []box
		for _, step := range []float64{0, -1, 1, -2, 2, -3, 3, -4, 4} {
			top := d.y - lineHeight/2 + step*lineHeight
			for _, left := range []float64{d.x + dotRadius + dotGap, d.x - dotRadius - dotGap - width} {
				places = append(places, box{left, top, left + width, top + lineHeight})
			}
		}
		d.label = places[0]
		if at := slices.IndexFunc(places, func(b box) bool { return b.within(frame) && !taken(b, dots, i) }); at >= 0 {
			d.label = places[at]
		}
	}
}

// taken says whether a dot, or the label of one of the first dots, is where the box is.
func taken(b box, dots []dot, placed int) bool {
	for i := range dots {
		if b.meets(dots[i].box()) || i < placed && b.meets(dots[i].label) {
			return true
		}
	}
	return false
}

// balance sets cost against misses: the nearer to the lower left, the better.
func balance(rows []Row) template.HTML {
	maxCost, maxMiss := 1.0, 1.0
	for _, row := range rows {
		maxCost = max(maxCost, row.MonthlyCost)
		if row.Name != NameNone {
			maxMiss = max(maxMiss, 100*row.MissRate)
		}
	}
	maxCost, maxMiss = maxCost*1.2, maxMiss*1.2
	x := func(miss float64) float64 { return balanceLeft + miss/maxMiss*(balanceWidth-balanceLeft-balanceRight) }
	y := func(cost float64) float64 {
		return balanceTop + (1-cost/maxCost)*(balanceHeight-balanceBottom-balanceTop)
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg viewBox="0 0 %.0f %.0f" role="img" aria-label="Cost a month against the share of pods that missed">`, balanceWidth, balanceHeight)
	for _, v := range ticks(maxCost) {
		fmt.Fprintf(&b, `<line class="grid" x1="%.0f" x2="%.0f" y1="%.1f" y2="%.1f"/><text class="tick" x="%.0f" y="%.1f" text-anchor="end">%g</text>`,
			balanceLeft, balanceWidth-balanceRight, y(v), y(v), balanceLeft-6, y(v)+4, v)
	}
	for _, v := range ticks(maxMiss) {
		fmt.Fprintf(&b, `<text class="tick" x="%.1f" y="%.1f" text-anchor="middle">%g%%</text>`, x(v), balanceHeight-balanceBottom+16, v)
	}
	fmt.Fprintf(&b, `<text class="tick" x="%.0f" y="%.0f">pods that missed →</text><text class="tick" transform="translate(14 %.0f) rotate(-90)">cost a month →</text>`,
		balanceLeft, balanceHeight-6, balanceHeight-balanceBottom-10)
	var dots []dot
	for _, row := range rows {
		if row.Name != NameNone {
			dots = append(dots, dot{name: row.Name, tone: tones[row.Name], x: x(100 * row.MissRate), y: y(row.MonthlyCost)})
		}
	}
	place(dots, box{balanceLeft, 0, balanceWidth, balanceHeight - balanceBottom})
	for i := range dots {
		d := &dots[i]
		if middle := (d.label.top + d.label.bottom) / 2; math.Abs(middle-d.y) > lineHeight/2 {
			fmt.Fprintf(&b, `<line class="grid" x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f"/>`, d.x, d.y, min(max(d.x, d.label.left), d.label.right), middle)
		}
		fmt.Fprintf(&b, `<circle class="dot %s" cx="%.1f" cy="%.1f" r="%.0f"/><text class="mark" x="%.1f" y="%.1f">%s</text>`,
			d.tone, d.x, d.y, dotRadius, d.label.left, d.label.top+lineAscent, html.EscapeString(d.name))
	}
	b.WriteString("</svg>")
	return template.HTML(b.String()) //nolint:gosec // built above from numbers and escaped names only
}
