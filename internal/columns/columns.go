// Package columns lays out tables for a terminal: cells padded to columns, no line wider than asked for. What does not fit
// is cut in the columns that may give way, and marked with an ellipsis. It knows nothing of what the cells mean. Start from
// Table.
package columns

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// Width is what a line may have where nobody asks for more: what two panes side by side on a laptop show.
const Width = 100

const (
	gap      = "  "
	ellipsis = "…"
)

// Table is a header and rows of as many cells.
type Table struct {
	Header []string
	Rows   [][]string
	// Right are the columns that are aligned to the right.
	Right []int
	// Shrink are the columns that give way when a line is too wide, the first one first, and not below its Least.
	Shrink []Shrink
	// Headless leaves the header out.
	Headless bool
}

// Shrink lets one column give way. Cut shortens a cell; nil: Cut cuts its end.
type Shrink struct {
	Column, Least int
	Cut           func(text string, width int) string
}

// Write prints the table in lines of at most width characters, or of any width where width is 0.
func (t Table) Write(w io.Writer, width int) error {
	widths := t.Widths(width)
	lines := t.Rows
	if !t.Headless {
		lines = slices.Concat([][]string{t.Header}, t.Rows)
	}
	for _, cells := range lines {
		if _, err := fmt.Fprintln(w, t.Line(cells, widths)); err != nil {
			return fmt.Errorf("write table: %w", err)
		}
	}
	return nil
}

// Widths are those of the columns in a table of at most width characters a line, so far as columns may give way.
func (t Table) Widths(width int) []int {
	widths := make([]int, len(t.Header))
	for _, cells := range slices.Concat([][]string{t.Header}, t.Rows) {
		for i, cell := range cells {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	total := len(gap) * (len(widths) - 1)
	for _, n := range widths {
		total += n
	}
	for _, shrink := range t.Shrink {
		if width == 0 || total <= width {
			break
		}
		least := max(shrink.Least, utf8.RuneCountInString(t.Header[shrink.Column]))
		less := min(total-width, max(widths[shrink.Column]-least, 0))
		total -= widths[shrink.Column]
		widths[shrink.Column] = t.longest(shrink.Column, widths[shrink.Column]-less)
		total += widths[shrink.Column]
	}
	return widths
}

// longest is the length of a column's longest cell once all are cut to a width: some cuts leave less than that.
func (t Table) longest(column, width int) int {
	longest := 0
	for _, cells := range slices.Concat([][]string{t.Header}, t.Rows) {
		cell := cells[column]
		if utf8.RuneCountInString(cell) > width {
			cell = t.cut(column)(cell, width)
		}
		longest = max(longest, utf8.RuneCountInString(cell))
	}
	return longest
}

// Line is one row in columns of these widths.
func (t Table) Line(cells []string, widths []int) string {
	var out strings.Builder
	for i, cell := range cells {
		if utf8.RuneCountInString(cell) > widths[i] {
			cell = t.cut(i)(cell, widths[i])
		}
		padding := strings.Repeat(" ", max(widths[i]-utf8.RuneCountInString(cell), 0))
		if i > 0 {
			out.WriteString(gap)
		}
		if slices.Contains(t.Right, i) {
			out.WriteString(padding + cell)
		} else {
			out.WriteString(cell + padding)
		}
	}
	return strings.TrimRight(out.String(), " ")
}

func (t Table) cut(column int) func(string, int) string {
	for _, shrink := range t.Shrink {
		if shrink.Column == column && shrink.Cut != nil {
			return shrink.Cut
		}
	}
	return Cut
}

// Cut shortens a text to so many characters, the last an ellipsis.
func Cut(text string, width int) string {
	if utf8.RuneCountInString(text) <= width {
		return text
	}
	if width < 1 {
		return ""
	}
	return string([]rune(text)[:width-1]) + ellipsis
}

// CutMiddle shortens a text to so many characters and keeps both ends: names of machines differ at either.
func CutMiddle(text string, width int) string {
	runes := []rune(text)
	if len(runes) <= width {
		return text
	}
	if width < 2 {
		return Cut(text, width)
	}
	head := width / 2
	return string(runes[:head]) + ellipsis + string(runes[len(runes)-(width-1-head):])
}

// Wrap breaks a text at spaces into lines of at most width characters; a word that is longer has a line of its own.
func Wrap(text string, width int) []string {
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(text) {
		if line != "" && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > width {
			lines, line = append(lines, line), ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return append(lines, line)
}
