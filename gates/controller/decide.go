package controller

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"headstart.dev/gates"
	"headstart.dev/gates/v1alpha1"
)

// gateDecision is what is to be done with one gate of a pod.
type gateDecision struct {
	policy  *gates.Policy
	verdict gates.Verdict
}

// decision is what is to be done with a pod.
type decision struct {
	pod *gates.Pod
	// lift are the gates to remove now; wait those that stay.
	lift, wait []gateDecision
	// steer is set when our last gate goes and there is room on a warm node.
	steer *corev1.PreferredSchedulingTerm
	// require is the label that the pod's node must have; set beside steer under placement Required.
	require string
	// again is when to look again although nothing happens: the next deadline. Zero: never.
	again time.Time
	// unknown are gangs of which the API server must be asked first.
	unknown []gangQuestion
	// wake are the members of a gang whose lift was decided just now.
	wake []types.NamespacedName
	// others says that somebody else holds the pod too.
	others bool
}

type gangQuestion struct {
	gang gates.Dependency
	gate string
}

// decide looks at a pod. It reserves room for a pod that is to be steered; undo gives it back.
func (w *waitlist) decide(key types.NamespacedName, now time.Time) (d decision, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	pod := w.pods[key]
	if pod == nil {
		return d, false
	}
	d.pod = pod.Pod
	pod.woken = false
	var ours []*gates.Policy
	for _, gate := range pod.Gates {
		switch policy := w.policies[gate]; {
		case slices.Contains(pod.lifted, gate):
		case policy == nil:
			d.others = true
		default:
			ours = append(ours, policy)
		}
	}
	clock := pod.clock.read(d.others, pod.Written, now)
	for _, policy := range ours {
		g := gateDecision{policy: policy, verdict: policy.Evaluate(pod.Pod, w.facts(&d, policy), clock)}
		if g.verdict.Outcome == gates.Wait {
			d.keep(g)
			continue
		}
		d.lift = append(d.lift, g)
		w.release(&d, g)
	}
	w.giveUp(&d, now)
	if d.others || len(d.wait) > 0 {
		w.keepForLast(&d, now)
		pod.prefers = pod.prefers || d.asksFor(v1alpha1.PlacementPreferred)
	}
	w.steer(&d, pod.prefers, now)
	pod.missing = nil
	for _, g := range d.wait {
		pod.miss(g)
	}
	for _, g := range d.lift {
		pod.lifted = append(pod.lifted, g.policy.GateName)
	}
	if len(d.wait) == 0 {
		w.fleet.Leave(pod.UID)
	}
	return d, true
}

// miss remembers what a gate waits for.
func (p *waiting) miss(g gateDecision) {
	if p.missing == nil {
		p.missing = map[string][]gates.Unmet{}
	}
	p.missing[g.policy.GateName] = g.verdict.Unmet
}

// giveUp lifts the gates of a pod that waits for nothing but nodes where none will come while it is gated.
func (w *waitlist) giveUp(d *decision, now time.Time) {
	if d.others || len(d.wait) == 0 || slices.ContainsFunc(d.wait, func(g gateDecision) bool { return !g.verdict.WantsNodes() }) {
		w.fleet.Leave(d.pod.UID)
		return
	}
	seated := w.fleet.Await(d.pod)
	for _, g := range d.wait {
		vain, again := g.policy.InVain(d.pod, w.fleet, seated, now)
		if !vain {
			d.lookAgain(again)
			return
		}
	}
	for _, g := range d.wait {
		g.verdict.Outcome = gates.Overflow
		d.lift = append(d.lift, g)
		w.release(d, g)
	}
	d.wait = nil
}

// facts are those for one policy. A question that must be answered first is noted.
func (w *waitlist) facts(d *decision, policy *gates.Policy) gates.Facts {
	out := gates.Facts{
		Exists: w.sources.exists, Object: w.sources.object, ReadyEndpoints: w.sources.readyEndpoints, Fleet: w.fleet, Gang: w.gang,
		FleetProblem: w.sources.fleetProblem(),
	}
	if w.unknown(d, policy) && out.FleetProblem == "" {
		out.FleetProblem = "the members of the gang have not been looked for yet"
	}
	return out
}

// unknown notes a question that must be answered before the policy can be evaluated.
func (w *waitlist) unknown(d *decision, policy *gates.Policy) bool {
	name, ok := policy.Gang(d.pod)
	if !ok || w.gangs[name].known {
		return false
	}
	d.unknown = append(d.unknown, gangQuestion{name, policy.GateName})
	return true
}

// release makes the decision on one member of a gang that of all: none of the others is judged again.
func (w *waitlist) release(d *decision, g gateDecision) {
	name, ok := g.policy.Gang(d.pod)
	if !ok || (g.verdict.Outcome != gates.Lift && g.verdict.Outcome != gates.Overflow) || w.gangs[name].released {
		return
	}
	w.gangs[name].released = true
	for key := range w.waiters[name] {
		if key != d.pod.Key() {
			d.wake = append(d.wake, key)
		}
	}
}

// keep leaves a gate on the pod.
func (d *decision) keep(g gateDecision) {
	d.wait = append(d.wait, g)
	if !g.policy.Hold && !g.policy.Deleted() {
		d.lookAgain(g.verdict.Deadline)
	}
}

// lookAgain asks for a look at a time; zero is none.
func (d *decision) lookAgain(at time.Time) {
	if !at.IsZero() {
		d.again = sooner(d.again, at)
	}
}

// keepForLast leaves the gates of placement Required on a pod that has others, so that it is led to what is warm at the
// end. When as long as its deadline has passed such a gate goes all the same, steered to what is warm now: another
// controller may wait for that.
func (w *waitlist) keepForLast(d *decision, now time.Time) {
	lift := d.lift
	d.lift = nil
	for _, g := range lift {
		end := d.pod.Created.Add(g.policy.Deadline)
		if g.verdict.Outcome != gates.Lift || g.policy.Placement != v1alpha1.PlacementRequired || !now.Before(end) {
			d.lift = append(d.lift, g)
			continue
		}
		g.verdict.Outcome = gates.Wait
		g.verdict.Unmet = []gates.Unmet{{Dependency: gates.Dependency{Kind: gates.KindLastGate}}}
		d.wait = append(d.wait, g)
		d.lookAgain(end)
	}
}

// asksFor says whether a policy that lets the pod go wants that placement.
func (d *decision) asksFor(placement v1alpha1.Placement) bool {
	return slices.ContainsFunc(d.lift, func(g gateDecision) bool {
		return g.verdict.Outcome == gates.Lift && g.policy.Placement == placement
	})
}

// steer leads a pod to what is warm, when a policy that lets it go wants that, or one that let an earlier gate of it go. A
// pod whose last gate goes is led to one node, with room held for it there. One that others hold still may be gated for
// hours: it is led to all nodes that are warm now, while a gate lets its affinity be written.
func (w *waitlist) steer(d *decision, prefers bool, now time.Time) {
	switch required := d.asksFor(v1alpha1.PlacementRequired); {
	case len(d.lift) == 0:
	case required:
		if term, ok := w.fleet.ReserveLabelled(d.pod, now); ok {
			d.steer, d.require = &term, d.pod.WarmLabel()
		}
	case len(d.wait) > 0 || (!prefers && !d.asksFor(v1alpha1.PlacementPreferred)):
	case d.others:
		if term, ok := w.fleet.PreferWarm(d.pod.Shape); ok {
			d.steer = &term
		}
	default:
		if term, ok := w.fleet.Reserve(d.pod, now); ok {
			d.steer = &term
		}
	}
}

// undo takes back a decision that was not carried out. A gang that was released stays so: it is all or nothing.
func (w *waitlist) undo(d decision) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if d.steer != nil {
		w.fleet.Release(d.pod.UID)
	}
	pod := w.pods[d.pod.Key()]
	if pod == nil || pod.UID != d.pod.UID {
		return
	}
	for _, g := range d.lift {
		pod.lifted = slices.DeleteFunc(pod.lifted, func(gate string) bool { return gate == g.policy.GateName })
	}
}
