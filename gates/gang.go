package gates

import (
	"cmp"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"headstart.dev/gates/v1alpha1"
)

// Gang is what is known of a gang at one moment.
type Gang struct {
	// Waiting are the members that have the gate, in any order.
	Waiting []*Pod
	// Past says that a member is beyond the gate already: there is nothing left to hold back for.
	Past bool
	// Released says that the lift of all members has been decided.
	Released bool
}

// EvaluateGang says whether all waiting members of a gang may go. It is all or nothing: when it returns no Unmet, room is
// held in the fleet for as many members as the gang must have, and the gate must be lifted from all of them.
func (p *Policy) EvaluateGang(name Dependency, gang Gang, facts Facts, now time.Time) []Unmet {
	if gang.Past || gang.Released {
		return nil
	}
	size, unmet := p.sizeOf(name, gang.Waiting, facts)
	if unmet != nil {
		return unmet
	}
	if len(gang.Waiting) == 0 || len(gang.Waiting) < size || Nameless(name) {
		return []Unmet{{Dependency: name, Have: len(gang.Waiting), Want: size}}
	}
	for _, member := range gang.Waiting {
		if unmet := p.alone(member, facts); len(unmet) > 0 {
			return unmet
		}
	}
	if !facts.Fleet.holdTogether(gang.Waiting, size, p.Placement == v1alpha1.PlacementRequired, now) {
		return []Unmet{{Dependency: Dependency{Kind: KindRoom}, Seen: len(gang.Waiting), Want: size}}
	}
	return nil
}

// holdTogether holds room for so many of the pods or for none. Large pods choose first, and each takes a warm node before
// a cold one; with labelled only warm nodes with the pod's WarmLabel count. Pods beyond the size take what is left.
func (f *Fleet) holdTogether(pods []*Pod, size int, labelled bool, now time.Time) bool {
	order := slices.Clone(pods)
	slices.SortStableFunc(order, func(a, b *Pod) int {
		return cmp.Or(
			cmp.Compare(b.Requests[corev1.ResourceCPU], a.Requests[corev1.ResourceCPU]),
			cmp.Compare(b.Requests[corev1.ResourceMemory], a.Requests[corev1.ResourceMemory]),
			strings.Compare(a.Name, b.Name),
		)
	})
	candidates, crowds := map[*Shape][]*node{}, map[*Shape]crowd{}
	for _, pod := range order {
		if _, ok := candidates[pod.Shape]; ok {
			continue
		}
		candidates[pod.Shape] = f.roomyFirst(pod.Shape, labelled)
		crowds[pod.Shape] = crowdOver(pod.Shape, candidates[pod.Shape])
		for _, other := range order {
			if other.Shape == pod.Shape && f.holds(other) {
				crowds[pod.Shape].take(f.nodes[f.pods[other.UID].node])
			}
		}
	}
	var held []*Pod
	count := 0
	for _, pod := range order {
		if f.holds(pod) {
			count++
			continue
		}
		nodes, crowd := candidates[pod.Shape], crowds[pod.Shape]
		if at := slices.IndexFunc(nodes, func(n *node) bool { return n.hasRoom(pod.Shape) && crowd.admits(n) }); at >= 0 {
			crowd.take(nodes[at])
			f.hold(pod, nodes[at].Name(), now)
			held = append(held, pod)
			count++
		}
	}
	if count >= max(size, 1) {
		return true
	}
	for _, pod := range held {
		f.Release(pod.UID)
	}
	return false
}

// roomyFirst lists the nodes where the pod could run: warm ones by name, then the others by name.
func (f *Fleet) roomyFirst(shape *Shape, labelled bool) []*node {
	warm := slices.Clone(f.warmNodes(shape))
	if labelled {
		label := shape.WarmLabel()
		return slices.DeleteFunc(warm, func(n *node) bool { return !n.labelled(label) })
	}
	marks := f.look(shape).marks
	var cold []*node
	for slot, n := range f.slots {
		if marks[slot]&(able|warmHere) == able {
			cold = append(cold, n)
		}
	}
	slices.SortFunc(cold, byName)
	return append(warm, cold...)
}
