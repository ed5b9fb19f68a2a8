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

// gateDemand is one GatePolicy's wish: pods with this gate want capacity of this pool.
type gateDemand struct {
	gate string
	pool types.NamespacedName
}

// setPolicy takes in a policy, or its end where it is nil.
func (m *model) setPolicy(uid types.UID, policy *v1alpha1.GatePolicy) {
	m.mu.Lock()
	defer m.mu.Unlock()
	wish := gateDemand{}
	if policy != nil && policy.Spec.WarmPool != nil {
		ref := policy.Spec.WarmPool
		wish = gateDemand{policy.Spec.GateName, types.NamespacedName{Namespace: ref.Namespace, Name: ref.Name}}
	}
	if m.policies[uid] == wish {
		return
	}
	if m.policies[uid] = wish; wish == (gateDemand{}) {
		delete(m.policies, uid)
	}
	clear(m.gates)
	for _, w := range m.policies {
		if !slices.Contains(m.gates[w.gate], w.pool) {
			m.gates[w.gate] = append(m.gates[w.gate], w.pool)
		}
	}
	for _, p := range m.pools {
		if p.recount(m) {
			m.changed(p.key)
		}
	}
}
