package controller

import (
	"slices"

	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"

	"headstart.dev/gates/v1alpha1"
)

// policyHandler keeps the table of which gates ask which pools for capacity. A gated pod is invisible to autoscalers,
// so a pool that a GatePolicy names stands in for its pods: it grows by what waits, and shrinks as the gates are lifted.
// Nothing is handed from the one controller to the other: the pods themselves say what waits.
func (m *model) policyHandler() toolscache.ResourceEventHandler {
	set := func(obj any) {
		if policy, ok := obj.(*v1alpha1.GatePolicy); ok {
			m.setPolicy(policy.UID, policy)
		}
	}
	return toolscache.ResourceEventHandlerFuncs{
		AddFunc:    set,
		UpdateFunc: func(_, obj any) { set(obj) },
		DeleteFunc: func(obj any) {
			if policy, ok := last(obj).(*v1alpha1.GatePolicy); ok {
				m.setPolicy(policy.UID, nil)
			}
		},
	}
}

// gateDemand is one GatePolicy's wish: pods with this gate want capacity of this pool, or of none.
type gateDemand struct {
	gate string
	pool types.NamespacedName
}

// setPolicy takes in a policy, or its end where it is nil.
func (m *model) setPolicy(uid types.UID, policy *v1alpha1.GatePolicy) {
	m.mu.Lock()
	defer m.mu.Unlock()
	wish := gateDemand{}
	if policy != nil {
		wish.gate = policy.Spec.GateName
		if ref := policy.Spec.WarmPool; ref != nil {
			wish.pool = types.NamespacedName{Namespace: ref.Namespace, Name: ref.Name}
		}
	}
	if m.policies[uid] == wish {
		return
	}
	if m.policies[uid] = wish; wish == (gateDemand{}) {
		delete(m.policies, uid)
	}
	clear(m.gates)
	for _, w := range m.policies {
		if pools := m.gates[w.gate]; w.pool == (types.NamespacedName{}) || slices.Contains(pools, w.pool) {
			m.gates[w.gate] = pools // a gate of ours that brings nothing
			continue
		}
		m.gates[w.gate] = append(m.gates[w.gate], w.pool)
	}
	for _, p := range m.pools {
		if p.recount(m) {
			m.changed(p.key)
		}
	}
}

// provokes reports whether a pod waits for capacity of this pool: our gates alone hold it, one of them asks this pool, and
// the pool's nodes could be for it. What a queue holds starts when the queue says so.
func (p *pool) provokes(m *model, v *podView) bool {
	if v.node != "" || !slices.ContainsFunc(v.gates, func(gate string) bool { return slices.Contains(m.gates[gate], p.key) }) {
		return false
	}
	for _, gate := range v.gates {
		if _, ours := m.gates[gate]; !ours {
			return false
		}
	}
	for key, value := range v.nodeSelector {
		if pools, ok := p.target.nodeSelector[key]; ok && pools != value {
			return false
		}
	}
	return true
}
