package main

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"
	"text/tabwriter"
)

// result is one image at one rate.
type result struct {
	Image string               `json:"image"`
	Rate  int64                `json:"mibPerSecondAndConnection"`
	Runs  map[string][]figures `json:"runs"`
	order []string
}

func (r result) print(out io.Writer) {
	fmt.Fprintf(out, "\n%s, %s a connection, %s latency, median of %d\n", r.Image, rateName(r.Rate), latency, len(r.Runs[r.order[0]]))
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "contender\tseconds\tof bare\tCPU s\tfetched MiB\twritten MiB\tpeak disk MiB\tpeak memory MiB\tservers MiB\ttree\troot\t")
	limit := r.seconds(bareName)
	for _, name := range r.order {
		runs := r.Runs[name]
		seconds := median(runs, func(f figures) float64 { return f.Seconds })
		ratio := "-"
		if limit > 0 {
			ratio = fmt.Sprintf("%.2f", seconds/limit)
		}
		fmt.Fprintf(w, "%s\t%.2f\t%s\t%.1f\t%.0f\t%.0f\t%.0f\t%.0f\t%.0f\t%s\t%s\t\n", name, seconds, ratio,
			median(runs, func(f figures) float64 { return f.CPU }),
			median(runs, func(f figures) float64 { return float64(f.Fetched) / mib }),
			median(runs, func(f figures) float64 { return float64(f.Written) / mib }),
			median(runs, func(f figures) float64 { return float64(f.Disk) / mib }),
			median(runs, func(f figures) float64 { return float64(f.Memory) / mib }),
			median(runs, func(f figures) float64 { return float64(f.Servers) / mib }), trees(runs), rootModes(runs))
	}
	_ = w.Flush()
}

// trees is the digest that all runs agree on.
func trees(runs []figures) string {
	for _, f := range runs {
		if f.Tree != runs[0].Tree {
			return "DIFFER"
		}
	}
	return runs[0].Tree
}

// rootModes are those of the root directories in all runs.
func rootModes(runs []figures) string {
	for _, f := range runs {
		if f.RootModes != runs[0].RootModes {
			return "DIFFER"
		}
	}
	return runs[0].RootModes
}

func rateName(mibs int64) string {
	if mibs == 0 {
		return "unlimited"
	}
	return fmt.Sprintf("%d MiB/s", mibs)
}

func median(runs []figures, of func(figures) float64) float64 {
	if len(runs) == 0 {
		return 0
	}
	values := make([]float64, len(runs))
	for i, f := range runs {
		values[i] = of(f)
	}
	slices.Sort(values)
	return values[len(values)/2]
}

func (r result) seconds(name string) float64 {
	return median(r.Runs[name], func(f figures) float64 { return f.Seconds })
}

// The bars that the direct engine has to meet. The first two are for the web app at 40 MiB/s a connection; the table
// shows them elsewhere as well.
const (
	barCRI    = 2.3 // times as fast as stock CRI
	barOthers = 1.5 // times as fast as the best other contender
	barBare   = 1.25
	barCPU    = 0.7
	barMemory = 250 // MiB
)

// printBars compares the direct engine with the bars, as far as the contenders for it took part.
func (r result) printBars(out io.Writer) {
	direct := r.seconds(directName)
	if direct == 0 {
		return
	}
	demanded := r.Image == "webapp" && r.Rate == 40
	if stock := r.seconds(stockName); stock > 0 {
		printBar(out, demanded, stock/direct >= barCRI, "%.2f times as fast as stock CRI, at least %.1f", stock/direct, barCRI)
		cpu := func(f figures) float64 { return f.CPU }
		share := median(r.Runs[directName], cpu) / median(r.Runs[stockName], cpu)
		printBar(out, true, share <= barCPU, "%.2f of stock CRI's processor time, at most %.1f", share, barCPU)
	}
	if best, name := r.bestOther(); name != "" {
		printBar(out, demanded, best/direct >= barOthers, "%.2f times as fast as the best other (%s), at least %.1f", best/direct, name, barOthers)
	}
	if bareSeconds := r.seconds(bareName); bareSeconds > 0 {
		printBar(out, true, direct/bareSeconds <= barBare, "%.2f of the bare limit, at most %.2f", direct/bareSeconds, barBare)
	}
	memory := 0.0
	for _, f := range r.Runs[directName] {
		memory = max(memory, float64(f.Memory)/mib)
	}
	printBar(out, true, memory <= barMemory, "%.0f MiB of memory at the peak, at most %d", memory, barMemory)
	r.printTrees(out)
}

// printTrees compares what the contenders have made. A snapshotter that gives root directories a mode of its own is named.
func (r result) printTrees(out io.Writer) {
	tree, mode := trees(r.Runs[directName]), rootModes(r.Runs[directName])
	same, but := tree != "DIFFER" && mode != "DIFFER", ""
	for _, c := range contenders() {
		runs := r.Runs[c.name]
		if len(runs) == 0 || c.name == bareName {
			continue
		}
		same = same && trees(runs) == tree && rootModes(runs) == cmp.Or(c.rootMode, mode)
		if c.rootMode != "" {
			but += fmt.Sprintf(", but for the root directory of %s: its mode is %s", c.name, c.rootMode)
		}
	}
	printBar(out, true, same, "the trees of all contenders are the same%s", but)
}

// bestOther is the fastest of what is not ours.
func (r result) bestOther() (seconds float64, name string) {
	seconds = math.Inf(1)
	for _, c := range contenders() {
		if s := r.seconds(c.name); !c.ours && s > 0 && s < seconds {
			seconds, name = s, c.name
		}
	}
	return seconds, name
}

func printBar(out io.Writer, demanded, met bool, format string, values ...any) {
	verdict := "met   "
	switch {
	case !demanded:
		verdict = "      "
	case !met:
		verdict = "MISSED"
	}
	fmt.Fprintf(out, "%s  %s\n", verdict, fmt.Sprintf(format, values...))
}
