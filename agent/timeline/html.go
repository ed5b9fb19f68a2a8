package timeline

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"strings"

	"headstart.dev/internal/columns"
)

//go:embed page.html.tmpl
var pageText string

// page is self-contained: no script, no font, nothing fetched. Bars carry their numbers as text beside them, so that
// nothing is told by colour alone. On a narrow screen each phase is a block of its own, with its bar below.
var page = template.Must(template.New("timeline").Parse(pageText))

// pageTicks is how many marks the axis of the page has at most.
const pageTicks = 6

type row struct {
	// Detail is in pieces between which a line may break.
	Name   string
	Detail []string
	// Full is the detail as it is.
	Full, Start, Took, Stages string
	X, W                      string
	Goes                      bool
}

type mark struct {
	X, Percent, Label string
	// Last is one so far to the right that its text stands before it.
	Last bool
}

// WriteHTML draws the timeline as one self-contained page.
func (t Timeline) WriteHTML(w io.Writer) error {
	drawn := t.scale()
	data := struct {
		Node               []string
		Title, BootID      string
		Zero, Total, Drawn string
		Rows               []row
		Marks              []mark
	}{
		Node: pieces(orDash(t.Node)), Title: orDash(t.Node), BootID: orDash(t.BootID), Zero: t.Zero().UTC().Format("2006-01-02 15:04:05.000 UTC"),
		Total: secs(t.Last().Sub(t.Zero())),
	}
	if drawn.to.Before(t.Last()) {
		data.Drawn = secs(drawn.span())
	}
	for _, tick := range drawn.ticks(pageTicks) {
		data.Marks = append(data.Marks, mark{
			X: fmt.Sprintf("%.1f", tick.share*1000), Percent: fmt.Sprintf("%.2f", tick.share*100), Label: tick.label, Last: tick.share > 0.9,
		})
	}
	for _, p := range t.Phases {
		end := p.End
		if p.Running() {
			end = drawn.to
		}
		x := drawn.share(p.Start) * 997
		data.Rows = append(data.Rows, row{
			Name: string(p.Name), Detail: pieces(columns.ShortDigest(p.Detail)), Full: p.Detail, Stages: p.stages(),
			Start: secs(p.Start.Sub(drawn.from)), Took: p.took(), Goes: p.Running() || p.End.After(drawn.to),
			X: fmt.Sprintf("%.1f", x), W: fmt.Sprintf("%.1f", max(drawn.share(end)*997-x, 3)),
		})
	}
	if err := page.Execute(w, data); err != nil {
		return fmt.Errorf("draw timeline: %w", err)
	}
	return nil
}

// pieces cuts a name where a line may break: after what parts its words.
func pieces(name string) []string {
	var out []string
	for name != "" {
		at := strings.IndexAny(name, "/:@.-_")
		if at < 0 || at == len(name)-1 {
			return append(out, name)
		}
		out, name = append(out, name[:at+1]), name[at+1:]
	}
	return out
}
