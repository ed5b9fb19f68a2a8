package readiness

import (
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"
)

// BootstrapPrefix begins the annotation by which the Kubernetes SIG's controller notes on a Node that a bootstrap-only
// rule has completed: the prefix and the rule's UID, with {"rule-name":"<rule>"} as value; up to v0.3 the prefix and the
// rule's name. We write the first beside our own record for rules of that form, so that either controller can take over
// from the other, and honour both.
// Source: kubernetes-sigs/node-readiness-controller internal/controller/helper.go@v0.5.0.
const BootstrapPrefix = "readiness.k8s.io/bootstrap-completed-"

// bootstrapKey is the annotation of the rule; "" where its form has none.
func (r *Rule) bootstrapKey() string {
	if r.Form != FormUpstream || r.Continuous {
		return ""
	}
	return BootstrapPrefix + string(r.UID)
}

// bootstrapped says whether the node's annotations say that the rule has completed there.
func (r *Rule) bootstrapped(node *corev1.Node) bool {
	key := r.bootstrapKey()
	if key == "" {
		return false
	}
	_, done := node.Annotations[key]
	_, legacy := node.Annotations[BootstrapPrefix+r.Name]
	return done || legacy
}

// bootstraps asks for the annotation of every completed rule that has none yet, and says whether there is one.
func (p *planner) bootstraps() (must bool, err error) {
	for d := range p.enforced {
		key := d.Rule.bootstrapKey()
		if key == "" || d.State != StateReleased {
			continue
		}
		if _, there := p.facts.Node.Annotations[key]; there {
			continue
		}
		value, err := json.Marshal(map[string]string{"rule-name": d.Rule.Name})
		if err != nil {
			return false, fmt.Errorf("encode annotation %s: %w", key, err)
		}
		if p.change.Annotations == nil {
			p.change.Annotations = map[string]string{}
		}
		p.change.Annotations[key] = string(value)
		p.complete(d)
		must = true
	}
	return must, nil
}

// complete tells that the rule's bootstrap ends with this change, where no transition tells it already.
func (p *planner) complete(d *Decision) {
	for i := range p.change.Transitions {
		if t := &p.change.Transitions[i]; t.Rule == d.Rule {
			t.Completed = true
			return
		}
	}
	p.change.Transitions = append(p.change.Transitions, Transition{Rule: d.Rule, State: d.State, Completed: true, Untainted: true})
}
