package controller

import (
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"headstart.dev/gates"
	"headstart.dev/gates/v1alpha1"
)

// Condition types and reasons of a GatePolicy.
const (
	conditionAccepted    = "Accepted"
	conditionSatisfiable = "Satisfiable"

	reasonNotInForce   = "NotInForce"
	reasonSatisfiable  = "NothingInTheWay"
	reasonCannotRead   = "CannotRead"
	reasonLiftRefused  = "LiftRefused"
	reasonInputMissing = "InputMissing"
	reasonNotAllowed   = "PullNotAllowed"
)

// fill writes what is known of a policy into its status. The caller holds the lock.
func (b *book) fill(policy *v1alpha1.GatePolicy, j gates.Judgement) {
	s := &policy.Status
	s.ObservedGeneration = policy.Generation
	s.LiftedTotal, s.DeadlineTotal = b.totals[policy.UID].lifted, b.totals[policy.UID].deadline
	s.WaitingPods, s.OldestWaiting = 0, nil
	accepted := metav1.Condition{
		Type: conditionAccepted, Status: metav1.ConditionFalse, ObservedGeneration: policy.Generation, Reason: j.Reason, Message: j.Message,
	}
	if j.Reason == gates.ReasonAccepted {
		accepted.Status = metav1.ConditionTrue
	}
	if j.InForce != nil {
		count, oldest := b.waitlist.count(j.InForce.GateName)
		s.WaitingPods = count
		if count > 0 {
			s.OldestWaiting = &metav1.Time{Time: oldest}
		}
	}
	meta.SetStatusCondition(&s.Conditions, accepted)
	meta.SetStatusCondition(&s.Conditions, b.satisfiable(policy, j))
}

// satisfiable says what keeps the policy from being carried out, whatever pods and objects come.
func (b *book) satisfiable(policy *v1alpha1.GatePolicy, j gates.Judgement) metav1.Condition {
	out := metav1.Condition{
		Type: conditionSatisfiable, Status: metav1.ConditionUnknown, ObservedGeneration: policy.Generation,
		Reason: reasonNotInForce, Message: "the policy is not in force",
	}
	if j.InForce == nil || j.InForce.Broken() {
		return out
	}
	out.Status, out.Reason, out.Message = metav1.ConditionTrue, reasonSatisfiable, "nothing in the cluster makes the requirements impossible"
	if problem := b.waitlist.sources.fleetProblem(); j.InForce.NeedsFleet() && problem != "" {
		out.Status, out.Reason, out.Message = metav1.ConditionUnknown, reasonInputMissing, problem
	}
	if problem := b.waitlist.unreadable(j.InForce.GateName); problem != "" {
		out.Status, out.Reason, out.Message = metav1.ConditionFalse, reasonCannotRead, problem
	}
	if obstacle, ok := b.waitlist.obstacle(j.InForce, b.served); ok {
		out.Status, out.Reason, out.Message = metav1.ConditionFalse, obstacle.Reason, obstacle.Message
	}
	if why := b.refusedPulls[policy.UID]; why != "" {
		out.Status, out.Reason, out.Message = metav1.ConditionFalse, reasonNotAllowed, why
	}
	if why := b.refusedLifts[policy.UID]; why != "" {
		out.Status, out.Reason, out.Message = metav1.ConditionFalse, reasonLiftRefused, "the API server refused to lift the gate: "+why
	}
	out.Message = out.Message[:min(len(out.Message), messageLimit)]
	return out
}
