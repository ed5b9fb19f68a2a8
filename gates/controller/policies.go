package controller

import (
	"fmt"

	"k8s.io/apimachinery/pkg/types"

	"headstart.dev/gates"
	"headstart.dev/gates/v1alpha1"
)

// Condition types and reasons of a GatePolicy.
const (
	conditionAccepted    = "Accepted"
	conditionSatisfiable = "Satisfiable"

	reasonAccepted    = "Accepted"
	reasonConflict    = eventConflict
	reasonInvalid     = eventInvalid
	reasonNotInForce  = "NotInForce"
	reasonSatisfiable = "NothingInTheWay"
)

// judgement is what is thought of one policy.
type judgement struct {
	policy *v1alpha1.GatePolicy
	// compiled is nil when the policy is not in force; reason and message say why.
	compiled        *gates.Policy
	reason, message string
}

// judge says of each policy whether it is in force. Of two policies for one gate the older holds, so that a new one
// cannot take a gate over; the names decide when both are of one second.
func judge(policies map[types.UID]*v1alpha1.GatePolicy) map[types.UID]judgement {
	holders := map[string]*v1alpha1.GatePolicy{}
	for _, policy := range policies {
		if holder := holders[policy.Spec.GateName]; holder == nil || older(policy, holder) {
			holders[policy.Spec.GateName] = policy
		}
	}
	out := make(map[types.UID]judgement, len(policies))
	for uid, policy := range policies {
		j := judgement{policy: policy, reason: reasonAccepted, message: "pods with this gate are held until all requirements hold"}
		compiled, err := gates.Compile(policy)
		holder := holders[policy.Spec.GateName]
		switch {
		case err != nil:
			j.reason, j.message = reasonInvalid, err.Error()
		case holder.UID != uid:
			j.reason = reasonConflict
			j.message = fmt.Sprintf("gate %s belongs to the older GatePolicy %s: delete one of the two, or give this one another gateName",
				policy.Spec.GateName, holder.Name)
		default:
			j.compiled = compiled
		}
		out[uid] = j
	}
	return out
}

func older(a, b *v1alpha1.GatePolicy) bool {
	if !a.CreationTimestamp.Equal(&b.CreationTimestamp) {
		return a.CreationTimestamp.Before(&b.CreationTimestamp)
	}
	return a.Name < b.Name
}
