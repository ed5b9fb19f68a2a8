package gates

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"headstart.dev/internal/room"
)

// holds says whether room is held for the pod on a node that is there.
func (f *Fleet) holds(pod *Pod) bool {
	held, ok := f.pods[pod.UID]
	return ok && f.nodes[held.node] != nil && f.nodes[held.node].Node != nil
}

// withRoom counts warm nodes that have room for the pod, up to enough.
func (f *Fleet) withRoom(shape *Shape, enough int) int {
	m := f.look(shape)
	if m.full == int64(f.room) {
		return 0
	}
	count := 0
	for i := range m.warm {
		if m.warm[(m.next+i)%len(m.warm)].hasRoom(shape) {
			if count++; count >= enough {
				return count
			}
		}
	}
	if count == 0 {
		m.full = int64(f.room)
	}
	return count
}

// Reserve chooses a warm node with room for the pod, holds the room until the pod is bound, deleted or ReservationTTL
// has passed, and returns the preference that leads the scheduler there. A pod that has a reservation keeps it. ok is
// false when no warm node has room.
func (f *Fleet) Reserve(pod *Pod, now time.Time) (term corev1.PreferredSchedulingTerm, ok bool) {
	return f.reserve(pod, now, func(*node) bool { return true })
}

func (f *Fleet) reserve(pod *Pod, now time.Time, allowed func(*node) bool) (term corev1.PreferredSchedulingTerm, ok bool) {
	if held, ok := f.pods[pod.UID]; ok {
		if n := f.nodes[held.node]; n != nil && n.Node != nil && allowed(n) {
			return f.preference(n), true
		}
		f.Forget(pod.UID)
	}
	m := f.look(pod.Shape)
	if m.full == int64(f.room) {
		return term, false
	}
	// The scheduler preempts nobody while a node is left where nobody need go.
	at := f.chooseWarm(pod.Shape, func(n *node) bool { return n.isFree(pod.Shape) && allowed(n) })
	if at < 0 {
		at = f.chooseWarm(pod.Shape, func(n *node) bool { return n.hasRoom(pod.Shape) && allowed(n) })
	}
	if at < 0 {
		return term, false
	}
	m.next = (at + 1) % len(m.warm)
	f.hold(pod, m.warm[at].Name(), now)
	return f.preference(m.warm[at]), true
}

// chooseWarm finds the next warm node that will do, -1 if there is none. Two nodes with one hostname: one of them wants to
// attract what is meant for the other.
func (f *Fleet) chooseWarm(shape *Shape, will func(*node) bool) int {
	m := &shape.memo
	for i := range m.warm {
		at := (m.next + i) % len(m.warm)
		if n := m.warm[at]; f.hostnames[n.hostname()] <= 1 && will(n) {
			return at
		}
	}
	return -1
}

// Adopt holds the room of a pod that was steered to a node by an earlier run of the controller and is not bound yet.
func (f *Fleet) Adopt(pod *Pod, now time.Time) {
	if _, ok := f.pods[pod.UID]; ok {
		return
	}
	for i := range pod.Preferred {
		term := &pod.Preferred[i]
		if term.Weight != steeringWeight || len(term.Preference.MatchExpressions) != 1 {
			continue
		}
		want := term.Preference.MatchExpressions[0]
		if want.Key != corev1.LabelHostname || want.Operator != corev1.NodeSelectorOpIn || len(want.Values) != 1 {
			continue
		}
		for _, n := range f.warmNodes(pod.Shape) {
			if n.hostname() == want.Values[0] {
				f.hold(pod, n.Name(), now)
				return
			}
		}
	}
}

func (f *Fleet) hold(pod *Pod, name string, now time.Time) {
	f.Leave(pod.UID)
	f.occupy(pod.UID, occupant{node: name, takes: pod.Takes(), reserved: true})
	f.expiry = append(f.expiry, reservation{pod: pod.UID, end: now.Add(ReservationTTL)})
}

// Nominate takes note that the scheduler makes room for the pod on a node: that room is the pod's, for all that do not
// outrank it.
func (f *Fleet) Nominate(pod *Pod) []Dependency {
	if pod.Nominated == "" {
		return nil
	}
	freed := f.Bind(pod.UID, pod.Nominated, pod.Takes())
	held := f.pods[pod.UID]
	held.nominated = true
	f.pods[pod.UID] = held
	return freed
}

// Withdraw takes note that the scheduler no longer makes room for a pod.
func (f *Fleet) Withdraw(pod types.UID) []Dependency {
	if f.pods[pod].nominated {
		return f.Forget(pod)
	}
	return nil
}

// Unseen takes note that a pod that was nominated is not among the unscheduled any more: it is bound, which another watch
// says in a moment, or gone. Until that is known its room is held as one that is steered has it.
func (f *Fleet) Unseen(pod types.UID, now time.Time) {
	if held := f.pods[pod]; held.nominated {
		held.nominated, held.reserved = false, true
		f.pods[pod] = held
		f.expiry = append(f.expiry, reservation{pod: pod, end: now.Add(ReservationTTL)})
	}
}

// steeringWeight is the highest that the API allows. The scheduler's NodeAffinity score then outweighs its ImageLocality
// score. Source: kubernetes pkg/scheduler/apis/config/v1/default_plugins.go@v1.37.2 (weights 2 and 1).
const steeringWeight = 100

// preference leads to one node. The label is the node's hostname: Karpenter ignores pods with a preference by field.
// Source: sigs.k8s.io/karpenter pkg/controllers/provisioning/provisioner.go@v1.15.0 (validateNodeSelectorTerm).
func (f *Fleet) preference(n *node) corev1.PreferredSchedulingTerm {
	requirement := corev1.NodeSelectorRequirement{
		Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{n.hostname()},
	}
	term := corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{requirement}}
	if n.hostname() == "" {
		requirement.Key, requirement.Values = metaNameField, []string{n.Name()}
		term = corev1.NodeSelectorTerm{MatchFields: []corev1.NodeSelectorRequirement{requirement}}
	}
	return corev1.PreferredSchedulingTerm{Weight: steeringWeight, Preference: term}
}

const metaNameField = "metadata.name"

// Bind takes note of a bound pod and ends its reservation. It returns what may have come true: room on a node that was
// held for the pod and is not needed.
func (f *Fleet) Bind(pod types.UID, nodeName string, takes room.Pod) []Dependency {
	held, known := f.pods[pod]
	same := known && held.node == nodeName && held.takes.Equal(takes)
	if same && !held.reserved {
		return nil
	}
	freed := f.Forget(pod)
	f.Leave(pod)
	f.occupy(pod, occupant{node: nodeName, takes: takes})
	if same {
		return nil
	}
	return freed
}

// Forget takes note that a pod is gone or has finished. It returns what may have come true by the room it leaves.
func (f *Fleet) Forget(pod types.UID) []Dependency {
	held, ok := f.pods[pod]
	if !ok {
		return nil
	}
	delete(f.pods, pod)
	n := f.at(held.node)
	n.used.Remove(held.takes)
	f.forgetEmpty(held.node)
	f.room++
	f.better[n] = struct{}{}
	return improved(n)
}

// Release ends a pod's reservation, if it has one; a bound pod is left alone.
func (f *Fleet) Release(pod types.UID) []Dependency {
	if held, ok := f.pods[pod]; ok && held.reserved {
		return f.Forget(pod)
	}
	return nil
}

// Expire ends the reservations whose time has come. It returns what may have come true, and when to call again: the
// zero time when there is no reservation.
func (f *Fleet) Expire(now time.Time) (freed []Dependency, next time.Time) {
	done := 0
	for _, r := range f.expiry {
		held, ok := f.pods[r.pod]
		waiting := ok && held.reserved
		if waiting && r.end.After(now) {
			next = r.end
			break
		}
		if waiting {
			freed = append(freed, f.Forget(r.pod)...)
		}
		done++
	}
	f.expiry = slices.Delete(f.expiry, 0, done)
	return freed, next
}

func (f *Fleet) occupy(pod types.UID, o occupant) {
	f.pods[pod] = o
	n := f.at(o.node)
	n.used.Add(o.takes)
	f.unseatSome(n)
}

// Improved says whether one of the nodes on which something became free or warm since Settled has all images of the shape
// warm and room for one more such pod. Who waits and found no room before need not look at all nodes again.
func (f *Fleet) Improved(shape *Shape) bool {
	m := f.look(shape)
	for n := range f.better {
		if n.Node != nil && m.marks[n.slot]&warmHere != 0 && n.hasRoom(shape) {
			return true
		}
	}
	return false
}

// Settled says that everybody has asked.
func (f *Fleet) Settled() { clear(f.better) }

// HasRoom says whether some node has all images of the shape warm and room for one more such pod.
func (f *Fleet) HasRoom(shape *Shape) bool { return f.withRoom(shape, 1) > 0 }

// SteeredTo names the node to which a preference that Reserve returned leads.
func SteeredTo(term corev1.PreferredSchedulingTerm) string {
	for _, r := range append(term.Preference.MatchExpressions, term.Preference.MatchFields...) {
		if len(r.Values) == 1 {
			return r.Values[0]
		}
	}
	return ""
}

// preferredNodes is how many nodes one preference names at most: the pod has to be written and read with them.
const preferredNodes = 32

// PreferWarm leads to the warm nodes that have room for the pod, without holding any. ok is false when there is none.
func (f *Fleet) PreferWarm(shape *Shape) (term corev1.PreferredSchedulingTerm, ok bool) {
	var hosts []string
	for _, n := range f.warmNodes(shape) {
		if host := n.hostname(); host != "" && f.hostnames[host] == 1 && n.hasRoom(shape) {
			hosts = append(hosts, host)
		}
		if len(hosts) == preferredNodes {
			break
		}
	}
	if len(hosts) == 0 {
		return term, false
	}
	return corev1.PreferredSchedulingTerm{Weight: steeringWeight, Preference: corev1.NodeSelectorTerm{
		MatchExpressions: []corev1.NodeSelectorRequirement{{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: hosts}},
	}}, true
}
