package gates

import (
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"headstart.dev/internal/room"
)

// ReservationTTL is how long room is held for a pod that was steered to a node and is not yet bound. The scheduler
// binds in milliseconds when there is room; a pod that has not come by then has gone elsewhere or waits for something else.
const ReservationTTL = 30 * time.Second

// Fleet knows the nodes: what is warm on each, who could run there and what is free. It is not safe for concurrent use.
type Fleet struct {
	nodes     map[string]*node
	warm      map[string]map[string]*node // by image key, then node name
	labels    map[string]map[string]*node // by label of placement Required, then node name
	hostnames map[string]int              // how many nodes claim a hostname label
	// registries counts the nodes that have an image of a registry.
	registries map[string]int
	// better are the nodes on which something became free or warm since somebody last asked.
	better map[*node]struct{}
	pods   map[types.UID]occupant
	expiry []reservation // in order of their end
	seats  seats

	// slots are the nodes that are there, by their number; free are numbers that no node has. changes lists the numbers of
	// nodes that changed so that pods may run elsewhere than before, from the first-th change on: what is remembered of a
	// shape is brought up to date by those alone.
	slots   []*node
	free    []int
	changes []int
	first   int
	// room moves when something becomes free.
	room uint64
}

// node is a Node and the pods that take room on it; without a Node where only the pods are known yet, or still.
type node struct {
	*Node
	key  string // its name, also when it is gone
	slot int
	used room.Usage
	// promised is what pods that wait count on, see seats.
	promised room.Usage
	waiting  map[types.UID]*Pod
}

// occupant is who takes room on a node: a bound pod, one that the scheduler has nominated, or a steered one that has a
// reservation.
type occupant struct {
	node     string
	takes    room.Pod
	reserved bool
	// nominated says that the scheduler makes room for it.
	nominated bool
}

type reservation struct {
	pod types.UID
	end time.Time
}

// NewFleet returns a fleet without nodes.
func NewFleet() *Fleet {
	return &Fleet{
		nodes: map[string]*node{}, warm: map[string]map[string]*node{}, labels: map[string]map[string]*node{}, hostnames: map[string]int{},
		pods: map[types.UID]occupant{}, seats: newSeats(), registries: map[string]int{}, better: map[*node]struct{}{},
	}
}

// SetNode takes a node as it is now. It returns what may have come true by the change: the dependencies whose waiting
// pods want another look. A heartbeat returns nothing.
func (f *Fleet) SetNode(now *Node) []Dependency {
	n := f.at(now.Name())
	if n.Node != nil {
		if sameNode(n.Node, now) {
			n.Node = now
			return nil
		}
		f.unindex(n)
	} else {
		f.seat(n)
	}
	n.Node = now
	f.hostnames[now.hostname()]++
	file(f.warm, now.warm, n)
	file(f.labels, now.warmLabels(), n)
	for registry := range now.registries.all() {
		f.registries[registry]++
	}
	f.changed(n.slot)
	f.unseatSome(n)
	f.room++
	f.better[n] = struct{}{}
	return improved(n)
}

// DeleteNode forgets a node. The room that its pods take is forgotten with the pods.
func (f *Fleet) DeleteNode(name string) {
	n := f.nodes[name]
	if n == nil || n.Node == nil {
		return
	}
	f.unindex(n)
	n.Node = nil
	f.slots[n.slot] = nil
	f.free = append(f.free, n.slot)
	f.changed(n.slot)
	f.unseatSome(n)
	// What is remembered of shapes may name the old one until it is brought up to date.
	f.nodes[name] = &node{key: name, used: n.used}
	f.forgetEmpty(name)
}

// seat gives a node a number.
func (f *Fleet) seat(n *node) {
	if last := len(f.free) - 1; last >= 0 {
		n.slot, f.free = f.free[last], f.free[:last]
		f.slots[n.slot] = n
		return
	}
	n.slot = len(f.slots)
	f.slots = append(f.slots, n)
}

// changed notes that a node may admit other pods than before. Changes that everybody has seen long ago are forgotten: who
// has not looks at all nodes.
func (f *Fleet) changed(slot int) {
	if len(f.changes) >= max(1024, 4*len(f.slots)) {
		f.first += len(f.changes)
		f.changes = f.changes[:0]
	}
	f.changes = append(f.changes, slot)
}

// forgetEmpty forgets a name that neither a node nor a pod has any more: nodes come and go under new names.
func (f *Fleet) forgetEmpty(name string) {
	if n := f.nodes[name]; n != nil && n.Node == nil && n.used.Empty() {
		delete(f.nodes, name)
	}
}

func (f *Fleet) unindex(old *node) {
	if f.hostnames[old.hostname()]--; f.hostnames[old.hostname()] == 0 {
		delete(f.hostnames, old.hostname())
	}
	for registry := range old.registries.all() {
		if f.registries[registry]--; f.registries[registry] == 0 {
			delete(f.registries, registry)
		}
	}
	unfile(f.warm, old.warm, old.Name())
	unfile(f.labels, old.warmLabels(), old.Name())
}

func file(index map[string]map[string]*node, keys []string, n *node) {
	for _, key := range keys {
		if index[key] == nil {
			index[key] = map[string]*node{}
		}
		index[key][n.Name()] = n
	}
}

func unfile(index map[string]map[string]*node, keys []string, name string) {
	for _, key := range keys {
		if delete(index[key], name); len(index[key]) == 0 {
			delete(index, key)
		}
	}
}

// sameNode says whether two views of a node give every pod the same answers.
func sameNode(a, b *Node) bool {
	return a.uid == b.uid && a.Starting == b.Starting && a.inventory == b.inventory && a.registries == b.registries &&
		slices.Equal(a.warm, b.warm) && slices.Equal(a.failed, b.failed) && a.conditions == b.conditions &&
		maps.Equal(a.Labels, b.Labels) && maps.Equal(a.Allocatable, b.Allocatable) &&
		slices.EqualFunc(a.Taints, b.Taints, func(x, y corev1.Taint) bool {
			return x.Key == y.Key && x.Value == y.Value && x.Effect == y.Effect
		})
}

func improved(n *node) []Dependency {
	if n.Node == nil {
		return nil
	}
	out := make([]Dependency, 0, len(n.warm)+n.conditions.size()+1)
	for _, key := range n.warm {
		out = append(out, Dependency{Kind: KindImage, Name: key})
	}
	for _, key := range n.warmLabels() {
		out = append(out, Dependency{Kind: KindWarmLabel, Name: key})
	}
	for condition := range n.conditions.all() {
		out = append(out, Dependency{Kind: KindNodeCondition, Name: condition})
	}
	return append(out, Dependency{Kind: KindRoom})
}

// hasRoom says whether the scheduler could place the pod there now, what it would preempt not counted.
func (n *node) hasRoom(shape *Shape) bool { return n.slotsFor(shape, 1) > 0 }

// slotsFor says how many pods of the shape it could, up to enough.
func (n *node) slotsFor(shape *Shape, enough int) int {
	if n.Node == nil {
		return 0
	}
	return n.used.Slots(&n.Node.Node, &shape.Demand, enough)
}

// isFree says whether the pod fits beside all that is there: the scheduler preempts nobody while such a node is left.
func (n *node) isFree(shape *Shape) bool {
	return n.Node != nil && n.used.Free(&n.Node.Node, &shape.Demand, 1) > 0
}

func (f *Fleet) at(name string) *node {
	n := f.nodes[name]
	if n == nil {
		n = &node{key: name}
		f.nodes[name] = n
	}
	return n
}

func byName(a, b *node) int { return strings.Compare(a.key, b.key) }
