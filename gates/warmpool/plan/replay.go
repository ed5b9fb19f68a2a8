package plan

import (
	"maps"
	"math"
	"slices"
	"time"

	"headstart.dev/gates/warmpool/trace"
)

// Model is the world of a replay. It is simple on purpose and the same for every strategy: a pod that asks for capacity
// takes a ready replica, else the first that is on its way, else waits for a node of its own; the pool orders what it
// lost at once. Capacity that the workload gives back is gone at once. A replica costs from its order, and for Linger
// after it is given up.
type Model struct {
	// Lead is from a node asked for to a pod able to run on it.
	Lead time.Duration
	// WarmStart is from a pod created to running where a replica makes room.
	WarmStart time.Duration
	// Linger is how long the autoscaler keeps an empty node.
	Linger time.Duration
	// Step is the grain of the replay.
	Step time.Duration
	// WarmUp is how much of the trace's beginning only teaches, and is left out of every figure.
	WarmUp time.Duration

	draw bool // keep the columns
}

// outcome is what one strategy did.
type outcome struct {
	asked, missed int
	// incidents counts the hours in which some pod waited for a node.
	incidents    int
	waits        map[time.Duration]int // how many of the missed pods waited so long
	replicaHours float64
	columns      []Column
}

// Column is one instant of a replay, for drawing.
type Column struct {
	At     time.Time
	Demand float64
	// Asked and Missed count pods in this step.
	Asked, Missed int
	// Ready is the pool after the step.
	Ready int32
}

// replay runs one strategy over the trace.
func (m Model) replay(t trace.Trace, s strategy) outcome {
	w := world{model: m, measureFrom: t[0].At.Add(m.WarmUp), lastIncident: -1, out: outcome{waits: map[time.Duration]int{}}}
	end := t[len(t)-1].At
	next, demand, step := 0, t[0].Replicas, t[0].At
	for now := t[0].At; !now.After(end); now = w.next(step, s.wake(now)) {
		before := demand
		for ; next < len(t) && !t[next].At.After(now); next++ {
			demand = t[next].Replicas
		}
		w.advance(now)
		asked := max(0, int(ceil(demand)-ceil(before)))
		w.target = s.target(now, demand)
		missed := w.serve(asked)
		w.adjust()
		if m.draw && w.measured() {
			w.out.columns = append(w.out.columns, Column{At: now, Demand: demand, Asked: asked, Missed: missed, Ready: w.ready})
		}
		if !now.Before(step) {
			step = step.Add(m.Step)
		}
	}
	return w.out
}

// world is the state of a replay.
type world struct {
	model        Model
	now          time.Time
	measureFrom  time.Time
	target       int32
	ready        int32
	coming       []arrival // ascending
	onTheWay     int32
	lastIncident int64
	out          outcome
}

type arrival struct {
	at       time.Time
	replicas int32
}

// next is the next step, or the strategy's own time if that is earlier.
func (w *world) next(step, wake time.Time) time.Time {
	if wake.After(w.now) && wake.Before(step) {
		return wake
	}
	return step
}

func (w *world) measured() bool { return !w.now.Before(w.measureFrom) }

// advance lets time pass up to now: replicas are paid for and those on their way come.
func (w *world) advance(now time.Time) {
	if w.now.IsZero() {
		w.now = now
		return
	}
	passed := now.Sub(w.now)
	if w.measured() {
		w.out.replicaHours += float64(w.ready+w.onTheWay) * passed.Hours()
	}
	w.now = now
	for len(w.coming) > 0 && !w.coming[0].at.After(now) {
		w.ready += w.coming[0].replicas
		w.onTheWay -= w.coming[0].replicas
		w.coming = slices.Delete(w.coming, 0, 1)
	}
}

// serve gives pods what there is and returns how many found nothing ready.
func (w *world) serve(asked int) int {
	hits := int32(min(asked, int(w.ready)))
	w.ready -= hits
	missed := asked - int(hits)
	left := missed
	for ; left > 0 && len(w.coming) > 0; left -= w.take(left) {
	}
	w.wait(w.model.Lead, left)
	if w.measured() {
		w.out.asked += asked
		w.out.missed += missed
		if hour := w.now.Unix() / 3600; missed > 0 && hour != w.lastIncident {
			w.lastIncident = hour
			w.out.incidents++
		}
	}
	return missed
}

// take gives so many pods at most the replicas that come next, and returns how many got one.
func (w *world) take(pods int) int {
	taken := min(int32(min(pods, math.MaxInt32)), w.coming[0].replicas)
	w.wait(w.coming[0].at.Sub(w.now), int(taken))
	w.coming[0].replicas -= taken
	w.onTheWay -= taken
	if w.coming[0].replicas == 0 {
		w.coming = slices.Delete(w.coming, 0, 1)
	}
	return int(taken)
}

// wait takes note of pods that wait so long for a node.
func (w *world) wait(long time.Duration, pods int) {
	if pods > 0 && w.measured() {
		w.out.waits[long+w.model.WarmStart] += pods
	}
}

// adjust orders what the pool lacks, or gives up what is too much: first what has not come yet.
func (w *world) adjust() {
	if lack := w.target - w.ready - w.onTheWay; lack > 0 {
		w.coming = append(w.coming, arrival{at: w.now.Add(w.model.Lead), replicas: lack})
		w.onTheWay += lack
	}
	for surplus := w.ready + w.onTheWay - w.target; surplus > 0 && len(w.coming) > 0; surplus = w.ready + w.onTheWay - w.target {
		last := &w.coming[len(w.coming)-1]
		dropped := min(surplus, last.replicas)
		last.replicas -= dropped
		w.onTheWay -= dropped
		if last.replicas == 0 {
			w.coming = w.coming[:len(w.coming)-1]
		}
		w.linger(dropped)
	}
	if surplus := w.ready - w.target; surplus > 0 {
		w.ready -= surplus
		w.linger(surplus)
	}
}

func (w *world) linger(replicas int32) {
	if w.measured() {
		w.out.replicaHours += float64(replicas) * w.model.Linger.Hours()
	}
}

// wait is the q-quantile of the waits of all pods, those that found a replica too.
func (o outcome) wait(q float64, warmStart time.Duration) time.Duration {
	if o.asked == 0 {
		return 0
	}
	rank := max(0, int(math.Ceil(q*float64(o.asked)-1e-9))-1)
	hits := o.asked - o.missed
	if rank < hits {
		return warmStart
	}
	longest := time.Duration(0)
	for _, longest = range slices.Sorted(maps.Keys(o.waits)) {
		if hits += o.waits[longest]; rank < hits {
			break
		}
	}
	return longest
}

// ceil rounds up, except for what a float adds by itself.
func ceil(replicas float64) float64 { return math.Ceil(replicas - 1e-9) }
