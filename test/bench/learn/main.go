// Command learn replays a synthetic week of a cluster whose nodes come and go, and prints which share of the pod starts
// that would have needed a pull found their image on the node, for several ways to choose what is prepulled at the same
// disk budget a node:
//
//	static   a list that somebody wrote on the first morning from what then ran most, and nobody changed
//	all      every image that workloads name at the moment, in the order of their names, until the disk is full
//	         (kube-fledged: all images on all nodes; also what fromWorkloads does when maxBytes does not suffice)
//	learned  what a policy with learn and maxBytes does: prepull/learn, top 100
//	flat     the same without the weight of recent starts: why a window alone is not enough
//	starts   the same by all starts instead of first ones: shown because it is the obvious ranking
//	oracle   knows for each node which images it will start, and takes the small ones first: a bound on found
//
// The week is made by a seeded generator, described at newWeek. It measures choices, not pulls: an image counts as there
// within ten minutes of being chosen, without the time that pulling takes.
package main

import (
	"flag"
	"fmt"
	"os"
	"text/tabwriter"
	"time"
)

func main() {
	seed := flag.Uint64("seed", 1, "seed of the generator")
	flag.Parse()
	if err := run(os.Stdout, *seed); err != nil {
		fmt.Fprintln(os.Stderr, "learn:", err)
		os.Exit(1)
	}
}

func run(out *os.File, seed uint64) error {
	w := newWeek(seed)
	fmt.Fprintf(out, "a synthetic week (seed %d): %d images, %d nodes lived, %d pod starts, %d of them the first of their image on a node\n",
		seed, len(w.images), len(w.nodes), len(w.starts), w.firsts())
	fmt.Fprintln(out, "found: share of those first starts whose image was prepulled, and of the bytes that they would have pulled. fetched: what")
	fmt.Fprintln(out, "prepulling cost a node, and the part of it that the node never used. The first day is for learning and is not counted.")
	for _, budget := range []int64{5 * gib, 10 * gib, 20 * gib} {
		fmt.Fprintf(out, "\n%d GiB a node\n", budget/gib)
		tab := tabwriter.NewWriter(out, 0, 8, 2, ' ', tabwriter.AlignRight)
		fmt.Fprintln(tab, "way\tfound\tof bytes\tfetched/node\tunused\t")
		for _, s := range strategies() {
			r := w.replay(s, budget, 24*time.Hour)
			fmt.Fprintf(tab, "%s\t%.1f%%\t%.1f%%\t%.1f GiB\t%.0f%%\t\n", s.name, 100*r.found(), 100*r.foundBytes(),
				float64(r.fetched)/float64(max(r.nodes, 1))/gib, 100*r.unused())
		}
		if err := tab.Flush(); err != nil {
			return fmt.Errorf("print: %w", err)
		}
	}
	return nil
}
