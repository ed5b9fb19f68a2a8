package gates

import (
	"cmp"
	"slices"
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
// held in the fleet for every member, and the gate must be lifted from each of them.
func (p *Policy) EvaluateGang(name Dependency, gang Gang, facts Facts, now time.Time) []Unmet {
	if gang.Past || gang.Released {
		return nil
	}
	if len(gang.Waiting) == 0 || len(gang.Waiting) < int(p.gang.Size) || p.gangless(gang.Waiting) {
		return []Unmet{{Dependency: name, Have: len(gang.Waiting), Want: int(p.gang.Size)}}
	}
	for _, member := range gang.Waiting {
		if unmet := p.alone(member, facts); len(unmet) > 0 {
			return unmet
		}
	}
	if !facts.Fleet.holdTogether(gang.Waiting, p.Placement == v1alpha1.PlacementRequired, now) {
		return []Unmet{{Dependency: Dependency{Kind: KindRoom}, Seen: len(gang.Waiting), Want: len(gang.Waiting)}}
	}
	return nil
}

// gangless says whether the pods lack the label that would make them a gang.
func (p *Policy) gangless(pods []*Pod) bool { return pods[0].Labels[p.gang.Label] == "" }

// holdTogether holds room for all pods or for none. Large pods choose first, and each takes a warm node before a cold one;
// with labelled only warm nodes with the pod's WarmLabel count.
func (f *Fleet) holdTogether(pods []*Pod, labelled bool, now time.Time) bool {
	order := slices.Clone(pods)
	slices.SortStableFunc(order, func(a, b *Pod) int {
		return cmp.Or(
			cmp.Compare(b.Requests[corev1.ResourceCPU], a.Requests[corev1.ResourceCPU]),
			cmp.Compare(b.Requests[corev1.ResourceMemory], a.Requests[corev1.ResourceMemory]),
		)
	})
	candidates := map[*Shape][]*node{}
	for i, pod := range order {
		if f.holds(pod) {
			continue
		}
		if _, ok := candidates[pod.Shape]; !ok {
			candidates[pod.Shape] = f.roomyFirst(pod.Shape, labelled)
		}
		at := slices.IndexFunc(candidates[pod.Shape], func(n *node) bool { return n.hasRoom(pod.Shape) })
		if at < 0 {
			for _, done := range order[:i] {
				f.Release(done.UID)
			}
			return false
		}
		f.hold(pod.UID, candidates[pod.Shape][at].Name(), pod.Requests, now)
	}
	return true
}

// roomyFirst lists the nodes where the pod could run: warm ones by name, then the others by name.
func (f *Fleet) roomyFirst(shape *Shape, labelled bool) []*node {
	warm := slices.Clone(f.warmNodes(shape))
	if labelled {
		label := shape.WarmLabel()
		return slices.DeleteFunc(warm, func(n *node) bool { return !n.labelled(label) })
	}
	var cold []*node
	for _, n := range f.nodes {
		if n.couldRun(shape) && !slices.Contains(warm, n) {
			cold = append(cold, n)
		}
	}
	byName(cold)
	return append(warm, cold...)
}
