package readiness

import (
	"cmp"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"headstart.dev/readiness/v1alpha1"
)

// State is what a rule says of a node.
type State string

// The states of a node under a rule.
const (
	// StateUnbound: the rule does not govern the node.
	StateUnbound State = "Unbound"
	// StateIgnored: it would, but the node was there before the rule, or Karpenter counts it as ready already.
	StateIgnored State = "Ignored"
	// StateHeld: something required is missing, the node is to carry the taint.
	StateHeld State = "Held"
	// StateReleased: all that is required is there, or once was (bootstrap-only).
	StateReleased State = "Released"
	// StateTimedOut: the time was up and the rule let the node go unready.
	StateTimedOut State = "TimedOut"
	// StateUndecided: what the rule asks about cannot be looked at, and nothing says that the node is held: it stays as it is.
	StateUndecided State = "Undecided"
	// StateForeign: another controller carries the rule out; its taint is left as it is.
	StateForeign State = "Foreign"
	// StateSuspended: the rule is suspended; the node is left as it is.
	StateSuspended State = "Suspended"
)

// Decision is what one rule says of one node at one instant.
type Decision struct {
	Rule  *Rule
	State State
	// Reasons are what is missing; set in StateHeld, and in StateTimedOut for what never came.
	Reasons []Reason
	// Since is when the hold began, by the API server's clock; zero unless held.
	Since time.Time
	// Deadline is when the timeout comes; zero unless held with a timeout ahead.
	Deadline time.Time
	// Overdue says that the deadline has passed. In StateHeld: the rule says Hold, or the NodeClaim is to be deleted.
	Overdue bool
	// DeleteNodeClaim asks for the node's NodeClaim to be deleted; the node stays held meanwhile.
	DeleteNodeClaim bool
	// Recheck is when time alone will change the decision; zero for never.
	Recheck time.Time
	// Again and Braked are the caller's to note: that it saw the rule release the node before it holds it now, and that the
	// rule's budget keeps it from what is due.
	Again, Braked bool
	// Met says that all that the rule requires is there, and MetSince since when it is so or not so, for a rule with damping.
	Met      bool
	MetSince time.Time

	// entry is the record's entry of the rule (or of the rule that it replaces) and whether there is one.
	entry    Entry
	hasEntry bool
	rearmed  bool
	existing bool
	blind    Blind
	// restrained says that the node is kept from a hold that is due: it is not held, and nothing is written for the rule.
	restrained bool
	// stray says that the rule's taint is on a node that it does not govern, and for longer than it would have held it.
	stray bool
}

// Evaluate says what the rule wants of the node, given what is known of it now. It is pure: equal arguments give equal
// decisions. now is the API server's time as well as the caller knows it.
func Evaluate(r *Rule, f *Facts, now time.Time) Decision {
	d := Decision{Rule: r, State: StateUnbound}
	if !r.Binds(f.Node) {
		d.unbound(f, now)
		return d
	}
	d.existing = f.Node.CreationTimestamp.Time.Before(r.Created)
	d.blind = f.blind(r)
	d.recall(f)
	switch {
	case d.settled(f):
	case d.blind.Required:
		d.undecided(f, now)
	default:
		d.look(f, now)
	}
	return d
}

// unbound decides for a node that the rule does not govern: its taint is stray there, or will be.
func (d *Decision) unbound(f *Facts, now time.Time) {
	if from, there := d.Rule.stray(f.Node); there && now.Before(from) {
		d.Recheck = from
	} else {
		d.stray = there
	}
}

// settled decides, and returns true, where it makes no difference whether what the rule requires is there.
func (d *Decision) settled(f *Facts) bool {
	if d.Rule.Foreign {
		d.State = StateForeign
		return true
	}
	if d.Rule.Suspended {
		d.State = StateSuspended
		return true
	}
	if d.rebooted(f) {
		d.rearmed = true
		d.entry = Entry{}
	}
	if d.hasEntry && d.entry.State == EntryDone && !d.Rule.Continuous {
		d.State = StateReleased
		return true
	}
	return false
}

// look decides by whether what the rule requires is there.
func (d *Decision) look(f *Facts, now time.Time) {
	v := check(d.Rule, f, d.rearmed || d.entry.Rearmed, now)
	d.Recheck = v.expires
	d.lasts(f, len(v.unmet) == 0, now)
	if d.Met {
		d.State = StateReleased
		d.delayRelease(f, now)
		return
	}
	d.Reasons = v.unmet
	if d.hasEntry && d.entry.State == EntryTimedOut {
		d.State = StateTimedOut
		return
	}
	if d.ignores(f) {
		d.State, d.Reasons = StateIgnored, nil
		return
	}
	if !d.delayHold(f, now) {
		d.hold(f, now)
	}
}

// recall finds what the node's annotations say of the rule.
func (d *Decision) recall(f *Facts) {
	r := d.Rule
	d.entry, d.hasEntry = f.Record.Rules[r.UID]
	if !d.hasEntry && !r.Foreign && (!r.EnforceExisting || r.Form == FormUpstream) {
		// Upstream's rules cannot be changed, only made anew: that must not gate the fleet again.
		d.entry, d.hasEntry = f.Record.inherited(r, f.live)
	}
	lost := !d.hasEntry && !r.Foreign && !r.Continuous && f.Record.More && findTaint(f.Node.Spec.Taints, &r.Taint) == nil
	if d.entry.State != EntryDone && (lost || r.bootstrapped(f.Node)) {
		d.entry, d.hasEntry = Entry{Name: r.Name, State: EntryDone, Taint: TaintID(&r.Taint)}, true
	}
}

// undecided decides without looking: a node that is held stays held until its time is up, which comes whatever is missing. A
// bootstrap that has not begun is held where the fault lasts, for as long at the most. Everything else stays as it is.
func (d *Decision) undecided(f *Facts, now time.Time) {
	d.Reasons = []Reason{{Code: ReasonNotObserved, Subject: d.Rule.Name, Message: cmp.Or(d.blind.Why, "what the rule asks about has not been listed yet")}}
	if d.hasEntry && d.entry.State == EntryTimedOut {
		d.State = StateTimedOut
		return
	}
	tainted := findTaint(f.Node.Spec.Taints, &d.Rule.Taint) != nil
	begins := d.rearmed || d.blind.Why != "" && !d.Rule.Continuous && !d.ignores(f)
	if !tainted && !begins {
		d.State, d.Reasons = StateUndecided, nil
		return
	}
	d.hold(f, now)
	if d.DeleteNodeClaim {
		// What cannot be looked at is no proof that the machine is broken: it is let go, and another is not bought.
		d.DeleteNodeClaim, d.State = false, StateTimedOut
	}
}

// rebooted says whether the node has booted since the rule let it go and the rule asks for a new hold then.
func (d *Decision) rebooted(f *Facts) bool {
	boot := f.bootID()
	return d.Rule.RearmOnReboot && d.hasEntry && d.entry.State != EntryHeld &&
		d.entry.Boot != "" && boot != "" && d.entry.Boot != boot
}

// ProbeRefused says that the node waits for a probe which its agent does not run.
func (d *Decision) ProbeRefused(f *Facts) bool {
	return len(f.Refused) > 0 && slices.ContainsFunc(d.Reasons, func(r Reason) bool {
		return r.Code == ReasonProbeNotReady && slices.Contains(f.Refused, corev1.NodeConditionType(r.Subject))
	})
}

// Stray says that the rule does not govern the node, and that its taint there is to go nonetheless.
func (d *Decision) Stray() bool { return d.stray }

// ignores says whether an unready node is nonetheless left as it is.
func (d *Decision) ignores(f *Facts) bool {
	if d.hasEntry || findTaint(f.Node.Spec.Taints, &d.Rule.Taint) != nil {
		return false
	}
	if d.existing {
		return !d.Rule.EnforceExisting
	}
	return !d.Rule.Continuous && f.Node.Labels[karpenterInitialized] == "true"
}

// hold decides between holding and timing out.
func (d *Decision) hold(f *Facts, now time.Time) {
	d.State = StateHeld
	d.Since = d.since(f, now)
	if d.Rule.Timeout <= 0 {
		return
	}
	deadline := d.Since.Add(d.Rule.Timeout)
	if now.Before(deadline) {
		d.Deadline = deadline
		if d.Recheck.IsZero() || deadline.Before(d.Recheck) {
			d.Recheck = deadline
		}
		return
	}
	d.Overdue = true
	switch {
	case d.Rule.OnTimeout == v1alpha1.TimeoutHold:
	case d.Rule.OnTimeout == v1alpha1.TimeoutDeleteNodeClaim && nodeClaimOf(f.Node) != nil:
		d.DeleteNodeClaim = true
	default:
		d.State = StateTimedOut
	}
}

// since is when the hold began: at the node's registration, or at the rule's creation where that came later, unless the
// hold is a later one.
func (d *Decision) since(f *Facts, now time.Time) time.Time {
	begin := f.Node.CreationTimestamp.Time
	if d.existing {
		begin = d.Rule.Created
	}
	later := d.Rule.Continuous || d.existing
	switch {
	case d.hasEntry && d.entry.State == EntryHeld:
		// A hold that begins in the future is not of our writing, and would have no end.
		if at := d.entry.at(); at.After(begin) && !at.After(now.Add(time.Minute)) && (d.entry.Rearmed || later) {
			return at
		}
	case d.rearmed, d.hasEntry && d.entry.State == EntryDone:
		return now
	case !d.hasEntry && later && findTaint(f.Node.Spec.Taints, &d.Rule.Taint) == nil:
		// The hold begins with the write to come, however old the node is.
		return now
	}
	return begin
}
