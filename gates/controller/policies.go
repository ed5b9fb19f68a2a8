package controller

import (
	"k8s.io/apimachinery/pkg/types"

	"headstart.dev/gates"
	"headstart.dev/gates/v1alpha1"
)

// judge compiles policies and says which are in force, by gate name. Of two policies for one gate the older holds, so
// that a new one cannot take a gate over; the names decide when both are of one second.
func judge(policies map[types.UID]*v1alpha1.GatePolicy) map[string]*gates.Policy {
	first := map[string]*v1alpha1.GatePolicy{}
	for _, policy := range policies {
		if holder := first[policy.Spec.GateName]; holder == nil || older(policy, holder) {
			first[policy.Spec.GateName] = policy
		}
	}
	inForce := map[string]*gates.Policy{}
	for gate, policy := range first {
		compiled, err := gates.Compile(policy)
		if err != nil {
			continue
		}
		inForce[gate] = compiled
	}
	return inForce
}

func older(a, b *v1alpha1.GatePolicy) bool {
	if !a.CreationTimestamp.Equal(&b.CreationTimestamp) {
		return a.CreationTimestamp.Before(&b.CreationTimestamp)
	}
	return a.Name < b.Name
}
