package controller

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"headstart.dev/readiness"
	"headstart.dev/readiness/compat/upstream"
)

// upstreamForm is the source of rules of upstream's form: it keeps their finalizer and writes their status.
type upstreamForm struct {
	ruleSet[*upstream.NodeReadinessRule]

	client client.Client
	events *recorder
	guard  *upstreamGuard
	// changed tells run that a finalizer may be due.
	changed chan struct{}
	// told is the trouble of each rule that a Warning has told of; used by the writer of statuses alone.
	told map[types.UID]string
	// pruned says that the CRD is upstream's own, which knows no conditions in the status.
	pruned bool
}

var _ ruleSource = (*upstreamForm)(nil)

// seen looks at a rule on its way to the engine: who else writes it, and whether its finalizer is due.
func (u *upstreamForm) seen(in *upstream.NodeReadinessRule) *upstream.NodeReadinessRule {
	u.guard.observe(in)
	in.ManagedFields = nil
	u.nudge()
	return in
}

func (u *upstreamForm) nudge() {
	select {
	case u.changed <- struct{}{}:
	default:
	}
}

func (u *upstreamForm) convertRule(in *upstream.NodeReadinessRule) (*readiness.Rule, error) {
	r, err := upstream.Convert(in)
	if err != nil {
		return nil, err
	}
	r.Foreign = u.guard.foreign() != ""
	return r, nil
}

// refresh tells the engine that the rules are another controller's now, or ours.
func (u *upstreamForm) refresh() {
	for _, in := range u.all() {
		u.observe(in, true)
	}
	u.nudge()
}

const (
	finalizerTimeout = 10 * time.Second
	// finalizerRetry is how soon a rule that is being deleted is looked at again while its taints go.
	finalizerRetry = 100 * time.Millisecond
	// finalizerBackoff is the wait after a request that failed.
	finalizerBackoff = time.Second
)

// run keeps the finalizers until ctx ends: the rules are in force meanwhile.
func (u *upstreamForm) run(ctx context.Context) error {
	for {
		var again <-chan time.Time
		if wait := u.finalizers(ctx); wait > 0 {
			again = time.After(wait)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-u.changed:
		case <-again:
		}
	}
}

// finalizers brings those of all rules up to date and says when to look again; 0 for with the next change.
func (u *upstreamForm) finalizers(ctx context.Context) (again time.Duration) {
	if u.guard.foreign() != "" {
		return 0
	}
	for _, in := range u.all() {
		has, leaving := slices.Contains(in.Finalizers, upstream.Finalizer), in.DeletionTimestamp != nil
		if has != leaving {
			continue
		}
		if leaving {
			if rule, err := u.convertRule(in); err == nil && !u.engine.settled(rule) {
				again = max(again, finalizerRetry)
				continue
			}
		}
		if err := u.setFinalizer(ctx, in, !leaving); err != nil {
			u.log.V(1).Info("writing finalizer failed, will try again", "rule", in.Name, "error", err.Error())
			again = finalizerBackoff
		}
	}
	return again
}

func (u *upstreamForm) setFinalizer(ctx context.Context, in *upstream.NodeReadinessRule, on bool) error {
	ctx, cancel := context.WithTimeout(ctx, finalizerTimeout)
	defer cancel()
	out := in.DeepCopy()
	out.Finalizers = slices.DeleteFunc(out.Finalizers, func(f string) bool { return f == upstream.Finalizer })
	if on {
		out.Finalizers = append(out.Finalizers, upstream.Finalizer)
	}
	err := u.client.Patch(ctx, out, client.MergeFromWithOptions(in, client.MergeFromWithOptimisticLock{}), client.FieldOwner(fieldManager))
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("patch finalizers of rule %q: %w", in.Name, err)
	}
	return nil
}

// WriteStatus patches the rule's status where it differs.
func (u *upstreamForm) WriteStatus(ctx context.Context, s RuleStatus) error {
	current, ok := u.get(s.Rule.UID)
	if !ok || current.DeletionTimestamp != nil {
		return nil
	}
	trouble := upstream.Trouble{Invalid: s.Invalid, Conflict: s.Conflict}
	if s.Rule.Foreign {
		trouble.Foreign = u.guard.foreign()
	}
	u.warn(current, trouble)
	want := upstream.Status(&current.Status, s.Generation, s.Rule.DryRun, s.View, trouble, u.engine.now())
	if u.pruned {
		want.Conditions = nil
	}
	if equality.Semantic.DeepEqual(&current.Status, want) {
		return nil
	}
	out := current.DeepCopy()
	out.Status = *want
	err := u.client.Status().Patch(ctx, out, client.MergeFrom(current), client.FieldOwner(fieldManager))
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("patch status of rule %q: %w", current.Name, err)
	}
	u.pruned = len(want.Conditions) > 0 && len(out.Status.Conditions) == 0
	return nil
}

// warn tells once of each trouble.
func (u *upstreamForm) warn(in *upstream.NodeReadinessRule, trouble upstream.Trouble) {
	reason, message := reasonConflict, trouble.Conflict
	switch {
	case trouble.Foreign != "":
		message = trouble.Foreign
	case trouble.Invalid != "":
		reason, message = reasonInvalid, trouble.Invalid
	}
	if u.told[in.UID] == message {
		return
	}
	u.told[in.UID] = message
	if message == "" {
		return
	}
	u.events.offer(newEvent(corev1.ObjectReference{
		APIVersion: upstream.GroupVersion.String(), Kind: "NodeReadinessRule", Name: in.Name, UID: in.UID,
	}, corev1.EventTypeWarning, reason, message))
}

// Warn does nothing: upstream's rules have no time-out.
func (u *upstreamForm) Warn(context.Context, types.UID, string, string) error { return nil }

// failingAfter is how many failures in a row make a node a failed one: the first are tried again within milliseconds.
const failingAfter = 5

// observeUpstream notes what else an upstream rule's status and metrics tell of a node; e.mu is held.
func (e *Engine) observeUpstream(n *node, r *readiness.Rule, s *ruleState) {
	if s.state == readiness.StateUnbound {
		return
	}
	old, known := n.states.get(r.UID)
	s.sight, _ = readiness.Sight(r, &n.facts)
	if !known || old.sight != s.sight {
		view := readiness.View(r, &n.facts)
		e.upstream.conditionsSeen(r, &view)
	}
	_, recorded := n.facts.Record.Rules[r.UID]
	fresh := r.Created.After(e.leadSince) || n.facts.Node.CreationTimestamp.After(e.leadSince)
	if !known && !recorded && fresh && s.tainted && s.state == readiness.StateHeld && !r.DryRun && e.leading && e.adopted != nil {
		e.adopted(n.facts.Node, r)
	}
}

// view is what the rule sees of its nodes; e.mu is held.
func (e *Engine) view(r *readiness.Rule) *readiness.RuleView {
	out := &readiness.RuleView{}
	for _, n := range e.nodes {
		s, bound := n.states.get(r.UID)
		if !bound {
			continue
		}
		v := readiness.View(r, &n.facts)
		v.Held = s.state == readiness.StateHeld
		if s.failing {
			v.Failure = n.failure
		}
		out.Add(&v)
	}
	out.Limit(upstream.MaxListedNodes)
	return out
}
