package plan

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"headstart.dev/internal/columns"
)

// column is one of the table.
type column struct {
	title string
	// wide says that only the wide form has it.
	wide bool
	cell func(Row) string
}

var tableColumns = []column{
	{"STRATEGY", false, func(r Row) string { return r.Name }},
	{"SIZE", false, func(r Row) string { return r.Size }},
	{"MISSES", false, func(r Row) string { return fmt.Sprint(r.Misses) }},
	{"MISS RATE", false, func(r Row) string { return fmt.Sprintf("%.1f%%", 100*r.MissRate) }},
	{"BAD HOURS", true, func(r Row) string { return fmt.Sprint(r.BadHours) }},
	{"P50", true, func(r Row) string { return seconds(r.WaitP50) }},
	{"P95", false, func(r Row) string { return seconds(r.WaitP95) }},
	{"P99", false, func(r Row) string { return seconds(r.WaitP99) }},
	{"REPLICA-HOURS", true, func(r Row) string { return fmt.Sprintf("%.0f", r.ReplicaHours) }},
	{"COST", false, func(r Row) string { return fmt.Sprintf("%.2f", r.Cost) }},
	{"COST/MONTH", false, func(r Row) string { return fmt.Sprintf("%.2f", r.MonthlyCost) }},
	{"ROI/MONTH", false, func(r Row) string { return roi(r, r.ROI) }},
	{"GUIDE'S ROI", true, func(r Row) string { return roi(r, r.GuideROI) }},
}

func (r Report) table(wide bool) columns.Table {
	var table columns.Table
	shown := slices.DeleteFunc(slices.Clone(tableColumns), func(c column) bool { return c.wide && !wide })
	for i, c := range shown {
		table.Header = append(table.Header, c.title)
		if i > 0 {
			table.Right = append(table.Right, i)
		}
	}
	for _, row := range r.Rows {
		var cells []string
		for _, c := range shown {
			cells = append(cells, c.cell(row))
		}
		table.Rows = append(table.Rows, cells)
	}
	table.Shrink = []columns.Shrink{{Column: 1, Least: 6}}
	return table
}

// WriteText writes the report for a terminal, in lines of at most columns.Width characters.
func (r Report) WriteText(w io.Writer) error { return r.write(w, false) }

// WriteWide is WriteText with every column that there is.
func (r Report) WriteWide(w io.Writer) error { return r.write(w, true) }

func (r Report) write(w io.Writer, wide bool) error {
	width := columns.Width
	if wide {
		width = 0
	}
	paragraph(w, "", fmt.Sprintf("%s against %s, %s to %s", r.Pool, r.Source, day(r.From), day(r.To)))
	paragraph(w, "", fmt.Sprintf("%d pods asked for capacity, at most %.0f at once; a cold start takes %.0f s; a replica-hour costs %.4g",
		r.Asked, r.Peak, r.Lead, r.Cost))
	fmt.Fprintln(w)
	if err := r.table(wide).Write(w, width); err != nil {
		return fmt.Errorf("write plan: %w", err)
	}
	fmt.Fprintln(w)
	paragraph(w, "", r.Verdict())
	paragraph(w, "", r.EqualMisses.Verdict())
	if r.EqualMisses.FixedSizeFound {
		paragraph(w, "", fmt.Sprintf("The smallest fixed pool that misses no more than this WarmPool has %d replicas and costs %.2f, the WarmPool %.2f.",
			r.EqualMisses.FixedSize, r.EqualMisses.FixedSizeCost, r.Rows[1].Cost))
	}
	if r.Shows != "" {
		paragraph(w, "", "This demand: "+r.Shows)
	}
	fmt.Fprintln(w)
	for _, note := range r.Notes {
		paragraph(w, "- ", note)
	}
	return nil
}

// paragraph writes a text in lines of at most columns.Width characters, the first after a mark.
func paragraph(w io.Writer, mark, text string) {
	for i, line := range columns.Wrap(text, columns.Width-len(mark)) {
		if i > 0 {
			mark = strings.Repeat(" ", len(mark))
		}
		fmt.Fprintln(w, mark+line)
	}
}

// WriteJSON writes the report without the columns of its drawing.
func (r Report) WriteJSON(w io.Writer) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(r); err != nil {
		return fmt.Errorf("write plan: %w", err)
	}
	return nil
}

func day(t time.Time) string { return t.UTC().Format("2006-01-02 15:04") }

func seconds(s float64) string { return fmt.Sprintf("%.3gs", s) }

func roi(row Row, value float64) string {
	if row.Name == NameNone {
		return "-"
	}
	return fmt.Sprintf("%.0f", value)
}
