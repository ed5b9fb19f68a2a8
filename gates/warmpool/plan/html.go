package plan

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"time"
)

//go:embed page.html.tmpl
var pageText string

var page = template.Must(template.New("page").Funcs(template.FuncMap{
	"money":   func(v float64) string { return group(fmt.Sprintf("%.0f", v)) },
	"cents":   func(v float64) string { return fmt.Sprintf("%.4g", v) },
	"percent": func(v float64) string { return fmt.Sprintf("%.1f%%", 100*v) },
	"seconds": seconds,
	"count":   func(v int) string { return group(fmt.Sprint(v)) },
	"hours":   func(v float64) string { return group(fmt.Sprintf("%.0f", v)) },
	"day":     day,
}).Parse(pageText))

// view is what the page shows: the report with its drawings.
type view struct {
	Report
	Headline  string
	Verdict   string
	Pool      Row
	Fixed     Row
	Cards     []card
	Demand    template.HTML
	Panels    []panel
	ZoomTitle string
	Zoom      template.HTML
	Balance   template.HTML
}

type card struct{ Value, Label, Tone string }

type panel struct {
	Row  Row
	Tone string
	SVG  template.HTML
}

// WriteHTML writes the report as one page that needs nothing else: no script, no font, no image from anywhere.
func (r Report) WriteHTML(w io.Writer) error {
	v := view{Report: r, Headline: r.Verdict(), Verdict: r.EqualMisses.Verdict(), Pool: r.Rows[1], Fixed: r.Rows[2]}
	v.Cards = r.cards()
	whole := newFrame(r.Rows, r.From, r.To)
	v.Demand = whole.demand(r.Rows[1].Columns)
	for _, row := range r.Rows[1:] {
		v.Panels = append(v.Panels, panel{Row: row, Tone: tones[row.Name], SVG: whole.pool(row)})
	}
	from, to := busiest(r.Rows[0].Columns)
	zoom := newFrame(r.Rows, from, to)
	zoom.tall = true
	v.ZoomTitle = from.UTC().Format("Monday, 2 January 2006")
	v.Zoom = zoom.overlay(r.Rows[1:])
	v.Balance = balance(r.Rows)
	if err := page.Execute(w, v); err != nil {
		return fmt.Errorf("write plan page: %w", err)
	}
	return nil
}

// tones name the colours of the strategies in the page's style sheet.
var tones = map[string]string{NameNone: "none", NamePool: "pool", NameFixed: "fixed", NameCron: "cron"}

func (r Report) cards() []card {
	pool, fixed := r.Rows[1], r.Rows[2]
	cards := []card{
		{Value: fmt.Sprintf("%.1f%%", 100*pool.MissRate), Label: fmt.Sprintf("of %s pods found no warm replica (fixed 15%%: %.1f%%)", group(fmt.Sprint(r.Asked)), 100*fixed.MissRate)},
		{Value: group(fmt.Sprintf("%.0f", pool.MonthlyCost)), Label: fmt.Sprintf("a month for the WarmPool (fixed 15%%: %s)", group(fmt.Sprintf("%.0f", fixed.MonthlyCost)))},
		{Value: seconds(pool.WaitP99), Label: fmt.Sprintf("p99 wait for capacity (no pool: %s)", seconds(r.Rows[0].WaitP99))},
	}
	label := fmt.Sprintf("cost beside the fixed 15%% pool, with %s misses against %s", group(fmt.Sprint(pool.Misses)), group(fmt.Sprint(fixed.Misses)))
	if saving := r.saving(); saving >= 0 {
		return append(cards, card{Value: fmt.Sprintf("−%.0f%%", 100*saving), Label: label, Tone: "good"})
	}
	return append(cards, card{Value: fmt.Sprintf("+%.0f%%", -100*r.saving()), Label: label, Tone: "bad"})
}

// busiest is the UTC day on which the most pods asked.
func busiest(columns []Column) (from, to time.Time) {
	asked := map[time.Time]int{}
	for _, c := range columns {
		date := c.At.UTC().Truncate(24 * time.Hour)
		asked[date] += c.Asked
		if from.IsZero() || asked[date] > asked[from] || (asked[date] == asked[from] && date.Before(from)) {
			from = date
		}
	}
	return from, from.Add(24 * time.Hour)
}

// group puts a thin space between thousands.
func group(digits string) string {
	sign := ""
	if digits != "" && digits[0] == '-' {
		sign, digits = "−", digits[1:]
	}
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "\u202f" + digits[i:]
	}
	return sign + digits
}
