package gates

import (
	"cmp"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/types"

	"headstart.dev/gates/v1alpha1"
)

// Reasons of the condition Accepted.
const (
	ReasonAccepted = "Accepted"
	ReasonConflict = "Conflict"
	ReasonInvalid  = "Invalid"
)

// Judgement is what is thought of one policy.
type Judgement struct {
	Policy *v1alpha1.GatePolicy
	// InForce is what pods are held by; nil where it is not this policy. A policy that cannot be carried out as it is has its
	// last good spec in force, or its deadline alone.
	InForce *Policy
	// Good is the policy as it is; nil where it cannot be carried out.
	Good            *Policy
	Reason, Message string
}

// Judge says of each policy whether it is in force. Of several policies for one gate one that can be carried out goes
// before one that cannot, and an older before a newer one, so that a new one cannot take a gate over; the names decide when
// both are of one second. lastGood are earlier specs that could be carried out.
func Judge(policies []*v1alpha1.GatePolicy, lastGood map[types.UID]*Policy) map[types.UID]Judgement {
	type candidate struct {
		Judgement
		rank int
		err  error
	}
	all := make([]*candidate, 0, len(policies))
	holders := map[string]*candidate{}
	for _, policy := range policies {
		c := &candidate{Judgement: Judgement{Policy: policy, Reason: ReasonAccepted, Message: "pods with this gate are held until all requirements hold"}}
		if c.Good, c.err = Compile(policy); c.err != nil {
			c.rank = 1
			c.Good, c.Reason, c.Message = nil, ReasonInvalid, c.err.Error()
			// The gate may be another by now: the last good spec is of the gate that it named.
			if good := lastGood[policy.UID]; good == nil || good.GateName != policy.Spec.GateName {
				c.rank = 2
			}
		}
		all = append(all, c)
		holder := holders[policy.Spec.GateName]
		if holder == nil || cmp.Or(c.rank-holder.rank, age(policy, holder.Policy)) < 0 {
			holders[policy.Spec.GateName] = c
		}
	}
	out := make(map[types.UID]Judgement, len(policies))
	for _, c := range all {
		holder := holders[c.Policy.Spec.GateName]
		switch {
		case holder != c && c.err == nil:
			c.Reason = ReasonConflict
			c.Message = fmt.Sprintf("gate %s belongs to the older GatePolicy %s: delete one of the two, or give this one another gateName",
				c.Policy.Spec.GateName, holder.Policy.Name)
		case holder != c: // it is invalid, and another holds
		case c.rank == 0:
			c.InForce = c.Good
		case c.rank == 1:
			c.InForce = lastGood[c.Policy.UID]
			c.Message += fmt.Sprintf("; generation %d, the last that could be carried out, stays in force", c.InForce.Generation)
		default:
			c.InForce = CompileDeadline(c.Policy, c.err)
			c.Message += "; until that is mended nothing but its deadline lifts the gate"
		}
		out[c.Policy.UID] = c.Judgement
	}
	return out
}

func age(a, b *v1alpha1.GatePolicy) int {
	return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), strings.Compare(a.Name, b.Name))
}
