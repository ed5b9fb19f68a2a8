package controller

import (
	"cmp"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/types"

	"headstart.dev/gates"
)

// labelChange is one label of placement Required that a node should gain or lose.
type labelChange struct {
	node  string
	uid   types.UID
	label string
	set   bool
}

// labels says how the nodes' labels of placement Required should change. A label that no pod asks for is taken off the
// nodes once expired says so.
func (w *waitlist) labels(expired func(label string, wanted bool) bool) []labelChange {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.sources.fleetProblem() != "" {
		return nil
	}
	want, have := w.wantedLabels(), w.fleet.Labelled()
	var out []labelChange
	has := map[labelChange]bool{}
	for label, nodes := range have {
		for _, node := range nodes {
			has[labelChange{node: node.Name(), label: label}] = true
		}
	}
	wants := map[labelChange]bool{}
	for label, nodes := range want {
		expired(label, true)
		for _, node := range nodes {
			wants[labelChange{node: node.Name(), label: label}] = true
			if !has[labelChange{node: node.Name(), label: label}] {
				out = append(out, labelChange{node.Name(), node.UID(), label, true})
			}
		}
	}
	for label, nodes := range have {
		if _, wanted := want[label]; !wanted && !expired(label, false) {
			continue
		}
		for _, node := range nodes {
			if !wants[labelChange{node: node.Name(), label: label}] {
				out = append(out, labelChange{node.Name(), node.UID(), label, false})
			}
		}
	}
	slices.SortFunc(out, func(a, b labelChange) int {
		return cmp.Or(strings.Compare(a.node, b.node), strings.Compare(a.label, b.label))
	})
	return out
}

// wantedLabels lists the nodes that should have a label, by label; a label that pods ask for while no node is warm has an
// empty list. The caller holds the lock.
func (w *waitlist) wantedLabels() map[string][]*gates.Node {
	demand := map[*gates.Shape]bool{}
	for _, pod := range w.steered {
		demand[pod.Shape] = true
	}
	for gate, policy := range w.policies {
		if !policy.Labels() {
			continue
		}
		for shape := range w.shapes(gate) {
			demand[shape] = true
		}
	}
	out := map[string][]*gates.Node{}
	seen := map[labelChange]bool{}
	for shape := range demand {
		if len(shape.Images) == 0 {
			continue
		}
		label := shape.WarmLabel()
		nodes := out[label]
		for _, node := range w.fleet.LabelTargets(shape) {
			if one := (labelChange{node: node.Name(), label: label}); !seen[one] {
				seen[one] = true
				nodes = append(nodes, node)
			}
		}
		out[label] = nodes
	}
	return out
}
