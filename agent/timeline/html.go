package timeline

import (
	"fmt"
	"html/template"
	"io"
)

// page is self-contained: no script, no font, nothing fetched. Bars carry their numbers as text beside them, so that
// nothing is told by colour alone.
var page = template.Must(template.New("timeline").Parse(`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<title>Boot of {{.Node}}</title>
<style>
:root{color-scheme:light dark;--bar:#2f6fdb;--line:#8884}
@media (prefers-color-scheme:dark){:root{--bar:#7aa7f7}}
body{font:14px/1.4 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem}
table{border-collapse:collapse;width:100%}
th,td{text-align:left;padding:.25rem .5rem;border-bottom:1px solid var(--line);vertical-align:middle}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
td.t{width:50%}
td.d{overflow-wrap:anywhere}
svg{display:block;width:100%;height:14px}
rect{fill:var(--bar)}
</style></head><body>
<h1>Boot of {{.Node}}</h1>
<p>From {{.Zero}}, {{.Total}} in all. Boot ID {{.BootID}}.</p>
<table><thead><tr><th scope="col">Phase</th><th scope="col" class="n">Start</th><th scope="col" class="n">Took</th><th scope="col">Timeline</th></tr></thead><tbody>
{{range .Rows}}<tr><td class="d">{{.Name}} {{.Detail}}{{with .Stages}}<br><small>of it {{.}}</small>{{end}}</td><td class="n">{{.Start}}</td><td class="n">{{.Took}}</td><td class="t"><svg viewBox="0 0 1000 14" preserveAspectRatio="none" role="img" aria-label="{{.Name}} {{.Detail}}: from {{.Start}}, {{.Took}}"><rect x="{{.X}}" y="2" width="{{.W}}" height="10"/></svg></td></tr>
{{end}}</tbody></table></body></html>
`))

type row struct {
	Name, Detail, Start, Took string
	Stages                    string
	X, W                      string
}

// WriteHTML draws the timeline as one self-contained page.
func (t Timeline) WriteHTML(w io.Writer) error {
	zero, last := t.Zero(), t.Last()
	span := max(last.Sub(zero).Seconds(), 0.001)
	data := struct {
		Node, BootID, Zero, Total string
		Rows                      []row
	}{
		Node: orDash(t.Node), BootID: orDash(t.BootID), Zero: zero.UTC().Format("2006-01-02 15:04:05.000 UTC"),
		Total: fmt.Sprintf("%.3fs", last.Sub(zero).Seconds()),
	}
	for _, p := range t.Phases {
		end := p.End
		if p.Running() {
			end = last
		}
		x := p.Start.Sub(zero).Seconds() / span * 997
		data.Rows = append(data.Rows, row{
			Name: string(p.Name), Detail: p.Detail, Stages: p.stages(),
			Start: fmt.Sprintf("%.3fs", p.Start.Sub(zero).Seconds()), Took: p.took(),
			X: fmt.Sprintf("%.1f", x), W: fmt.Sprintf("%.1f", max(end.Sub(p.Start).Seconds()/span*997, 3)),
		})
	}
	if err := page.Execute(w, data); err != nil {
		return fmt.Errorf("draw timeline: %w", err)
	}
	return nil
}
