package controller

import (
	"time"

	"headstart.dev/prepull/turn"
	"headstart.dev/prepull/v1alpha1"
	"headstart.dev/prepull/warm"
)

// pace bounds how many nodes of one policy pull at once.
type pace struct {
	// slots is how many.
	slots int
	// patience is for how long a node may hold its slot: one whose agent hangs must not hold up the fleet.
	patience time.Duration
}

// progress counts how far the nodes of a policy are.
type progress struct {
	counts v1alpha1.NodeCounts
	// having counts, for each pulled image, the nodes that have it.
	having []int32
	// turn is nil when nobody has to be kept out.
	turn *v1alpha1.Turn
	// expires is when the first slot is taken from the node that holds it; zero when that helps nobody.
	expires time.Time
}

// standing is how far one node is.
type standing int

const (
	silent standing = iota // no agent
	ready
	pulling
	failed
)

// fleetView is what measure looks at.
type fleetView struct {
	nodes  []*member
	wants  []warm.Want
	stands []standing // of each node
	places []int64
}

// measure looks at every matching node. before is the turn that the status has now; holding remembers since when a node
// has held a slot for the present list, and is updated.
func measure(uid string, nodes []*member, wants []warm.Want, maxNodes int32, index *warm.Index,
	p pace, before *v1alpha1.Turn, holding map[string]time.Time, now time.Time,
) progress {
	v := fleetView{nodes: nodes, wants: wants}
	for _, n := range nodes {
		v.stands = append(v.stands, look(n, v.wants, index))
		v.places = append(v.places, turn.Place(uid, n.name))
	}
	line := v.line(maxNodes, p, holding, now)
	members, open := turn.Schedule(line, int(maxNodes), p.slots)
	open = calm(before, line, open, p.slots)
	out := progress{having: make([]int32, len(wants))}
	if members != turn.Last || open != turn.Last {
		out.turn = &v1alpha1.Turn{Members: members, Open: open}
	}
	for i, n := range nodes {
		if v.places[i] > members || maxNodes > 0 && v.stands[i] == silent {
			delete(holding, n.name)
			continue
		}
		out.count(v.stands[i])
		for j, w := range v.wants {
			if index.Has(n.name, w) {
				out.having[j]++
			}
		}
		if v.stands[i] == pulling && v.places[i] <= open {
			out.hold(n.name, open != turn.Last, p.patience, holding, now)
		} else {
			delete(holding, n.name)
		}
	}
	return out
}

// wantsOf is what a node must have to be ready. Only where the policy wants whole images is one that is mounted lazily not
// enough.
func wantsOf(pulled []v1alpha1.ImageStatus, mode v1alpha1.Mode) []warm.Want {
	wants := make([]warm.Want, len(pulled))
	for i, img := range pulled {
		wants[i] = warm.Want{Name: img.Image, Digest: pinned(img), Lazy: mode != v1alpha1.ModeEager}
	}
	return wants
}

// warmAnyhow asks for an image in whatever form a node has it.
func warmAnyhow(image string) warm.Want { return warm.Want{Name: image, Lazy: true} }

// line is the nodes as the schedule needs them: those without an agent cannot be chosen, and those that have held a slot
// for too long take none.
func (v *fleetView) line(maxNodes int32, p pace, holding map[string]time.Time, now time.Time) []turn.Node {
	var line []turn.Node
	for i, n := range v.nodes {
		if maxNodes > 0 && v.stands[i] == silent {
			continue
		}
		busy := v.stands[i] == pulling
		if since, held := holding[n.name]; held && now.Sub(since) >= p.patience {
			busy = false
		}
		line = append(line, turn.Node{Place: v.places[i], Busy: busy})
	}
	return line
}

// hold notes that a node has a slot; when others wait for it, also until when it may keep it.
func (p *progress) hold(name string, others bool, patience time.Duration, holding map[string]time.Time, now time.Time) {
	since, held := holding[name]
	if !held {
		since = now
		holding[name] = now
	}
	if end := since.Add(patience); others && end.After(now) && (p.expires.IsZero() || end.Before(p.expires)) {
		p.expires = end
	}
}

func look(n *member, wants []warm.Want, index *warm.Index) standing {
	if !n.agent {
		return silent
	}
	missing, hopeless := 0, 0
	for _, w := range wants {
		if index.Has(n.name, w) {
			continue
		}
		missing++
		if n.failed[w.Name] {
			hopeless++
		}
	}
	switch missing {
	case 0:
		return ready
	case hopeless:
		return failed
	default:
		return pulling
	}
}

func (p *progress) count(s standing) {
	p.counts.Matched++
	switch s {
	case ready:
		p.counts.Ready++
	case pulling:
		p.counts.Pulling++
	case failed:
		p.counts.Failed++
	case silent:
	}
}

// calm leaves the door where it is while three quarters of the slots are still in use: each move of it is sent to every
// agent.
func calm(before *v1alpha1.Turn, line []turn.Node, open int64, slots int) int64 {
	if before == nil || open <= before.Open {
		return open
	}
	busy := 0
	for _, n := range line {
		if n.Busy && n.Place <= before.Open {
			busy++
		}
	}
	if busy*4 > slots*3 {
		return before.Open
	}
	return open
}
