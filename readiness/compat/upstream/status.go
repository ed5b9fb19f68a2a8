package upstream

import (
	"fmt"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"headstart.dev/readiness"
)

// MaxListedNodes bounds the lists of a rule's status. Upstream lists up to 5,000 nodes and sends the whole list with every
// event of a node; with 100, a status of one condition is 25 KB, and one of 32 conditions 380 KB.
const MaxListedNodes = 100

// maxFailureMessage is what the schema allows.
const maxFailureMessage = 10240

// reasonEvaluationError is upstream's word for all that goes wrong with a node.
const reasonEvaluationError = "EvaluationError"

// Types of the conditions that a status has while something is wrong.
const (
	conditionAccepted = "Accepted"
	conditionConflict = "Conflict"
)

// Trouble is what is wrong with a rule, in one line each; "" for nothing.
type Trouble struct {
	// Invalid: the rule is not understood. Foreign: upstream's own controller carries it out.
	Invalid, Foreign string
	// Conflict: another rule disagrees about the taint.
	Conflict string
}

// Status is what the rule's status should say, given what it says and what the rule sees. Of a rule that upstream's own
// controller carries out, only the conditions are ours. Timestamps stay where nothing else has changed.
func Status(old *NodeReadinessRuleStatus, generation int64, dryRun bool, view *readiness.RuleView, trouble Trouble, now time.Time) *NodeReadinessRuleStatus {
	out := old.DeepCopy()
	setTrouble(out, generation, trouble)
	if trouble.Foreign != "" {
		return out
	}
	out.ObservedGeneration = max(generation, 1)
	out.AppliedNodes, out.FailedNodes, out.NodeEvaluations, out.DryRunResults = nil, nil, nil, nil
	if trouble.Invalid != "" || view == nil {
		return out
	}
	at := metav1.NewTime(now.Truncate(time.Second))
	for i := range view.Nodes {
		n := &view.Nodes[i]
		if n.Failure != "" {
			out.FailedNodes = append(out.FailedNodes, failure(n, old, at))
		} else {
			out.AppliedNodes = append(out.AppliedNodes, n.Name)
		}
		out.NodeEvaluations = append(out.NodeEvaluations, evaluation(n, old, at))
	}
	if dryRun {
		out.DryRunResults = preview(view)
	}
	return out
}

func failure(n *readiness.NodeView, old *NodeReadinessRuleStatus, at metav1.Time) NodeFailure {
	text := n.Failure
	if len(text) > maxFailureMessage {
		text = strings.ToValidUTF8(text[:maxFailureMessage], "")
	}
	out := NodeFailure{NodeName: n.Name, Reason: reasonEvaluationError, Message: text, LastEvaluationTime: at}
	for i := range old.FailedNodes {
		if f := &old.FailedNodes[i]; f.NodeName == n.Name && f.Message == text {
			out.LastEvaluationTime = f.LastEvaluationTime
		}
	}
	return out
}

func evaluation(n *readiness.NodeView, old *NodeReadinessRuleStatus, at metav1.Time) NodeEvaluation {
	out := NodeEvaluation{NodeName: n.Name, TaintStatus: TaintStatusAbsent, LastEvaluationTime: at}
	if n.Tainted {
		out.TaintStatus = TaintStatusPresent
	}
	for _, c := range n.Conditions {
		out.ConditionResults = append(out.ConditionResults, ConditionEvaluationResult{
			Type: string(c.Type), CurrentStatus: c.Current, RequiredStatus: c.Required, DefaultStatus: c.Default,
		})
	}
	for i := range old.NodeEvaluations {
		if was := &old.NodeEvaluations[i]; was.NodeName == n.Name && was.same(&out) {
			out.LastEvaluationTime = was.LastEvaluationTime
		}
	}
	return out
}

// same says whether two evaluations differ in their time alone.
func (e *NodeEvaluation) same(other *NodeEvaluation) bool {
	if e.TaintStatus != other.TaintStatus || len(e.ConditionResults) != len(other.ConditionResults) {
		return false
	}
	for i := range e.ConditionResults {
		if e.ConditionResults[i] != other.ConditionResults[i] {
			return false
		}
	}
	return true
}

// preview is worded as upstream words it.
func preview(view *readiness.RuleView) *DryRunResults {
	var parts []string
	if view.ToAdd > 0 {
		parts = append(parts, fmt.Sprintf("would add %d taints", view.ToAdd))
	}
	if view.ToRemove > 0 {
		parts = append(parts, fmt.Sprintf("would remove %d taints", view.ToRemove))
	}
	if view.Risky > 0 {
		parts = append(parts, fmt.Sprintf("%d nodes have missing conditions", view.Risky))
	}
	summary := "No changes needed"
	if len(parts) > 0 {
		summary = strings.Join(parts, ", ")
	}
	return &DryRunResults{
		AffectedNodes: &view.Matched, TaintsToAdd: &view.ToAdd, TaintsToRemove: &view.ToRemove, RiskyOperations: &view.Risky, Summary: summary,
	}
}

func setTrouble(out *NodeReadinessRuleStatus, generation int64, trouble Trouble) {
	set := func(kind, reason, message string, status metav1.ConditionStatus) {
		if message == "" {
			meta.RemoveStatusCondition(&out.Conditions, kind)
			return
		}
		meta.SetStatusCondition(&out.Conditions, metav1.Condition{Type: kind, Status: status, Reason: reason, Message: message, ObservedGeneration: generation})
	}
	if trouble.Foreign != "" {
		set(conditionAccepted, "UpstreamControllerRuns", trouble.Foreign, metav1.ConditionFalse)
	} else {
		set(conditionAccepted, "Invalid", trouble.Invalid, metav1.ConditionFalse)
	}
	set(conditionConflict, "TaintValue", trouble.Conflict, metav1.ConditionTrue)
	if len(out.Conditions) == 0 {
		out.Conditions = nil
	}
}
