package readiness

import (
	"cmp"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// NodeView is what a rule sees of a node, for a status that lists nodes.
type NodeView struct {
	Name string
	// Held says that the rule wants the taint there, Tainted that it is.
	Held, Tainted bool
	// Conditions are in the rule's order.
	Conditions []ConditionView
	// Failure is why the node cannot be written; "" where it can.
	Failure string
}

// ConditionView is one of a rule's conditions on a node.
type ConditionView struct {
	*Condition
	// Current is what was seen: Unknown where the condition is Missing. Taken is what it was taken for: the rule's default then.
	Current, Taken corev1.ConditionStatus
	Missing        bool
}

// View looks at a node as the rule does.
func View(r *Rule, f *Facts) NodeView {
	v := NodeView{Name: f.Node.Name, Tainted: findTaint(f.Node.Spec.Taints, &r.Taint) != nil}
	for i := range r.Conditions {
		c := ConditionView{Condition: &r.Conditions[i], Current: corev1.ConditionUnknown, Taken: cmp.Or(r.Conditions[i].Default, corev1.ConditionUnknown)}
		if have := f.condition(c.Type); have != nil {
			c.Current, c.Taken = have.Status, have.Status
		} else {
			c.Missing = true
		}
		v.Conditions = append(v.Conditions, c)
	}
	return v
}

// Missing says whether the node lacks one of the conditions altogether.
func (v *NodeView) Missing() bool {
	return slices.ContainsFunc(v.Conditions, func(c ConditionView) bool { return c.Missing })
}

// Met says whether the condition is as the rule asks.
func (c *ConditionView) Met() bool { return c.Taken == c.Required }

// Sight is View in a word, to tell whether it has changed: two bits a condition, of which a rule has at most 32.
func Sight(r *Rule, f *Facts) (conditions uint64, tainted bool) {
	for i := range r.Conditions {
		bits := uint64(0)
		if have := f.condition(r.Conditions[i].Type); have != nil {
			switch have.Status {
			case corev1.ConditionTrue:
				bits = 1
			case corev1.ConditionFalse:
				bits = 2
			case corev1.ConditionUnknown:
				bits = 3
			}
		}
		conditions = conditions<<2 | bits
	}
	return conditions, findTaint(f.Node.Spec.Taints, &r.Taint) != nil
}

// RuleView is what a rule sees of all nodes.
type RuleView struct {
	// Nodes are the first of them, those that are held before the others, each by name.
	Nodes []NodeView
	// Matched is how many the rule governs. Of those, ToAdd would get the taint and ToRemove lose it, were the rule
	// carried out now; Risky lack a condition altogether.
	Matched, ToAdd, ToRemove, Risky int32
}

// Add counts a node in, and keeps it for Nodes.
func (v *RuleView) Add(n *NodeView) {
	v.Matched++
	switch {
	case n.Held && !n.Tainted:
		v.ToAdd++
	case !n.Held && n.Tainted:
		v.ToRemove++
	}
	if n.Missing() {
		v.Risky++
	}
	v.Nodes = append(v.Nodes, *n)
}

// Limit orders Nodes and keeps the first of them.
func (v *RuleView) Limit(nodes int) {
	slices.SortFunc(v.Nodes, func(a, b NodeView) int {
		switch {
		case a.Held && !b.Held:
			return -1
		case b.Held && !a.Held:
			return 1
		default:
			return cmp.Compare(a.Name, b.Name)
		}
	})
	if len(v.Nodes) > nodes {
		v.Nodes = slices.Clone(v.Nodes[:nodes])
	}
}
