package gates

import (
	"fmt"
	"slices"
)

// Reasons for which a policy cannot be satisfied as the cluster is now, whatever pods and objects come.
const (
	ReasonNoInventory   = "NoInventory"
	ReasonNoCondition   = "NoCondition"
	ReasonKindNotServed = "KindNotServed"
)

// Obstacle is why a policy can never be satisfied until the cluster itself changes.
type Obstacle struct{ Reason, Message string }

// Obstacle looks for what keeps the policy from ever being satisfied. served says whether the API server knows a type
// ("apiVersion/Kind"). A cluster without nodes is no obstacle: nodes will come. ok is false when none was found.
func (p *Policy) Obstacle(fleet *Fleet, served func(string) bool) (o Obstacle, ok bool) {
	for _, r := range p.requirements {
		switch r := r.(type) {
		case imagesRequirement:
			if fleet.size() > 0 && !fleet.anyNode(func(n *node) bool { return n.inventory }) {
				return Obstacle{ReasonNoInventory, "no node publishes which images are warm: is headstart-agent running on the nodes?"}, true
			}
		case nodesRequirement:
			if fleet.size() > 0 && !fleet.anyNode(func(n *node) bool { return n.published.has(r.condition) }) {
				return Obstacle{ReasonNoCondition, fmt.Sprintf("no node has a condition %s: is the probe that publishes it configured?", r.condition)}, true
			}
		case *objectRequirement:
			if typ := r.apiVersion + "/" + r.kind; !served(typ) {
				return Obstacle{ReasonKindNotServed, fmt.Sprintf("the API server does not serve %s: is its CRD installed?", typ)}, true
			}
		}
	}
	return o, false
}

func (f *Fleet) size() int { return len(f.slots) - len(f.free) }

func (f *Fleet) anyNode(is func(*node) bool) bool {
	return slices.ContainsFunc(f.slots, func(n *node) bool { return n != nil && is(n) })
}
