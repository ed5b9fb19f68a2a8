package controller

import (
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"headstart.dev/readiness"
)

// node is what the engine keeps of a Node. Guarded by Engine.mu; the corev1.Node in facts is never changed in place.
type node struct {
	name  string
	facts readiness.Facts
	// version is the resourceVersion that facts are of.
	version uint64
	// wrote is the resourceVersion of the engine's own last write: older events must not undo what it did.
	wrote uint64
	// holding are the taints by which each enforced rule holds the node.
	holding perRule[*corev1.Taint]
	// states holds what each rule said last, for the counts.
	states perRule[ruleState]

	// lastings is since when facts are met or not, for rules with damping.
	lastings perRule[lasting]
	// reholds are the rules that hold the node again with the change that was planned last.
	reholds []types.UID
	// anew says that the Node is new since it was last decided: what an earlier one of its name was is nothing to it.
	anew bool

	queued   bool
	queuedAs readiness.Urgency
	// active says that a writer has the node.
	active bool
	// stale says that the outcome of the last write is not known: the next one reads the node first.
	stale    bool
	failures int
	// failure is the last one's text; meaningful while failures > 0.
	failure string
	// notBefore holds writes off: after a failure, or between the writes of a node that flips.
	notBefore time.Time
	lastWrite time.Time
	reheld    bool
	// dueSince is when a release first became due, for the latency metric; zero where none is.
	dueSince time.Time
	// unclaimed is a taint of ours that no rule names, and toldUnclaimed the one that was told of.
	unclaimed, toldUnclaimed string
	// claimDeleted is the UID of the NodeClaim that was deleted on timeout.
	claimDeleted types.UID

	wakeAt    time.Time
	wakeIndex int
}

// ruleState is one rule's last word on a node.
type ruleState struct {
	state   readiness.State
	overdue bool
	// braked says that the rule's budget keeps it from what is due.
	braked bool
	// again says that the node is held, or would be, after the rule was seen to have released it.
	again bool
	// refused says that the node's agent does not run a probe that the rule waits for.
	refused bool
	// sight is readiness.Sight of an upstream rule, whose status and metrics tell more than counts; tainted says that the
	// node has the rule's taint, and failing that the node's writes keep failing.
	sight            uint64
	tainted, failing bool
	// kept says that the taint is there and no rule wants it there.
	kept bool
}

// observe takes over a version of the Node that the API server sent.
func (n *node) observe(seen stripped, now time.Time) {
	in := seen.Node
	version := parseVersion(in.ResourceVersion)
	if version != 0 && version < n.version {
		return
	}
	old := n.facts.Node
	if old != nil && old.UID == in.UID {
		n.noteReports(seen, now)
		if n.wrote > version {
			in = withOurs(in, old)
		}
	} else {
		n.forget()
		if old != nil {
			n.facts.OldNode = n.facts.Remains()
		}
	}
	n.version = max(n.version, version)
	n.facts.Node, n.facts.Conditions, n.facts.Refused = in, seen.conditions, seen.refused
	if old == nil || old.UID != in.UID || old.Annotations[readiness.AnnotationReadiness] != in.Annotations[readiness.AnnotationReadiness] {
		n.readRecord()
	}
}

// readRecord takes over the record on the node. What it marks as old is all that is known of that, until a boot is seen.
func (n *node) readRecord() {
	n.facts.Record, _ = readiness.DecodeRecord(n.facts.Node)
	if !n.facts.BootSeen.IsZero() {
		return
	}
	n.facts.OldBoot = nil
	for _, e := range n.facts.Record.Rules {
		n.facts.OldBoot = append(n.facts.OldBoot, e.Old...)
	}
	slices.Sort(n.facts.OldBoot)
	n.facts.OldBoot = slices.Compact(n.facts.OldBoot)
}

// renewed notes that a fact is not any more what it was.
func (n *node) renewed(was readiness.Mark) {
	if n.facts.OldBoot.Has(was) {
		n.facts.OldBoot = n.facts.OldBoot.Without(was)
	}
	if n.facts.OldNode.Has(was) {
		n.facts.OldNode = n.facts.OldNode.Without(was)
	}
}

// forget drops all that was known of an earlier Node of the same name.
func (n *node) forget() {
	n.facts.Seen, n.facts.BootSeen = nil, time.Time{}
	n.facts.Left, n.holding = nil, nil
	n.facts.OldBoot, n.unclaimed, n.toldUnclaimed = nil, "", ""
	n.lastings, n.anew = nil, true
	n.version, n.wrote = 0, 0
	n.failures, n.stale, n.reheld = 0, false, false
	n.notBefore, n.lastWrite, n.dueSince = time.Time{}, time.Time{}, time.Time{}
}

// lasting is since when all that a rule requires is there, or is not.
type lasting struct {
	met   bool
	since time.Time
}

// lasting is readiness.Facts.Lasting.
func (n *node) lasting(rule types.UID) (met bool, since time.Time, known bool) {
	l, known := n.lastings.get(rule)
	return l.met, l.since, known
}

// noteLasting remembers what a rule with damping said.
func (n *node) noteLasting(d *readiness.Decision) {
	switch r := d.Rule; {
	case r.HoldAfter <= 0 && r.ReleaseAfter <= 0:
	case d.MetSince.IsZero():
		n.lastings.remove(r.UID)
	default:
		n.lastings.set(r.UID, lasting{met: d.Met, since: d.MetSince})
	}
}

// noteHold remembers by which taint a rule holds the node, so that it goes as well when the node leaves the selector.
func (n *node) noteHold(r *readiness.Rule, state readiness.State) {
	taint, held := n.holding.get(r.UID)
	switch {
	case state == readiness.StateHeld && !r.DryRun:
		n.holding.set(r.UID, &r.Taint)
	case state == readiness.StateUnbound && held && !r.DryRun:
		n.facts.Left = append(n.facts.Left, *taint)
		n.holding.remove(r.UID)
	default:
		n.holding.remove(r.UID)
	}
}

// dropLeft forgets the taints of rules left behind that are gone: a later one by the same name is somebody else's.
func (n *node) dropLeft() {
	n.facts.Left = slices.DeleteFunc(n.facts.Left, func(left corev1.Taint) bool {
		return !slices.ContainsFunc(n.facts.Node.Spec.Taints, func(t corev1.Taint) bool { return readiness.SameTaint(&left, &t) })
	})
}

// noteReports remembers when each condition was last seen to be reported, by our own clock.
func (n *node) noteReports(in stripped, now time.Time) {
	old := n.facts.Node
	if boot := in.Status.NodeInfo.BootID; old.Status.NodeInfo.BootID != "" && boot != old.Status.NodeInfo.BootID {
		n.facts.BootSeen = now
		n.facts.OldBoot = n.facts.Evidence()
		slices.Sort(n.facts.OldBoot)
	} else if len(n.facts.OldBoot) > 0 {
		for name, was := range old.Status.Allocatable {
			if is, there := in.Status.Allocatable[name]; !there || is.Cmp(was) != 0 {
				n.renewed(readiness.ResourceMark(name, was.String()))
			}
		}
	}
	for i := range in.conditions {
		c := &in.conditions[i]
		if was := n.facts.Conditions.Same(c, i); was != nil && *was == *c {
			continue
		}
		if n.facts.Seen == nil {
			n.facts.Seen = map[corev1.NodeConditionType]time.Time{}
		}
		n.facts.Seen[c.Type()] = now
	}
}

// noteFirst gives every report that may grow old and has never been seen to change the time at which it was first seen: it
// ages from there on.
func (n *node) noteFirst(r *readiness.Rule, now time.Time) {
	for i := range r.Conditions {
		if r.Conditions[i].MaxAge <= 0 {
			continue
		}
		// The age of our own runs from when the node was seen to be gone.
		for _, t := range []corev1.NodeConditionType{r.Conditions[i].Type, corev1.NodeReady} {
			if _, seen := n.facts.Seen[t]; seen {
				continue
			}
			if n.facts.Seen == nil {
				n.facts.Seen = map[corev1.NodeConditionType]time.Time{}
			}
			n.facts.Seen[t] = now
		}
	}
}

// withOurs is in with the taints, labels and annotations of ours, a later version of the same Node.
func withOurs(in, ours *corev1.Node) *corev1.Node {
	out := *in
	out.Spec.Taints, out.Labels, out.Annotations = ours.Spec.Taints, ours.Labels, ours.Annotations
	return &out
}

// parseVersion reads a resourceVersion, which is a number that grows (KEP-5504); 0 where it is none.
func parseVersion(text string) uint64 {
	v, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0
	}
	return v
}
