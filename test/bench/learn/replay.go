package main

import (
	"cmp"
	"slices"
	"time"

	"headstart.dev/prepull/learn"
)

// view is what a way to choose may look at.
type view struct {
	week *week
	now  time.Time
	// window has counted all starts so far; byStarts counted every start as if it were a pull.
	window, byStarts *learn.Window
	// first counts the starts of each image on the first morning.
	first map[int]int
	node  int
	index map[string]int
}

// chooser returns images, most important first; as many as fit the disk are taken.
type chooser func(view) []int

type strategy struct {
	name   string
	choose chooser
	// perNode says that each node gets a choice of its own.
	perNode bool
}

// top is the most that a policy may learn.
const top = 100

func strategies() []strategy {
	return []strategy{
		{name: "static", choose: func(v view) []int { return ranked(v.first) }},
		{name: "all", choose: view.current},
		{name: "learned", choose: func(v view) []int { return v.learned(v.window) }},
		{name: "flat", choose: func(v view) []int {
			list := v.window.Rank(v.now)
			slices.SortStableFunc(list, func(a, b learn.Ranked) int { return cmp.Compare(b.Pulls*b.Bytes, a.Pulls*a.Bytes) })
			list = list[:min(top, len(list))]
			slices.SortStableFunc(list, func(a, b learn.Ranked) int { return cmp.Compare(b.Pulls, a.Pulls) })
			return v.byName(list)
		}},
		{name: "starts", choose: func(v view) []int { return v.learned(v.byStarts) }},
		{name: "oracle", choose: oracle, perNode: true},
	}
}

// learned is what the controller takes from a window.
func (v view) learned(w *learn.Window) []int {
	list := w.Rank(v.now)
	return v.byName(learn.Fit(list[:min(top, len(list))]))
}

// ranked orders images by a count.
func ranked(counts map[int]int) []int {
	var out []int
	for img := range counts {
		out = append(out, img)
	}
	slices.SortFunc(out, func(a, b int) int { return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(a, b)) })
	return out
}

// current returns the images that workloads name now, by name.
func (v view) current() []int {
	var out []int
	for i, img := range v.week.images {
		if !img.from.After(v.now) && img.to.After(v.now) {
			out = append(out, i)
		}
	}
	slices.SortFunc(out, func(a, b int) int { return cmp.Compare(v.week.images[a].name, v.week.images[b].name) })
	return out
}

func (v view) byName(list []learn.Ranked) []int {
	var out []int
	for _, r := range list {
		out = append(out, v.index[r.Image])
	}
	return out
}

// oracle returns what the node will start, smallest first, so that as many as possible fit.
func oracle(v view) []int {
	out := slices.Clone(v.week.willStart[v.node])
	slices.SortStableFunc(out, func(a, b int) int { return cmp.Compare(v.week.images[a].bytes, v.week.images[b].bytes) })
	return out
}

// result sums what happened after the warm-up.
type result struct {
	firsts, hits         int
	bytes, hitBytes      int64
	fetched, fetchedUsed int64
	nodes                int
}

func (r result) found() float64      { return float64(r.hits) / float64(max(r.firsts, 1)) }
func (r result) foundBytes() float64 { return float64(r.hitBytes) / float64(max(r.bytes, 1)) }
func (r result) unused() float64     { return 1 - float64(r.fetchedUsed)/float64(max(r.fetched, 1)) }

// disk is what prepulling has put on a node.
type disk struct {
	held map[int]bool
	used map[int]bool
}

// replay runs the week with one way to choose, asked anew every ten minutes for every node, and for a new node when it
// comes.
func (w *week) replay(s strategy, budget int64, warmup time.Duration) result {
	const refresh = 10 * time.Minute
	var r result
	v := view{week: w, window: learn.New(168 * time.Hour), byStarts: learn.New(168 * time.Hour), first: map[int]int{}, index: map[string]int{}}
	for i, img := range w.images {
		v.index[img.name] = i
	}
	disks := make([]*disk, len(w.nodes))
	counted := w.begin.Add(warmup)
	next := 0
	for t := w.begin; next < len(w.starts); t = t.Add(refresh) {
		v.now = t
		var chosen []int
		if !s.perNode {
			chosen = s.choose(v)
		}
		for n := range w.nodes {
			if w.nodes[n].from.After(t.Add(refresh)) || !w.nodes[n].to.After(t) {
				continue
			}
			if v.node = n; s.perNode {
				chosen = s.choose(v)
			}
			w.fill(&r, disks, n, chosen, budget, !t.Before(counted))
		}
		for ; next < len(w.starts) && w.starts[next].at.Before(t.Add(refresh)); next++ {
			w.serve(&r, &v, disks, w.starts[next], !t.Before(counted))
		}
	}
	return r
}

// fill brings the disk of one node up to date: what is chosen no longer goes.
func (w *week) fill(r *result, disks []*disk, n int, chosen []int, budget int64, count bool) {
	d := disks[n]
	if d == nil {
		d = &disk{held: map[int]bool{}, used: map[int]bool{}}
		disks[n] = d
		if count {
			r.nodes++
		}
	}
	held := map[int]bool{}
	left := budget
	for _, img := range chosen {
		size := w.images[img].bytes
		if held[img] || size > left {
			continue
		}
		left -= size
		held[img] = true
		// What a pod has pulled is on the node already.
		if count && !d.held[img] && !d.used[img] {
			r.fetched += size
		}
	}
	d.held = held
}

func (w *week) serve(r *result, v *view, disks []*disk, s start, count bool) {
	img := w.images[s.image]
	d := disks[s.node]
	hit := d != nil && d.held[s.image]
	if s.first && count {
		r.firsts++
		r.bytes += img.bytes
		if hit {
			r.hits++
			r.hitBytes += img.bytes
			r.fetchedUsed += img.bytes
		}
	}
	if d != nil {
		d.used[s.image] = true
	}
	v.window.Count(learn.Start{Image: img.name, At: s.at, First: s.first})
	v.byStarts.Count(learn.Start{Image: img.name, At: s.at, First: true})
	v.window.Measured(img.name, img.bytes)
	v.byStarts.Measured(img.name, img.bytes)
	if s.at.Before(w.begin.Add(9 * time.Hour)) {
		v.first[s.image]++
	}
}
