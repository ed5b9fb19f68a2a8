package plan

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
	"time"
)

// WriteText writes the report as a table for a terminal.
func (r Report) WriteText(w io.Writer) error {
	fmt.Fprintf(w, "%s against %s, %s to %s\n", r.Pool, r.Source, day(r.From), day(r.To))
	fmt.Fprintf(w, "%d pods asked for capacity, at most %.0f at once; a cold start takes %.0f s; a replica-hour costs %.4g\n\n",
		r.Asked, r.Peak, r.Lead, r.Cost)
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "STRATEGY\tSIZE\tMISSES\tMISS RATE\tBAD HOURS\tP50\tP95\tP99\tREPLICA-HOURS\tCOST\tCOST/MONTH\tROI/MONTH\tGUIDE'S ROI\t")
	for _, row := range r.Rows {
		fmt.Fprintf(table, "%s\t%s\t%d\t%.1f%%\t%d\t%s\t%s\t%s\t%.0f\t%.2f\t%.2f\t%s\t%s\t\n",
			row.Name, row.Size, row.Misses, 100*row.MissRate, row.BadHours, seconds(row.WaitP50), seconds(row.WaitP95),
			seconds(row.WaitP99), row.ReplicaHours, row.Cost, row.MonthlyCost, roi(row, row.ROI), roi(row, row.GuideROI))
	}
	if err := table.Flush(); err != nil {
		return fmt.Errorf("write plan: %w", err)
	}
	fmt.Fprintf(w, "\n%s\n", r.EqualMisses.Verdict())
	if r.EqualMisses.FixedSizeFound {
		fmt.Fprintf(w, "The smallest fixed pool that misses no more than this WarmPool has %d replicas and costs %.2f, the WarmPool %.2f.\n",
			r.EqualMisses.FixedSize, r.EqualMisses.FixedSizeCost, r.Rows[1].Cost)
	}
	if r.Shows != "" {
		fmt.Fprintf(w, "This demand: %s\n", r.Shows)
	}
	fmt.Fprintln(w)
	for _, note := range r.Notes {
		if _, err := fmt.Fprintf(w, "- %s\n", note); err != nil {
			return fmt.Errorf("write plan: %w", err)
		}
	}
	return nil
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
