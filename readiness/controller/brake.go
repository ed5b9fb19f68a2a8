package controller

import (
	"time"

	"headstart.dev/readiness"
)

// restrain keeps the decision within what its rule may do: it holds no node for a command that no agent is seen to run, and
// neither holds again nor has NodeClaims deleted beyond its budget. It says whether the budget is used up. e.mu is held.
func (e *Engine) restrain(n *node, d *readiness.Decision, now time.Time) (braked bool) {
	r, entry := d.Rule, e.byUID[d.Rule.UID]
	if r.HasExec() && !entry.runsExec {
		e.lookForExec(n, entry, now)
	}
	switch {
	case d.State != readiness.StateHeld || r.DryRun:
		return false
	case !entry.runsExec && r.HasExec() && !d.Tainted(&n.facts):
		d.Restrain()
		return false
	case d.DeleteNodeClaim:
		return e.brakeDeletion(n, d, entry)
	case r.Form == readiness.FormUpstream, !d.Rehold(&n.facts, now):
		return false
	}
	return e.brakeRehold(n, d, entry)
}

// brakeRehold says whether the node is not to be held again now.
func (e *Engine) brakeRehold(n *node, d *readiness.Decision, entry *ruleEntry) bool {
	budget := &d.Rule.Budget
	if !budget.Reholds.Unbounded() {
		allowed, retry := entry.reholds.Allow(string(n.facts.Node.UID), budget.Reholds.Of(int(entry.counts.Matched)), budget.Window, e.local())
		if !allowed {
			d.Restrain()
			e.recheck(d, retry)
			return true
		}
	}
	n.reholds = append(n.reholds, d.Rule.UID)
	return false
}

// noteReholds counts that the node is held again, as it is about to be written.
func (e *Engine) noteReholds(n *node) {
	for _, uid := range n.reholds {
		if entry := e.byUID[uid]; entry != nil {
			entry.reholds.Note(string(n.facts.Node.UID), e.local())
		}
	}
}

// brakeDeletion asks for the node's NodeClaim to be deleted, once, and says whether that is not to be now.
func (e *Engine) brakeDeletion(n *node, d *readiness.Decision, entry *ruleEntry) bool {
	ref, ok := readiness.NodeClaimOf(n.facts.Node)
	if !ok || !e.leading || n.claimDeleted == ref.UID || !e.deletionsKnown {
		return false
	}
	budget := &d.Rule.Budget
	allowed, retry := entry.deletions.Allow(string(ref.UID), budget.Deletions.Of(int(entry.counts.Matched)), budget.Window, e.local())
	if !allowed {
		d.DeleteNodeClaim = false
		e.recheck(d, retry)
		return true
	}
	select {
	case e.claims <- claim{node: n.facts.Node, ref: ref, rule: d.Rule.UID}:
		n.claimDeleted = ref.UID
		entry.deletions.Note(string(ref.UID), e.local())
	default:
		e.recheck(d, e.local().Add(maxBackoff))
	}
	return false
}

// firstHold is how soon after its registration a node that is to be held is held at the latest; a later hold is another one.
const firstHold = time.Minute

// recallReholds counts the nodes that an earlier controller has held again, from their own records. e.mu is held.
func (e *Engine) recallReholds() {
	for _, n := range e.nodes {
		if n.facts.Node == nil {
			continue
		}
		for uid, recorded := range n.facts.Record.Rules {
			at := time.Unix(recorded.At, 0)
			entry := e.byUID[uid]
			if entry == nil || recorded.State != readiness.EntryHeld || at.Before(n.facts.Node.CreationTimestamp.Add(firstHold)) {
				continue
			}
			if age := max(0, e.now().Sub(at)); age < entry.rule.Budget.Window {
				entry.reholds.Note(string(n.facts.Node.UID), e.local().Add(-age))
			}
		}
	}
}

// recheck asks for the decision to be made again at a time of this machine's clock.
func (e *Engine) recheck(d *readiness.Decision, at time.Time) {
	if t := e.now().Add(at.Sub(e.local())); d.Recheck.IsZero() || t.Before(d.Recheck) {
		d.Recheck = t
	}
}

// lookForExec sees whether the node's agent runs the rule's commands: then the rule is in force, and its nodes are decided
// again.
func (e *Engine) lookForExec(n *node, entry *ruleEntry, now time.Time) {
	if !entry.rule.Binds(n.facts.Node) || !n.facts.RunsExec(entry.rule) {
		return
	}
	entry.runsExec = true
	e.markRule(entry.rule.UID)
	for _, other := range e.nodes {
		if other != n {
			e.wakes.set(other, now)
		}
	}
}

// deletionRecord is a NodeClaim that a rule has had deleted, as the state ConfigMap holds it.
type deletionRecord struct {
	Rule  string `json:"rule"`
	Claim string `json:"claim"`
	// At is in seconds since 1970 of the API server's clock.
	At int64 `json:"at"`
}

// deletionRecords are the deletions that count still.
func (e *Engine) deletionRecords() []deletionRecord {
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []deletionRecord
	for uid, entry := range e.byUID {
		for claim, at := range entry.deletions.Done() {
			if age := e.local().Sub(at); age < entry.rule.Budget.Window {
				out = append(out, deletionRecord{Rule: string(uid), Claim: claim, At: e.now().Add(-age).Unix()})
			}
		}
	}
	return out
}

// recallDeletions takes over the deletions of an earlier controller; from then on NodeClaims may be deleted.
func (e *Engine) recallDeletions(records []deletionRecord) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, r := range records {
		for uid, entry := range e.byUID {
			if string(uid) == r.Rule {
				entry.deletions.Note(r.Claim, e.local().Add(-max(0, e.now().Sub(time.Unix(r.At, 0)))))
			}
		}
	}
	e.deletionsKnown = true
	e.decideAll()
}
