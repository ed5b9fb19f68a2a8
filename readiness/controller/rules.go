package controller

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"headstart.dev/readiness"
)

// SetRule adds a rule or takes over a changed one. All nodes are decided afresh.
func (e *Engine) SetRule(r *readiness.Rule, source ruleSource) {
	e.mu.Lock()
	defer e.mu.Unlock()
	entry := e.byUID[r.UID]
	if entry != nil && entry.invalid == "" && entry.rule.Generation == r.Generation && entry.rule.Foreign == r.Foreign {
		entry.source = source
		e.markRule(r.UID)
		return
	}
	if entry != nil && entry.invalid == "" {
		e.retire(entry.rule, r)
	}
	e.dropRule(r.UID)
	e.rules = append(e.rules, r)
	slices.SortFunc(e.rules, func(a, b *readiness.Rule) int { return strings.Compare(a.Name, b.Name) })
	e.byUID[r.UID] = &ruleEntry{rule: r, source: source}
	e.rewatch()
	e.markRule(r.UID)
	e.decideAll()
	e.settleClaims()
}

// SetInvalid takes over a rule that cannot be understood: it holds nothing, and its status says why.
func (e *Engine) SetInvalid(uid types.UID, generation int64, why error, source ruleSource, name string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if old := e.byUID[uid]; old != nil && old.invalid == "" {
		e.retire(old.rule, nil)
	}
	e.dropRule(uid)
	e.byUID[uid] = &ruleEntry{
		rule: &readiness.Rule{Name: name, UID: uid, Generation: generation}, source: source, invalid: why.Error(), ready: true,
	}
	e.markRule(uid)
	e.decideAll()
}

// DeleteRule forgets a rule and lets go what it held.
func (e *Engine) DeleteRule(uid types.UID) {
	e.mu.Lock()
	defer e.mu.Unlock()
	entry := e.byUID[uid]
	if entry == nil {
		return
	}
	if entry.invalid == "" {
		e.retire(entry.rule, nil)
	}
	e.upstream.forget(entry.rule)
	e.dropRule(uid)
	e.rewatch()
	e.decideAll()
	e.settleClaims()
}

// RetireRule lets go what a rule holds that is being deleted. It may be told again, and of a rule that was deleted before
// this process began.
func (e *Engine) RetireRule(r *readiness.Rule) {
	e.mu.Lock()
	defer e.mu.Unlock()
	known := e.byUID[r.UID] != nil
	if !known && slices.ContainsFunc(e.retired, func(c readiness.Claim) bool { return c.Rule.UID == r.UID }) {
		return
	}
	e.retire(r, nil)
	if known {
		e.upstream.forget(r)
		e.dropRule(r.UID)
		e.rewatch()
	}
	e.decideAll()
	e.settleClaims()
}

// settled says whether no node is left that must still be freed of the rule's taint. One that is leaving is not written.
func (e *Engine) settled(r *readiness.Rule) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !slices.ContainsFunc(e.retired, func(c readiness.Claim) bool { return c.Rule.UID == r.UID }) {
		return true
	}
	claim := readiness.Claim{Rule: r}
	for _, n := range e.nodes {
		if n.facts.Node != nil && !n.facts.Leaving() && claim.Covers(n.facts.Node) && !e.kept(n, &r.Taint) {
			return false
		}
	}
	return true
}

// kept says whether a rule of today keeps the taint on the node; e.mu is held.
func (e *Engine) kept(n *node, taint *corev1.Taint) bool {
	return slices.ContainsFunc(e.rules, func(r *readiness.Rule) bool {
		s, _ := n.states.get(r.UID)
		return readiness.SameTaint(&r.Taint, taint) && !r.DryRun && (s.state == readiness.StateHeld || s.state == readiness.StateForeign)
	})
}

// dropRule takes a rule out of the model, and its word from every node's count.
func (e *Engine) dropRule(uid types.UID) {
	delete(e.byUID, uid)
	delete(e.dirtyRules, uid)
	e.rules = slices.DeleteFunc(e.rules, func(r *readiness.Rule) bool { return r.UID == uid })
	for _, n := range e.nodes {
		n.states.remove(uid)
	}
}

// retire notes the taint that old asked for where next (nil: the rule is gone) does not ask for it in the same way.
func (e *Engine) retire(old, next *readiness.Rule) {
	if old.DryRun {
		return
	}
	if next != nil && !next.DryRun && readiness.SameTaint(&old.Taint, &next.Taint) {
		return
	}
	e.retired = append(e.retired, readiness.Claim{Rule: old})
}

// settleClaims drops retired claims of which no node carries the taint any more.
func (e *Engine) settleClaims() {
	e.retired = slices.DeleteFunc(e.retired, func(c readiness.Claim) bool {
		for _, n := range e.nodes {
			if n.facts.Node != nil && c.Covers(n.facts.Node) {
				return false
			}
		}
		return true
	})
	e.claimsChanged()
}
