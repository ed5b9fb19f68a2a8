package controller

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"headstart.dev/readiness"
)

// A taint under our own prefix that no rule names holds its node for ever: a rule was deleted, and the NodePool still asks
// for its taint. It may be of a rule in a form that is not read here, so it stays; but it is told of, on the node, and counted.

// unclaimedAfter is how long after its registration a node with such a taint is looked at: its rule may be on its way.
const unclaimedAfter = 30 * time.Second

// lookForUnclaimed says when to look again; zero for not before something changes.
func (e *Engine) lookForUnclaimed(n *node, now time.Time) time.Time {
	n.unclaimed = ""
	if len(e.unseen) > 0 || e.leading && !e.recalled {
		return time.Time{}
	}
	n.unclaimed = e.unclaimedTaint(n.facts.Node)
	due := n.facts.Node.CreationTimestamp.Add(unclaimedAfter)
	if n.unclaimed == "" || !e.leading {
		n.toldUnclaimed = ""
		return time.Time{}
	}
	if now.Before(due) {
		return due
	}
	// What was so when this process began to lead has been told of by the one before.
	old := due.Before(e.leadSince) && n.toldUnclaimed == "" && now.Sub(e.leadSince) < unclaimedAfter
	if n.toldUnclaimed != n.unclaimed && !old && e.unclaimedTold != nil {
		e.unclaimedTold(n.facts.Node, fmt.Sprintf("taint %s holds the node and no rule names it, so nothing takes it off: remove it, and the startupTaint in the NodePool that it comes from, or make a rule with it",
			n.unclaimed))
	}
	n.toldUnclaimed = n.unclaimed
	return time.Time{}
}

// unclaimedTaint is the node's first taint under our own prefix that nothing accounts for; "" for none.
func (e *Engine) unclaimedTaint(node *corev1.Node) string {
	for i := range node.Spec.Taints {
		if t := &node.Spec.Taints[i]; strings.HasPrefix(t.Key, readiness.TaintPrefix) && !e.startup(t) && !e.claimed(t) {
			return readiness.TaintID(t)
		}
	}
	return ""
}

// claimed says whether a rule that is gone, or one that is not known yet, claims the taint.
func (e *Engine) claimed(t *corev1.Taint) bool {
	same := func(c readiness.Claim) bool { return readiness.SameTaint(&c.Rule.Taint, t) }
	return slices.ContainsFunc(e.retired, same) || slices.ContainsFunc(e.pending, func(c pendingClaim) bool { return same(c.Claim) })
}

// unclaimedNodes counts the nodes that carry such a taint.
func (e *Engine) unclaimedNodes() (count int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, n := range e.nodes {
		if n.unclaimed != "" {
			count++
		}
	}
	return count
}
