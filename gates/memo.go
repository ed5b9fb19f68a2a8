package gates

import "slices"

// mark says what a node is to pods of one shape.
type mark uint8

const (
	// able: the pod could run there if the node were empty.
	able mark = 1 << iota
	// soon: it could once the node has started.
	soon
	// warmHere: able, and all of the pod's images are warm.
	warmHere
)

// memo remembers for a shape what each node is to it, so that ten thousand pods of one shape cost one look. A node that
// changes costs one look for each shape, not a look at all nodes: eight hundred shapes on eight hundred nodes are no more
// than that.
type memo struct {
	fleet *Fleet
	// at is the change up to which the memo is true.
	at    int
	marks []mark // by number of node
	// warm are the nodes where all images of the shape are warm and the pod could run, by name.
	warm []*node
	// next is where the search for room on warm nodes goes on, nextSeat that among all: pods are spread over them.
	next, nextSeat int
	// conditions knows, by condition, the nodes that have it and where the pod could run.
	conditions map[string]*holders
	// full is the room count at which no warm node had room, hopeless that at which none had at all; -1 when that has not
	// been seen.
	full, hopeless int64
}

// holders are nodes that have something.
type holders struct {
	has   []bool // by number of node
	count int
}

// look brings what is remembered of a shape up to date.
func (f *Fleet) look(shape *Shape) *memo {
	m := &shape.memo
	now := f.first + len(f.changes)
	switch {
	case m.fleet == f && m.at == now:
		return m
	case m.fleet != f || m.at < f.first:
		*m = memo{fleet: f, marks: make([]mark, len(f.slots)), conditions: m.conditions}
		clear(m.conditions)
		for slot := range f.slots {
			f.lookAt(shape, slot)
		}
	default:
		m.marks = append(m.marks, make([]mark, len(f.slots)-len(m.marks))...)
		for _, slot := range f.changes[m.at-f.first:] {
			f.lookAt(shape, slot)
		}
	}
	m.at, m.full, m.hopeless = now, -1, -1
	return m
}

func (f *Fleet) lookAt(shape *Shape, slot int) {
	m, n := &shape.memo, f.slots[slot]
	is := f.judge(shape, n)
	if (is|m.marks[slot])&warmHere != 0 {
		// By number, not by name: the name of a node that is gone is not known any more.
		m.warm = slices.DeleteFunc(m.warm, func(old *node) bool { return old.slot == slot })
	}
	m.marks[slot] = is
	if is&warmHere != 0 {
		at, _ := slices.BinarySearchFunc(m.warm, n, byName)
		m.warm = slices.Insert(m.warm, at, n)
	}
	for condition, h := range m.conditions {
		h.set(slot, is&able != 0 && n.conditions.has(condition))
	}
}

func (f *Fleet) judge(shape *Shape, n *node) (is mark) {
	switch {
	case n == nil:
		return 0
	case n.Admits(&shape.Demand):
		is = able
	case n.WillAdmit(&shape.Demand):
		return soon
	default:
		return 0
	}
	for _, image := range shape.Images {
		if f.warm[image][n.Name()] == nil {
			return is
		}
	}
	if len(shape.Images) > 0 {
		is |= warmHere
	}
	return is
}

func (h *holders) set(slot int, has bool) {
	if slot >= len(h.has) {
		h.has = append(h.has, make([]bool, slot+1-len(h.has))...)
	}
	switch {
	case has && !h.has[slot]:
		h.count++
	case !has && h.has[slot]:
		h.count--
	}
	h.has[slot] = has
}

// warmNodes lists the nodes where every image of the shape is warm and the pod could run, by name.
func (f *Fleet) warmNodes(shape *Shape) []*node { return f.look(shape).warm }

// withCondition counts the nodes that have a condition and where the pod could run.
func (f *Fleet) withCondition(shape *Shape, condition string) int {
	m := f.look(shape)
	if h := m.conditions[condition]; h != nil {
		return h.count
	}
	h := &holders{}
	for slot, n := range f.slots {
		h.set(slot, n != nil && m.marks[slot]&able != 0 && n.conditions.has(condition))
	}
	if m.conditions == nil {
		m.conditions = map[string]*holders{}
	}
	m.conditions[condition] = h
	return h.count
}
