package controller

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"headstart.dev/gates/v1alpha1"
	"headstart.dev/gates/warmpool"
)

// writeStatus writes the status if it changed, and returns how long a write that came too soon has to wait, 0 for none.
func (r *reconciler) writeStatus(ctx context.Context, wp *v1alpha1.WarmPool, w *written, out outcome) (time.Duration, error) {
	updated := wp.DeepCopy()
	s := &updated.Status
	s.ObservedGeneration = wp.Generation
	s.Selector = LabelPool + "=" + wp.Name
	r.model.with(client.ObjectKeyFromObject(wp), func(p *pool) {
		r.fill(s, p, out)
		out.waiting = p.waitingFor(r.model)
	})
	for _, c := range conditions(s, out) {
		c.ObservedGeneration = wp.Generation
		meta.SetStatusCondition(&s.Conditions, c)
	}
	if equality.Semantic.DeepEqual(wp.Status, *s) {
		return 0, nil
	}
	now := r.now()
	if due := w.statusAt.Add(statusPeriod); now.Before(due) {
		return due.Sub(now), nil
	}
	if err := r.client.Status().Patch(ctx, updated, client.MergeFrom(wp)); err != nil {
		if client.IgnoreNotFound(err) == nil {
			return 0, nil
		}
		return 0, fmt.Errorf("write status of warm pool: %w", err)
	}
	w.statusAt = now
	return 0, nil
}

// fill takes the figures over. Nothing in it counts time by itself, so that a pool at rest has a status at rest; the cost
// is that up to the last change of size.
func (r *reconciler) fill(s *v1alpha1.WarmPoolStatus, p *pool, out outcome) {
	counts := p.counts(r.model)
	s.Ready, s.ReadyWarm, s.Consumed = counts.ready, counts.warm, p.consumed
	s.RefillP95, s.LeadP95 = measured(&p.refills, 0.95), measured(&p.leads, 0.95)
	if !out.sized {
		return
	}
	s.Desired, s.Reason = out.decision.Replicas, out.decision.Reason()
	s.NextChange = nil
	if out.next != nil {
		s.NextChange = &v1alpha1.WarmPoolChange{
			Time: metav1.NewTime(out.next.At.Truncate(time.Second)), Replicas: out.next.Decision.Replicas, Reason: out.next.Decision.Reason(),
		}
	}
	s.CostPerHour, s.Saving = "", nil
	if price := p.sizer.Config().CostPerReplicaHour; price > 0 {
		s.CostPerHour = decimal(price * float64(s.Desired))
	}
	if p.consumed > 0 || p.cost.Sum > 0 {
		s.Saving = saving(p)
	}
}

func saving(p *pool) *v1alpha1.WarmPoolSaving {
	out := &v1alpha1.WarmPoolSaving{WarmStart: measured(&p.warmStarts, 0.5)}
	if cold := p.coldStart(); cold > 0 {
		out.ColdStart = &metav1.Duration{Duration: cold.Round(10 * time.Millisecond)}
	}
	if p.sizer.Config().CostPerReplicaHour > 0 {
		out.Cost = decimal(p.cost.Sum)
	}
	if avoided := p.waitAvoided(); avoided > 0 {
		out.WaitAvoided = &metav1.Duration{Duration: avoided.Round(time.Second)}
		if p.cost.Sum > 0 {
			out.CostPerSecond = strconv.FormatFloat(p.cost.Sum/avoided.Seconds(), 'g', 3, 64)
		}
	}
	return out
}

// measured is a quantile, or nil where nothing was measured.
func measured(t *warmpool.Times, q float64) *metav1.Duration {
	if t.Len() == 0 {
		return nil
	}
	return &metav1.Duration{Duration: t.Quantile(q, 0).Round(10 * time.Millisecond)}
}

func decimal(amount float64) string { return strconv.FormatFloat(amount, 'f', 2, 64) }

// conditions says how the pool is.
func conditions(s *v1alpha1.WarmPoolStatus, out outcome) []metav1.Condition {
	accepted := condition(conditionAccepted, true, reasonInForce, "the spec is in force")
	if out.accepted != nil {
		accepted = condition(conditionAccepted, false, out.accepted.reason, out.accepted.message)
		return []metav1.Condition{accepted, condition(conditionReady, false, out.accepted.reason, out.accepted.message)}
	}
	limited := condition(conditionLimited, false, reasonWithinLimits, "max and budget allow what is wanted")
	switch out.limit {
	case warmpool.LimitMax:
		limited = condition(conditionLimited, true, reasonMax, fmt.Sprintf("%d replicas are wanted: %s", out.decision.Wanted, out.decision.Reason()))
	case warmpool.LimitBudget:
		limited = condition(conditionLimited, true, reasonBudget, fmt.Sprintf("%d replicas are wanted: %s", out.decision.Wanted, out.decision.Reason()))
	case warmpool.LimitNone:
	}
	return []metav1.Condition{accepted, limited, ready(s, out)}
}

func ready(s *v1alpha1.WarmPoolStatus, out outcome) metav1.Condition {
	if lacks, ok := errors.AsType[*unavailableError](out.backend); ok {
		return condition(conditionReady, false, lacks.reason, lacks.message)
	}
	if out.backend != nil {
		return condition(conditionReady, false, reasonBackend, out.backend.Error())
	}
	message := fmt.Sprintf("%d of %d replicas hold capacity, %d of them warm", s.Ready, s.Desired, s.ReadyWarm)
	if s.Ready < s.Desired {
		message += out.waiting
	}
	if out.notes != "" {
		message += "; " + out.notes
	}
	switch {
	case s.Ready >= s.Desired:
	case out.shortage != nil:
		return condition(conditionReady, false, out.shortage.reason, message+"; "+out.shortage.message)
	default:
		return condition(conditionReady, false, reasonFilling, message)
	}
	return condition(conditionReady, true, reasonAtSize, message)
}

func condition(kind string, holds bool, reason, message string) metav1.Condition {
	status := metav1.ConditionFalse
	if holds {
		status = metav1.ConditionTrue
	}
	const maxMessage = 32 << 10 // of the API
	return metav1.Condition{Type: kind, Status: status, Reason: reason, Message: message[:min(len(message), maxMessage)]}
}
