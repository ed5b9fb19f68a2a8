package room

import (
	"slices"

	corev1 "k8s.io/api/core/v1"

	"headstart.dev/internal/resources"
)

// Pod is who takes room on a node: it is bound, nominated, or about to be sent there.
type Pod struct {
	Requests resources.List
	Priority int32
	Ports    []Port
}

// Equal says whether both take the same.
func (p Pod) Equal(other Pod) bool {
	if p.Priority != other.Priority || len(p.Requests) != len(other.Requests) || !slices.Equal(p.Ports, other.Ports) {
		return false
	}
	for name, amount := range p.Requests {
		if had, ok := other.Requests[name]; !ok || had != amount {
			return false
		}
	}
	return true
}

// Takes is what a pod of the demand takes of a node.
func (d *Demand) Takes() Pod { return Pod{Requests: d.Requests, Priority: d.Priority, Ports: d.Ports} }

// Usage is what the pods of a node take, apart by priority. Nodes have two or three priorities.
type Usage struct {
	levels []level
	ports  []portUse
}

type level struct {
	priority int32
	pods     int
	used     resources.List
}

type portUse struct {
	port     Port
	priority int32
}

// Empty says that nobody takes anything.
func (u *Usage) Empty() bool { return len(u.levels) == 0 }

// Add puts a pod on the node.
func (u *Usage) Add(p Pod) {
	at := slices.IndexFunc(u.levels, func(l level) bool { return l.priority == p.Priority })
	if at < 0 {
		at = len(u.levels)
		u.levels = append(u.levels, level{priority: p.Priority, used: make(resources.List, len(p.Requests))})
	}
	u.levels[at].pods++
	u.levels[at].used.Add(p.Requests, 1)
	for _, port := range p.Ports {
		u.ports = append(u.ports, portUse{port, p.Priority})
	}
}

// Remove takes a pod off that was added.
func (u *Usage) Remove(p Pod) {
	at := slices.IndexFunc(u.levels, func(l level) bool { return l.priority == p.Priority })
	if at < 0 {
		return
	}
	u.levels[at].used.Add(p.Requests, -1)
	if u.levels[at].pods--; u.levels[at].pods == 0 {
		u.levels = slices.Delete(u.levels, at, at+1)
	}
	for _, port := range p.Ports {
		if i := slices.Index(u.ports, portUse{port, p.Priority}); i >= 0 {
			u.ports = slices.Delete(u.ports, i, i+1)
		}
	}
}

// Slots says how many pods of the demand the scheduler could put on the node, up to enough: pods that they would preempt
// do not count. It does not ask whether the node admits them. more are further users to count; nil ones are nobody.
func (u *Usage) Slots(n *Node, d *Demand, enough int, more ...*Usage) int {
	return u.slots(n, d, enough, d.inTheWay, more)
}

// Free is Slots without preemption: the scheduler looks for such nodes first.
func (u *Usage) Free(n *Node, d *Demand, enough int) int {
	return u.slots(n, d, enough, func(int32) bool { return true }, nil)
}

func (u *Usage) slots(n *Node, d *Demand, enough int, counts func(int32) bool, more []*Usage) int {
	if enough <= 0 {
		return 0
	}
	most := int64(enough)
	for name, amount := range d.Requests {
		if amount <= 0 || n.mayGain(name) {
			continue
		}
		left := n.Allocatable[name] - u.taken(name, counts)
		for _, other := range more {
			left -= other.taken(name, counts)
		}
		most = min(most, left/amount)
	}
	if len(d.Ports) == 0 {
		return int(max(most, 0))
	}
	if u.clash(d, counts) || slices.ContainsFunc(more, func(other *Usage) bool { return other.clash(d, counts) }) {
		return 0
	}
	return int(max(min(most, 1), 0))
}

func (u *Usage) taken(name corev1.ResourceName, counts func(int32) bool) int64 {
	sum := int64(0)
	for i := range u.levels {
		if counts(u.levels[i].priority) {
			sum += u.levels[i].used[name]
		}
	}
	return sum
}

func (u *Usage) clash(d *Demand, counts func(int32) bool) bool {
	return slices.ContainsFunc(u.ports, func(taken portUse) bool {
		return counts(taken.priority) && slices.ContainsFunc(d.Ports, taken.port.clashes)
	})
}
