package readiness

import (
	"time"

	corev1 "k8s.io/api/core/v1"
)

// A node that registers with a rule's taint has no record of it: that would cost a write a node. Where its label leaves
// the selector while no controller looks, nothing says any more that the rule held it, and nothing but the rule would ever
// take the taint off. So the rule's own patience decides: once the node is older than the rule's timeout, which is as long
// as the rule would have held it, the taint goes, whatever onTimeout says of nodes that the rule governs. Before that it
// may be a node whose labels are still to come, as Karpenter's are after the registration.
//
// A taint that somebody put by hand on a node outside the rule looks the same where it has the rule's key and effect, and
// goes too: these are the rule's. Any other key or effect is never touched, nor a key that autoscalers do not know for a
// startup taint's: others may use it for their own ends. Rules of upstream's form have no timeout and
// leave such taints alone, as upstream's controller does.

// stray says from when the rule's taint on a node that it does not govern is to go, and whether it is there at all.
func (r *Rule) stray(node *corev1.Node) (from time.Time, there bool) {
	if r.Timeout <= 0 || r.DryRun || r.Suspended || r.Foreign || !startupTaint(r.Taint.Key) || findTaint(node.Spec.Taints, &r.Taint) == nil {
		return time.Time{}, false
	}
	return node.CreationTimestamp.Add(r.Timeout), true
}
