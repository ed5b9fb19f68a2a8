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
	// steer is set when the last gate goes and there is room on a warm node.
	steer *corev1.PreferredSchedulingTerm
	// require is the label that the pod's node must have; set beside steer under placement Required.
	require string
	// again is when to look again although nothing happens: the next deadline. Zero: never.
	again time.Time
	// unknown are gangs of which the API server must be asked first.
	unknown []gangQuestion
	// wake are the members of a gang whose lift was decided just now.
	wake []types.NamespacedName
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
	left := 0
	for _, gate := range pod.Gates {
		if slices.Contains(pod.lifted, gate) {
			continue
		}
		policy := w.policies[gate]
		if policy == nil || (policy.NeedsFleet() && !w.sources.fleetReady()) || w.unknown(&d, policy) {
			left++
			continue
		}
		g := gateDecision{policy: policy, verdict: policy.Evaluate(pod.Pod, w.facts(), now)}
		if g.verdict.Outcome == gates.Wait {
			left++
			d.keep(g)
			continue
		}
		d.lift = append(d.lift, g)
		w.release(&d, g)
	}
	if left > 0 {
		d.keepForLast(now)
		pod.prefers = pod.prefers || d.asksFor(v1alpha1.PlacementPreferred)
	} else {
		w.steer(&d, pod.prefers, now)
	}
	for _, g := range d.lift {
		pod.lifted = append(pod.lifted, g.policy.GateName)
	}
	return d, true
}

func (w *waitlist) facts() gates.Facts {
	return gates.Facts{
		Exists: w.sources.exists, Object: w.sources.object, ReadyEndpoints: w.sources.readyEndpoints, Fleet: w.fleet, Gang: w.gang,
	}
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
	if !ok || g.verdict.Outcome != gates.Lift || w.gangs[name].released {
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
	if !g.policy.Hold && (d.again.IsZero() || g.verdict.Deadline.Before(d.again)) {
		d.again = g.verdict.Deadline
	}
}

// keepForLast leaves the gates of placement Required on a pod that has others: an affinity that must hold can be added
// only with the last gate. At its deadline such a gate goes all the same, because another controller may wait for that.
func (d *decision) keepForLast(now time.Time) {
	lift := d.lift
	d.lift = nil
	for _, g := range lift {
		switch {
		case g.verdict.Outcome != gates.Lift || g.policy.Placement != v1alpha1.PlacementRequired:
			d.lift = append(d.lift, g)
		case !g.policy.Hold && !now.Before(g.verdict.Deadline):
			g.verdict.Outcome = gates.Release
			g.verdict.Unmet = []gates.Unmet{{Dependency: gates.Dependency{Kind: gates.KindLastGate}}}
			d.lift = append(d.lift, g)
		default:
			g.verdict.Outcome = gates.Wait
			g.verdict.Unmet = []gates.Unmet{{Dependency: gates.Dependency{Kind: gates.KindLastGate}}}
			d.keep(g)
		}
	}
}

// asksFor says whether a policy that lets the pod go wants that placement.
func (d *decision) asksFor(placement v1alpha1.Placement) bool {
	return slices.ContainsFunc(d.lift, func(g gateDecision) bool {
		return g.verdict.Outcome == gates.Lift && g.policy.Placement == placement
	})
}

// steer finds a warm node for a pod that loses its last gate, when a policy that lets it go wants that, or one that let
// an earlier gate of it go.
func (w *waitlist) steer(d *decision, prefers bool, now time.Time) {
	if d.asksFor(v1alpha1.PlacementRequired) {
		if term, ok := w.fleet.ReserveLabelled(d.pod, now); ok {
			d.steer, d.require = &term, d.pod.WarmLabel()
		}
		return
	}
	if !prefers && !d.asksFor(v1alpha1.PlacementPreferred) {
		return
	}
	if term, ok := w.fleet.Reserve(d.pod, now); ok {
		d.steer = &term
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
