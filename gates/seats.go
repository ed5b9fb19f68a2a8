package gates

import (
	"k8s.io/apimachinery/pkg/types"
)

// seats remember for each pod that waits for nodes which node it may get: now, or once the node has started. A pod that
// finds none waits in vain, unless somebody brings capacity: no autoscaler sees a gated pod. Room is promised once, so that
// of a hundred pods and room for ten ninety are seen by an autoscaler, as without gates.
type seats struct {
	byPod map[types.UID]*node
	// lost are pods whose node has gone or filled up; they want another look.
	lost []types.NamespacedName
	left int64
}

// version moves when a search that failed may succeed.
func (s *seats) version(f *Fleet) int64 { return int64(f.room) + s.left }

func newSeats() seats { return seats{byPod: map[types.UID]*node{}} }

// Await finds a node on which the pod may run, now or soon, and promises it the room. A pod that has a promise keeps it. It
// says false when there is no such node.
func (f *Fleet) Await(pod *Pod) bool {
	if f.seats.byPod[pod.UID] != nil {
		return true
	}
	m := f.look(pod.Shape)
	if m.hopeless == f.seats.version(f) {
		return false
	}
	for i := range f.slots {
		at := (m.nextSeat + i) % len(f.slots)
		n := f.slots[at]
		if n == nil || m.marks[at]&(able|soon) == 0 || n.used.Slots(&n.Node.Node, &pod.Demand, 1, &n.promised) == 0 {
			continue
		}
		m.nextSeat = at
		n.promised.Add(pod.Takes())
		if n.waiting == nil {
			n.waiting = map[types.UID]*Pod{}
		}
		n.waiting[pod.UID] = pod
		f.seats.byPod[pod.UID] = n
		return true
	}
	m.hopeless = f.seats.version(f)
	return false
}

// Leave gives back what the pod was promised.
func (f *Fleet) Leave(pod types.UID) {
	n := f.seats.byPod[pod]
	if n == nil {
		return
	}
	n.promised.Remove(n.waiting[pod].Takes())
	delete(n.waiting, pod)
	delete(f.seats.byPod, pod)
	f.seats.left++
}

// unseatSome takes promises back that a node can no longer keep.
func (f *Fleet) unseatSome(n *node) {
	for uid, pod := range n.waiting {
		if n.Node != nil && (n.Admits(&pod.Demand) || n.WillAdmit(&pod.Demand)) && f.keeps(n, pod) {
			continue
		}
		f.Leave(uid)
		f.seats.lost = append(f.seats.lost, pod.Key())
	}
}

// keeps says whether a node has room for all that it has promised, seen by one of those that wait.
func (f *Fleet) keeps(n *node, pod *Pod) bool {
	n.promised.Remove(pod.Takes())
	defer n.promised.Add(pod.Takes())
	return n.used.Slots(&n.Node.Node, &pod.Demand, 1, &n.promised) > 0
}

// Lost lists the pods whose promise could not be kept since it was last asked.
func (f *Fleet) Lost() []types.NamespacedName {
	out := f.seats.lost
	f.seats.lost = nil
	return out
}

// CouldRunSoon says whether the pod could run anywhere, now or once a node has started. Unlike Await it leaves out what
// others were promised.
func (f *Fleet) CouldRunSoon(shape *Shape) bool {
	m := f.look(shape)
	for at, n := range f.slots {
		if n != nil && m.marks[at]&(able|soon) != 0 && n.hasRoom(shape) {
			return true
		}
	}
	return false
}

// Agentless says that no node on which the pod could run, now or soon, publishes which images are warm: nobody there can
// make one warm.
func (f *Fleet) Agentless(shape *Shape) bool {
	m := f.look(shape)
	for at, n := range f.slots {
		if n != nil && m.marks[at]&(able|soon) != 0 && n.inventory {
			return false
		}
	}
	return true
}
