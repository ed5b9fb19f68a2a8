package main

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"
)

const (
	mib = 1 << 20
	gib = 1 << 30
)

// start is one pod start.
type start struct {
	at          time.Time
	node, image int
	// first says that the image had not started on this node before.
	first bool
}

// image is one version of an application's image.
type image struct {
	name  string
	app   int
	bytes int64
	// from and to are when workloads name it: a rollout replaces it.
	from, to time.Time
}

type node struct{ from, to time.Time }

// week is what happened.
type week struct {
	begin  time.Time
	images []image
	nodes  []node
	starts []start // in order of time
	// willStart holds, by node, its images in order of their first start.
	willStart map[int][]int
}

const (
	apps     = 120
	days     = 7
	dayNodes = 40 // alive at the peak of a day
	lifetime = 8 * time.Hour
)

// newWeek makes a week.
//
//   - 120 applications. Their popularity falls with rank as 1/rank^0.9; sizes are log-normal around 300 MiB (sigma 1),
//     apart from popularity, and six machine-learning images have 4 to 9 GiB.
//   - Each application rolls out now and then (a popular one every day or two, others seldom): a new image of about the
//     size of the old one replaces it, and nothing starts the old one again.
//   - A fifth of the applications belong to a batch that runs at night only.
//   - Nodes live 8 hours on average (exponential), as under Karpenter; how many there are follows the hour of the day.
//   - A pod starts on a node about once in two minutes and node; which application's is drawn by popularity and hour.
func newWeek(seed uint64) *week {
	random := rand.New(rand.NewPCG(seed, 42)) //nolint:gosec // a simulation
	w := &week{begin: time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC), willStart: map[int][]int{}}
	end := w.begin.AddDate(0, 0, days)
	current := make([][]int, apps) // versions of an application, in order of time
	names := random.Perm(apps)     // a name says nothing of popularity
	for app := range apps {
		size := int64(300 * mib * math.Exp(random.NormFloat64()))
		if app%20 == 7 {
			size = 4*gib + random.Int64N(5*gib)
		}
		every := time.Duration(1+app/8) * 36 * time.Hour
		for from, version := w.begin, 1; from.Before(end); version++ {
			to := from.Add(time.Duration(random.ExpFloat64() * float64(every)))
			w.images = append(w.images, image{name: fmt.Sprintf("registry.example/app-%03d:v%d", names[app], version), app: app, bytes: size, from: from, to: to})
			current[app] = append(current[app], len(w.images)-1)
			from = to
		}
	}
	w.live(random, end)
	w.play(random, current)
	return w
}

// busy is how much of the peak an hour of the day has.
func busy(t time.Time) float64 {
	hour := float64(t.Hour()) + float64(t.Minute())/60
	return 0.55 + 0.45*math.Cos((hour-15)/24*2*math.Pi)
}

// live makes the nodes.
func (w *week) live(random *rand.Rand, end time.Time) {
	var alive []int
	for t := w.begin; t.Before(end); t = t.Add(time.Minute) {
		alive = slices.DeleteFunc(alive, func(n int) bool { return !w.nodes[n].to.After(t) })
		for want := int(dayNodes * busy(t)); len(alive) < want; {
			life := time.Duration(random.ExpFloat64() * float64(lifetime))
			w.nodes = append(w.nodes, node{from: t, to: t.Add(life)})
			alive = append(alive, len(w.nodes)-1)
		}
	}
}

// popularity is the cumulative share of the applications at an hour.
func popularity(hour int) []float64 {
	sum := 0.0
	out := make([]float64, apps)
	for app := range out {
		if batch := app%5 == 4; !batch || hour < 5 {
			sum += 1 / math.Pow(float64(app+1), 0.9)
		}
		out[app] = sum
	}
	for app := range out {
		out[app] /= sum
	}
	return out
}

// play makes the pod starts.
func (w *week) play(random *rand.Rand, versions [][]int) {
	byHour := make([][]float64, 24)
	for hour := range byHour {
		byHour[hour] = popularity(hour)
	}
	end := w.begin.AddDate(0, 0, days)
	for n, life := range w.nodes {
		for t := life.from; ; {
			t = t.Add(time.Duration(random.ExpFloat64() * float64(2*time.Minute)))
			if !t.Before(life.to) || !t.Before(end) {
				break
			}
			app, _ := slices.BinarySearch(byHour[t.Hour()], random.Float64())
			if v := slices.IndexFunc(versions[min(app, apps-1)], func(v int) bool { return t.Before(w.images[v].to) }); v >= 0 {
				w.starts = append(w.starts, start{at: t, node: n, image: versions[min(app, apps-1)][v]})
			}
		}
	}
	slices.SortFunc(w.starts, func(a, b start) int { return a.at.Compare(b.at) })
	seen := map[[2]int]bool{}
	for i := range w.starts {
		key := [2]int{w.starts[i].node, w.starts[i].image}
		if w.starts[i].first = !seen[key]; w.starts[i].first {
			w.willStart[key[0]] = append(w.willStart[key[0]], key[1])
		}
		seen[key] = true
	}
}

func (w *week) firsts() int {
	n := 0
	for _, s := range w.starts {
		if s.first {
			n++
		}
	}
	return n
}
