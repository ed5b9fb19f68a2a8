package controller

import (
	"cmp"
	"slices"
	"time"

	"headstart.dev/prepull/controller/resolve"
	"headstart.dev/prepull/learn"
)

const (
	// rankEvery is how often the ranking may exchange prepulled images, fillEvery how often it may add to too few.
	rankEvery = time.Minute
	fillEvery = time.Second
	// incumbent is what a learned image that is prepulled counts for against one that is not, so that two equals do not
	// take turns.
	incumbent = 1.1
)

// memory is what a policy that learns remembers.
type memory struct {
	// window is nil until it has been loaded, and while the policy does not learn.
	window *learn.Window
	// stored is the window as the API server has it.
	stored  []byte
	unsaved bool
	// saved is when storing it was last tried.
	saved   time.Time
	loading bool
	// dropped says that what is stored is to be deleted.
	dropped bool
	// onNode holds, by node, the images of which a container has started there.
	onNode map[string]map[string]bool

	ranking []learn.Ranked
	ranked  time.Time
	// stale says that something was counted since.
	stale bool
}

func (p *policy) span() time.Duration {
	if p.obj.Spec.Learn == nil || p.obj.Spec.Learn.Window == nil {
		return 168 * time.Hour
	}
	return p.obj.Spec.Learn.Window.Duration
}

func (p *policy) top() int { return int(cmp.Or(p.obj.Spec.Learn.Top, 10)) }

// count takes a start over, or only its being there when it was counted before this process.
func (p *policy) count(s start, before bool) {
	here := p.onNode[s.node]
	if here == nil {
		here = map[string]bool{}
		p.onNode[s.node] = here
	}
	if !before {
		p.window.Count(learn.Start{Image: s.image, At: s.at, First: !here[s.image]})
		p.unsaved, p.stale = true, true
	}
	here[s.image] = true
}

// rankDue is when the ranking may be made again.
func (p *policy) rankDue() time.Time {
	if len(p.ranking) < p.top() {
		return p.ranked.Add(fillEvery)
	}
	return p.ranked.Add(rankEvery)
}

// rank refreshes the ranking, unless that was done just now.
func (p *policy) rank(now time.Time) {
	if p.obj.Spec.Learn == nil || p.window == nil {
		p.ranking = nil
		return
	}
	if now.Before(p.rankDue()) {
		return
	}
	in := map[string]bool{}
	for _, r := range p.ranking[:min(p.top(), len(p.ranking))] {
		in[r.Image] = true
	}
	fresh := p.window.Rank(now)
	weight := func(r learn.Ranked) float64 {
		if in[r.Image] {
			return float64(r.Saved) * incumbent
		}
		return float64(r.Saved)
	}
	slices.SortStableFunc(fresh, func(a, b learn.Ranked) int { return cmp.Compare(weight(b), weight(a)) })
	p.ranking, p.ranked, p.stale = fresh, now, false
}

// measureEvery is how often the size of an image is looked up that pods start with and that is not prepulled.
const measureEvery = 24 * time.Hour

// unmeasured names the images of the ranking whose size decides whether they come to the top, and is not known: as many as
// could change it.
func (p *policy) unmeasured() []string {
	var names []string
	for _, r := range p.ranking {
		if r.Bytes == 0 && len(names) < 2*p.top() {
			names = append(names, r.Image)
		}
	}
	return names
}

// size takes over the sizes of images of the ranking, as their registry or the nodes that have them tell.
func (p *policy) size(know func(string) lookup) {
	if p.window == nil {
		return
	}
	for _, r := range p.ranking {
		if r.Bytes > 0 {
			continue
		}
		layers, _ := know(r.Image).size()
		if bytes := (resolve.Image{Layers: layers}).Bytes(); bytes > 0 {
			p.window.Measured(r.Image, min(bytes, mostBytes))
			p.unsaved, p.stale = true, true
		}
	}
}
