package controller

import (
	"slices"
	"strings"
	"time"

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
	if entry != nil && !entry.stub {
		e.retire(entry.rule, r)
	}
	e.put(&ruleEntry{rule: r, source: source, generation: r.Generation})
}

// put brings a rule into force, in place of what there was of it; e.mu is held.
func (e *Engine) put(entry *ruleEntry) {
	r := entry.rule
	if old := e.byUID[r.UID]; old != nil {
		// A budget is used up whatever the rule says now.
		entry.timedOut, entry.deletions, entry.reholds = old.timedOut, old.deletions, old.reholds
	}
	e.dropRule(r.UID)
	e.rules = append(e.rules, r)
	slices.SortFunc(e.rules, func(a, b *readiness.Rule) int { return strings.Compare(a.Name, b.Name) })
	e.byUID[r.UID] = entry
	e.rewatch()
	e.markRule(r.UID)
	e.decideAll()
	e.settleClaims()
}

// SetInvalid takes over a rule that cannot be understood. The last good form of it stays in force, and its status says why;
// where none is known it holds nothing, until the ledger is read.
func (e *Engine) SetInvalid(uid types.UID, generation int64, why error, source ruleSource, name string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	text := bounded(why.Error())
	if entry := e.byUID[uid]; entry != nil {
		entry.invalid, entry.generation, entry.source = text, generation, source
	} else {
		e.byUID[uid] = &ruleEntry{
			rule: &readiness.Rule{Name: name, UID: uid, Generation: generation}, source: source, invalid: text, generation: generation, stub: true,
		}
	}
	e.markRule(uid)
	e.claimsChanged()
}

// DeleteRule forgets a rule and lets go what it held.
func (e *Engine) DeleteRule(uid types.UID) {
	e.mu.Lock()
	defer e.mu.Unlock()
	entry := e.byUID[uid]
	if entry == nil {
		return
	}
	if !entry.stub {
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
	if !known && e.hasClaim(r.UID) {
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

func (e *Engine) hasClaim(uid types.UID) bool {
	return slices.ContainsFunc(e.retired, func(c readiness.Claim) bool { return c.Rule.UID == uid })
}

// settled says whether no node is left that must still be freed of the rule's taint. One that is leaving is not written.
func (e *Engine) settled(r *readiness.Rule) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.hasClaim(r.UID) {
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
		n.lastings.remove(uid)
	}
}

// enforcedClaims are the retired claims that may be acted upon: a suspended rule writes nothing for its former taint either.
func (e *Engine) enforcedClaims() []readiness.Claim {
	suspended := func(c readiness.Claim) bool {
		entry := e.byUID[c.Rule.UID]
		return entry != nil && entry.rule.Suspended
	}
	if !slices.ContainsFunc(e.retired, suspended) {
		return e.retired
	}
	return slices.DeleteFunc(slices.Clone(e.retired), suspended)
}

// retire claims what old asked for where next (nil: the rule is gone) does not ask for it in the same way.
func (e *Engine) retire(old, next *readiness.Rule) {
	if old.DryRun {
		return
	}
	until := e.now().Add(e.longestTimeout(old))
	if next != nil && next.DryRun {
		until = e.now() // what it holds is let go; a dry run writes nothing to nodes that come with the taint later
	}
	if next == nil || next.DryRun || !readiness.SameTaint(&old.Taint, &next.Taint) {
		e.claim(readiness.Claim{Rule: old, Until: until})
		return
	}
	for i := range old.Optional {
		if label := old.Optional[i].ReadyLabel; label != "" && !next.NamesLabel(label) {
			labels := *old
			labels.Taint = corev1.Taint{}
			e.claim(readiness.Claim{Rule: &labels, Until: until})
			return
		}
	}
}

// claim keeps a claim, once.
func (e *Engine) claim(c readiness.Claim) {
	for i := range e.retired {
		if old := e.retired[i].Rule; old.UID == c.Rule.UID && readiness.SameTaint(&old.Taint, &c.Rule.Taint) {
			e.retired[i].Rule = c.Rule
			if c.Until.After(e.retired[i].Until) {
				e.retired[i].Until = c.Until
			}
			return
		}
	}
	e.retired = append(e.retired, c)
}

// leastClaim is for how long a claim outlives its rule at the least: a node that is being bought comes by then.
const leastClaim = 10 * time.Minute

// longestTimeout is for how long nodes may come that know nothing of an edit: the longest time that a rule waits.
func (e *Engine) longestTimeout(of *readiness.Rule) time.Duration {
	longest := max(leastClaim, of.Timeout)
	for _, r := range e.rules {
		longest = max(longest, r.Timeout)
	}
	return longest
}

// settleClaims drops claims whose time is over and of which no node shows anything any more, and tells the ledger.
func (e *Engine) settleClaims() {
	now := e.now()
	e.settleAt = time.Time{}
	e.retired = slices.DeleteFunc(e.retired, func(c readiness.Claim) bool {
		if now.Before(c.Until) {
			e.settleAt = earlier(e.settleAt, c.Until)
			return false
		}
		if e.shows(&c) {
			e.settleAt = earlier(e.settleAt, now.Add(time.Minute))
			return false
		}
		return true
	})
	select {
	case e.wakes.changed <- struct{}{}:
	default:
	}
	e.claimsChanged()
}

// shows says whether a node carries the taint of the claim, or one of its labels by the node's record.
func (e *Engine) shows(c *readiness.Claim) bool {
	for _, n := range e.nodes {
		if n.facts.Node == nil {
			continue
		}
		if c.Covers(n.facts.Node) || slices.ContainsFunc(n.facts.Record.Labels, c.Rule.NamesLabel) {
			return true
		}
	}
	return false
}
