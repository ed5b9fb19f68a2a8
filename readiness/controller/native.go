package controller

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"headstart.dev/readiness"
	"headstart.dev/readiness/v1alpha1"
)

// Types and reasons of a rule's conditions.
const (
	conditionAccepted      = "Accepted"
	conditionConflict      = "Conflict"
	conditionUnsatisfiable = "Unsatisfiable"

	reasonInForce      = "InForce"
	reasonDryRun       = "DryRun"
	reasonNoConflict   = "NoConflict"
	reasonTaintValue   = "TaintValue"
	reasonCanBeMet     = "CanBeMet"
	reasonNotTolerated = "NotTolerated"
)

// nativeRules brings headstart.dev/v1alpha1 rules to the engine and their status back.
type nativeRules struct {
	engine *Engine
	log    logr.Logger
	client client.StatusClient
	events *recorder

	mu     sync.Mutex
	latest map[types.UID]*v1alpha1.NodeReadinessRule
}

var (
	_ cache.ResourceEventHandler = (*nativeRules)(nil)
	_ ruleSource                 = (*nativeRules)(nil)
)

// OnAdd takes over a new rule.
func (n *nativeRules) OnAdd(obj any, _ bool) { n.set(obj) }

// OnUpdate takes over a changed rule, or the echo of a status.
func (n *nativeRules) OnUpdate(_, obj any) { n.set(obj) }

// OnDelete forgets a rule.
func (n *nativeRules) OnDelete(obj any) {
	if gone, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		obj = gone.Obj
	}
	rule, ok := obj.(*v1alpha1.NodeReadinessRule)
	if !ok {
		return
	}
	n.mu.Lock()
	delete(n.latest, rule.UID)
	n.mu.Unlock()
	n.engine.DeleteRule(rule.UID)
}

func (n *nativeRules) set(obj any) {
	in, ok := obj.(*v1alpha1.NodeReadinessRule)
	if !ok {
		return
	}
	n.mu.Lock()
	n.latest[in.UID] = in
	n.mu.Unlock()
	rule, err := readiness.FromNative(in)
	if err != nil {
		n.log.Error(err, "rule is not understood", "rule", in.Name)
		n.engine.SetInvalid(in.UID, in.Generation, err, n, in.Name)
		return
	}
	n.engine.SetRule(rule, n)
}

// WriteStatus patches the rule's status where it differs.
func (n *nativeRules) WriteStatus(ctx context.Context, s RuleStatus) error {
	n.mu.Lock()
	current := n.latest[s.Rule.UID]
	n.mu.Unlock()
	if current == nil {
		return nil
	}
	want := current.Status.DeepCopy()
	want.ObservedGeneration = s.Rule.Generation
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
	target := &v1alpha1.NodeReadinessRule{ObjectMeta: metav1.ObjectMeta{Name: current.Name}}
	err = n.client.Status().Patch(ctx, target, client.RawPatch(types.MergePatchType, patch), client.FieldOwner(fieldManager))
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("patch status of rule %q: %w", current.Name, err)
	}
	for _, event := range news {
		n.events.offer(newEvent(corev1.ObjectReference{
			APIVersion: v1alpha1.GroupVersion.String(), Kind: "NodeReadinessRule", Name: current.Name, UID: current.UID,
		}, corev1.EventTypeWarning, event.reason, event.message))
	}
	return nil
}

type ruleNews struct{ reason, message string }

// setConditions brings the rule's conditions up to date and returns what is worth a Warning: what was not so before.
func setConditions(status *v1alpha1.NodeReadinessRuleStatus, s *RuleStatus) []ruleNews {
	generation := s.Rule.Generation
	accepted := metav1.Condition{Type: conditionAccepted, Status: metav1.ConditionTrue, Reason: reasonInForce, Message: "the rule is in force"}
	switch {
	case s.Invalid != "":
		accepted = metav1.Condition{Type: conditionAccepted, Status: metav1.ConditionFalse, Reason: reasonInvalid, Message: s.Invalid}
	case s.Rule.DryRun:
		accepted.Reason, accepted.Message = reasonDryRun, "the rule only counts what it would do"
	}
	conflict := metav1.Condition{Type: conditionConflict, Status: metav1.ConditionFalse, Reason: reasonNoConflict}
	if s.Conflict != "" {
		conflict = metav1.Condition{Type: conditionConflict, Status: metav1.ConditionTrue, Reason: reasonTaintValue, Message: s.Conflict}
	}
	stuck := metav1.Condition{Type: conditionUnsatisfiable, Status: metav1.ConditionFalse, Reason: reasonCanBeMet}
	if s.Unsatisfiable != "" {
		stuck = metav1.Condition{Type: conditionUnsatisfiable, Status: metav1.ConditionTrue, Reason: reasonNotTolerated, Message: s.Unsatisfiable}
	}
	var news []ruleNews
	for _, c := range []metav1.Condition{accepted, conflict, stuck} {
		c.ObservedGeneration = generation
		old := meta.FindStatusCondition(status.Conditions, c.Type)
		was := old != nil && old.Status == c.Status && old.Message == c.Message
		meta.SetStatusCondition(&status.Conditions, c)
		if was || c.Message == "" {
			continue
		}
		switch {
		case c.Type == conditionAccepted && c.Status == metav1.ConditionFalse:
			news = append(news, ruleNews{reasonInvalid, c.Message})
		case c.Type == conditionConflict:
			news = append(news, ruleNews{reasonConflict, c.Message})
		case c.Type == conditionUnsatisfiable:
			news = append(news, ruleNews{reasonInvalid, c.Message})
		}
	}
	return news
}
