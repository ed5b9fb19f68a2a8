package controller

import (
	"context"
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"headstart.dev/readiness"
	"headstart.dev/readiness/v1alpha1"
)

// Types and reasons of a rule's conditions.
const (
	conditionAccepted      = "Accepted"
	conditionConflict      = "Conflict"
	conditionUnsatisfiable = "Unsatisfiable"
	conditionUndecided     = "Undecided"
	conditionWriteFailed   = "WriteFailed"
	conditionBraked        = "Braked"

	reasonInForce      = "InForce"
	reasonDryRun       = "DryRun"
	reasonSuspended    = "Suspended"
	reasonBudgetUsedUp = "BudgetUsedUp"
	reasonWithinBudget = "WithinBudget"
	reasonNoConflict   = "NoConflict"
	reasonTaintValue   = "TaintValue"
	reasonCanBeMet     = "CanBeMet"
	reasonNotTolerated = "NotTolerated"
	reasonCannotList   = "CannotList"
	reasonRefused      = "Refused"
	reasonNoTrouble    = "NoTrouble"
)

// ruleForm is the source of rules of the native schema: headstart.dev's own, and the guide's.
type ruleForm struct {
	ruleSet[*v1alpha1.NodeReadinessRule]

	client client.StatusClient
	events *recorder
	// apiVersion and target are what the forms differ in. target is an empty object of that name.
	apiVersion string
	target     func(name string) client.Object
}

var _ ruleSource = (*ruleForm)(nil)

// WriteStatus patches the rule's status where it differs.
func (n *ruleForm) WriteStatus(ctx context.Context, s RuleStatus) error {
	current, ok := n.get(s.Rule.UID)
	if !ok {
		return nil
	}
	want := current.Status.DeepCopy()
	want.ObservedGeneration = s.Generation
	want.MatchedNodes, want.HeldNodes, want.ReleasedNodes = s.Counts.Matched, s.Counts.Held, s.Counts.Released
	want.TimedOutNodes, want.WouldHoldNodes = s.Counts.TimedOut, s.Counts.WouldHold
	news := setConditions(want, &s)
	if equality.Semantic.DeepEqual(&current.Status, want) {
		return nil
	}
	patch, err := json.Marshal(map[string]any{"status": want})
	if err != nil {
		return fmt.Errorf("encode status of rule %q: %w", current.Name, err)
	}
	err = n.client.Status().Patch(ctx, n.target(current.Name), client.RawPatch(types.MergePatchType, patch), client.FieldOwner(fieldManager))
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("patch status of rule %q: %w", current.Name, err)
	}
	for _, event := range news {
		n.events.offer(n.warning(current, event.reason, event.message))
	}
	return nil
}

func (n *ruleForm) warning(rule *v1alpha1.NodeReadinessRule, reason, message string) *corev1.Event {
	return newEvent(corev1.ObjectReference{
		APIVersion: n.apiVersion, Kind: "NodeReadinessRule", Name: rule.Name, UID: rule.UID,
	}, corev1.EventTypeWarning, reason, message)
}

// Warn posts a Warning on the rule.
func (n *ruleForm) Warn(ctx context.Context, uid types.UID, reason, message string) error {
	current, ok := n.get(uid)
	if !ok {
		return nil
	}
	return n.events.post(ctx, n.warning(current, reason, message))
}

type ruleNews struct{ reason, message string }

// setConditions brings the rule's conditions up to date and returns what is worth a Warning: what was not so before.
func setConditions(status *v1alpha1.NodeReadinessRuleStatus, s *RuleStatus) []ruleNews {
	var news []ruleNews
	for _, c := range ruleConditions(status, s) {
		c.Message = bounded(c.Message)
		c.ObservedGeneration = s.Generation
		old := meta.FindStatusCondition(status.Conditions, c.Type)
		was := old != nil && old.Status == c.Status && (old.Message == c.Message || toldOnce[c.Type])
		meta.SetStatusCondition(&status.Conditions, c)
		if reason := newsReason(&c); !was && c.Message != "" && reason != "" {
			news = append(news, ruleNews{reason, c.Message})
		}
	}
	return news
}

// ruleConditions are the conditions that the rule has now; status is what it says so far.
func ruleConditions(status *v1alpha1.NodeReadinessRuleStatus, s *RuleStatus) []metav1.Condition {
	conditions := []metav1.Condition{
		acceptedCondition(s),
		problemCondition(conditionConflict, reasonNoConflict, reasonTaintValue, s.Conflict),
		unsatisfiableCondition(s),
		problemCondition(conditionBraked, reasonWithinBudget, reasonBudgetUsedUp, s.Braked),
	}
	conditions = appendTrouble(conditions, status, conditionUndecided, reasonCannotList, s.Undecided)
	failure := ""
	if s.Failure != "" {
		failure = fmt.Sprintf("%d nodes cannot be written: %s", s.Counts.Failing, s.Failure)
	}
	return appendTrouble(conditions, status, conditionWriteFailed, reasonRefused, failure)
}

// acceptedCondition says whether the rule is understood, and how it is in force.
func acceptedCondition(s *RuleStatus) metav1.Condition {
	c := metav1.Condition{Type: conditionAccepted, Status: metav1.ConditionTrue, Reason: reasonInForce, Message: "the rule is in force"}
	switch {
	case s.Invalid != "":
		c.Status, c.Reason, c.Message = metav1.ConditionFalse, reasonInvalid, s.Invalid
		if s.InForce {
			c.Message += "; the last spec that was understood stays in force"
		}
	case s.Rule.Suspended:
		c.Reason, c.Message = reasonSuspended, "the rule is suspended: nothing is written for it, and nodes stay as they are"
	case s.Rule.DryRun:
		c.Reason, c.Message = reasonDryRun, "the rule only counts what it would do"
	}
	return c
}

// unsatisfiableCondition says whether the rule waits for what cannot come: pods that its taint keeps away, or a probe that
// agents do not run.
func unsatisfiableCondition(s *RuleStatus) metav1.Condition {
	if s.Unsatisfiable == "" {
		return problemCondition(conditionUnsatisfiable, reasonCanBeMet, readiness.ReasonExecNotAllowed, s.Refused)
	}
	return problemCondition(conditionUnsatisfiable, reasonCanBeMet, reasonNotTolerated, s.Unsatisfiable)
}

// problemCondition is True with reason where message says that there is the problem, and False with without otherwise.
func problemCondition(kind, without, reason, message string) metav1.Condition {
	if message == "" {
		return metav1.Condition{Type: kind, Status: metav1.ConditionFalse, Reason: without}
	}
	return metav1.Condition{Type: kind, Status: metav1.ConditionTrue, Reason: reason, Message: message}
}

// appendTrouble adds a condition that is there only once there was such trouble.
func appendTrouble(to []metav1.Condition, status *v1alpha1.NodeReadinessRuleStatus, kind, reason, message string) []metav1.Condition {
	if message != "" {
		return append(to, metav1.Condition{Type: kind, Status: metav1.ConditionTrue, Reason: reason, Message: message})
	}
	if meta.FindStatusCondition(status.Conditions, kind) == nil {
		return to
	}
	return append(to, metav1.Condition{Type: kind, Status: metav1.ConditionFalse, Reason: reasonNoTrouble})
}

// toldOnce are conditions whose message changes with every node: they are told of when they begin.
var toldOnce = map[string]bool{conditionBraked: true, conditionUndecided: true, conditionWriteFailed: true}

// newsReason is the reason of the Warning that a condition is worth; "" for none.
func newsReason(c *metav1.Condition) string {
	switch c.Type {
	case conditionConflict:
		return reasonConflict
	case conditionBraked, conditionUndecided, conditionWriteFailed:
		return c.Type
	case conditionUnsatisfiable:
		return reasonInvalid
	}
	if c.Status == metav1.ConditionFalse {
		return reasonInvalid
	}
	return ""
}
