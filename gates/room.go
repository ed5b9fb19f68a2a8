package gates

import (
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"headstart.dev/internal/resources"
)

// memo remembers for a shape what a look at all nodes found, so that ten thousand pods of one shape cost one look.
type memo struct {
	fleet *Fleet
	fixed uint64
	// warm are the nodes where all images of the shape are warm and the pod could run.
	warm []*node
	// next is where the search for room goes on: pods are spread over the warm nodes.
	next int
	// conditions counts, by condition, the nodes that have it and where the pod could run.
	conditions map[string]int
	// full is the room count at which no warm node had room; -1 when that has not been seen.
	full int64
}

// warmNodes lists the nodes where every image of the shape is warm and the pod could run, by name.
func (f *Fleet) warmNodes(shape *Shape) []*node {
	m := &shape.memo
	if m.fleet == f && m.fixed == f.fixed {
		return m.warm
	}
	*m = memo{fleet: f, fixed: f.fixed, full: -1}
	if len(shape.Images) == 0 {
		return nil
	}
	rarest := shape.Images[0]
	for _, image := range shape.Images {
		if len(f.warm[image]) < len(f.warm[rarest]) {
			rarest = image
		}
	}
	for name, n := range f.warm[rarest] {
		everything := !slices.ContainsFunc(shape.Images, func(image string) bool { return f.warm[image][name] == nil })
		if everything && n.couldRun(shape) {
			m.warm = append(m.warm, n)
		}
	}
	byName(m.warm)
	return m.warm
}

func byName(nodes []*node) {
	slices.SortFunc(nodes, func(a, b *node) int { return strings.Compare(a.Name(), b.Name()) })
}

// withCondition counts the nodes that have a condition and where the pod could run.
func (f *Fleet) withCondition(shape *Shape, condition string) int {
	f.warmNodes(shape) // makes the memo one of now
	if count, ok := shape.memo.conditions[condition]; ok {
		return count
	}
	count := 0
	for _, n := range f.nodes {
		if n.Node != nil && n.conditions.has(condition) && n.couldRun(shape) {
			count++
		}
	}
	if shape.memo.conditions == nil {
		shape.memo.conditions = map[string]int{}
	}
	shape.memo.conditions[condition] = count
	return count
}

// holds says whether room is held for the pod on a node that is there.
func (f *Fleet) holds(pod *Pod) bool {
	held, ok := f.pods[pod.UID]
	return ok && f.nodes[held.node] != nil && f.nodes[held.node].Node != nil
}

// withRoom counts warm nodes that have room for the pod, up to enough.
func (f *Fleet) withRoom(shape *Shape, enough int) int {
	warm := f.warmNodes(shape)
	if shape.memo.full == int64(f.room) {
		return 0
	}
	count := 0
	for i := range warm {
		if warm[(shape.memo.next+i)%len(warm)].hasRoom(shape) {
			if count++; count >= enough {
				return count
			}
		}
	}
	if count == 0 {
		shape.memo.full = int64(f.room)
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
	warm := f.warmNodes(pod.Shape)
	m := &pod.memo
	if m.full == int64(f.room) {
		return term, false
	}
	for i := range warm {
		at := (m.next + i) % len(warm)
		n := warm[at]
		// Two nodes with one hostname: one of them wants to attract what is meant for the other.
		if !n.hasRoom(pod.Shape) || f.hostnames[n.hostname()] > 1 || !allowed(n) {
			continue
		}
		m.next = (at + 1) % len(warm)
		f.hold(pod.UID, n.Name(), pod.Requests, now)
		return f.preference(n), true
	}
	return term, false
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
				f.hold(pod.UID, n.Name(), pod.Requests, now)
				return
			}
		}
	}
}

func (f *Fleet) hold(pod types.UID, name string, requests resources.List, now time.Time) {
	f.occupy(pod, occupant{node: name, requests: requests, reserved: true})
	f.expiry = append(f.expiry, reservation{pod: pod, end: now.Add(ReservationTTL)})
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
func (f *Fleet) Bind(pod types.UID, nodeName string, requests resources.List) []Dependency {
	held, known := f.pods[pod]
	if known && !held.reserved && held.node == nodeName && maps.Equal(held.requests, requests) {
		return nil
	}
	freed := f.Forget(pod)
	f.occupy(pod, occupant{node: nodeName, requests: requests})
	if known && held.node == nodeName && maps.Equal(held.requests, requests) {
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
	n.used.Add(held.requests, -1)
	n.pods--
	f.forgetEmpty(held.node)
	f.room++
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
	n.used.Add(o.requests, 1)
	n.pods++
}

func (f *Fleet) at(name string) *node {
	n := f.nodes[name]
	if n == nil {
		n = &node{used: resources.List{}}
		f.nodes[name] = n
	}
	return n
}

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
