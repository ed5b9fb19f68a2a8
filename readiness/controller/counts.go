package controller

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"headstart.dev/readiness"
)

// countAll counts the node under each rule that has something to say of it, as it is and not as it shall be: one that
// cannot be written is held for as long as it has the taint.
func (e *Engine) countAll(n *node, decisions []readiness.Decision) {
	wanted := func(t *corev1.Taint) bool {
		return slices.ContainsFunc(decisions, func(d readiness.Decision) bool {
			return d.State == readiness.StateHeld && !d.Rule.DryRun && readiness.SameTaint(&d.Rule.Taint, t)
		})
	}
	for i := range decisions {
		d := &decisions[i]
		r := d.Rule
		s := ruleState{state: d.State, overdue: d.Overdue, refused: d.ProbeRefused(&n.facts), again: d.Again, braked: d.Braked}
		if d.State != readiness.StateUnbound {
			s.failing = n.failures >= failingAfter
			s.tainted = slices.ContainsFunc(n.facts.Node.Spec.Taints, func(t corev1.Taint) bool { return readiness.SameTaint(&t, &r.Taint) })
			s.kept = s.tainted && !r.DryRun && !wanted(&r.Taint)
		}
		if r.Form == readiness.FormUpstream {
			e.observeUpstream(n, r, &s)
		}
		e.noteTimeout(n, d, &s)
		e.count(n, r.UID, s)
	}
}

// count moves the node from its old state under the rule to the new one.
func (e *Engine) count(n *node, uid types.UID, s ruleState) {
	old, had := n.states.get(uid)
	if had && old == s {
		return
	}
	entry := e.byUID[uid]
	if s.state == readiness.StateUnbound {
		n.states.remove(uid)
	} else {
		n.states.set(uid, s)
	}
	if entry == nil || (!had && s.state == readiness.StateUnbound) {
		return
	}
	if had {
		entry.counts.add(old, entry.rule.DryRun, -1)
	}
	entry.counts.add(s, entry.rule.DryRun, 1)
	e.markRule(uid)
}

func (c *Counts) add(s ruleState, dryRun bool, by int32) {
	if s.state == readiness.StateUnbound {
		return
	}
	c.Matched += by
	for _, one := range []struct {
		yes   bool
		count *int32
	}{
		{s.refused, &c.Refused},
		{s.failing, &c.Failing},
		{s.braked, &c.Braked},
		{s.overdue || s.state == readiness.StateTimedOut, &c.TimedOut},
		{s.held() && !dryRun, &c.Held},
		{s.state == readiness.StateHeld && dryRun, &c.WouldHold},
		{s.state == readiness.StateReleased && !s.kept, &c.Released},
	} {
		if one.yes {
			*one.count += by
		}
	}
}

// held says whether the node carries the taint because of the rule.
func (s *ruleState) held() bool {
	switch s.state {
	case readiness.StateHeld, readiness.StateSuspended:
		return s.tainted
	case readiness.StateReleased, readiness.StateTimedOut:
		return s.kept
	default:
		return false
	}
}

// timedOut gathers nodes whose time is up, to tell of them on the rule: all are counted, some are named.
type timedOut struct {
	nodes   int
	names   []string
	missing string
}

const namedTimeouts = 5

// noteTimeout remembers a node whose time is up now. One that was so before this process looked is not told of again.
func (e *Engine) noteTimeout(n *node, d *readiness.Decision, s *ruleState) {
	old, had := n.states.get(d.Rule.UID)
	fresh := had && !old.overdue && old.state != readiness.StateTimedOut || !had && s.state == readiness.StateTimedOut
	if !e.leading || !s.overdue || !fresh || d.Rule.DryRun {
		return
	}
	entry := e.byUID[d.Rule.UID]
	if entry == nil {
		return
	}
	entry.timedOut.add(timedOut{nodes: 1, names: []string{n.name}, missing: missing(d.Reasons)})
	e.markRule(d.Rule.UID)
}

func (t *timedOut) add(more timedOut) {
	t.nodes += more.nodes
	t.names = append(t.names, more.names[:min(len(more.names), namedTimeouts-min(len(t.names), namedTimeouts))]...)
	if t.missing == "" {
		t.missing = more.missing
	}
}

// named says whether a rule of today has the taint for its own.
func (e *Engine) named(t *corev1.Taint) bool {
	return slices.ContainsFunc(e.rules, func(r *readiness.Rule) bool {
		return !r.DryRun && !r.Foreign && readiness.SameTaint(&r.Taint, t)
	})
}

// startup says whether a rule of today holds nodes by the taint.
func (e *Engine) startup(t *corev1.Taint) bool {
	return slices.ContainsFunc(e.rules, func(r *readiness.Rule) bool { return readiness.SameTaint(&r.Taint, t) })
}

func (e *Engine) namedLabel(label string) bool {
	return slices.ContainsFunc(e.rules, func(r *readiness.Rule) bool { return r.NamesLabel(label) })
}

// failure is the text of one refused write of the rule's nodes, always of the same node while that lasts.
func (e *Engine) failure(r *readiness.Rule) string {
	var first *node
	for _, n := range e.nodes {
		if s, _ := n.states.get(r.UID); s.failing && (first == nil || strings.Compare(n.name, first.name) < 0) {
			first = n
		}
	}
	if first == nil {
		return ""
	}
	return bounded(first.failure)
}
