package readiness

import "time"

// Damping lets facts count once they have lasted. Since when they do is the evaluator's to remember (Facts.Lasting): one
// that has just begun counts from its first look.

// lasts notes whether the facts are met, and since when.
func (d *Decision) lasts(f *Facts, met bool, now time.Time) {
	d.Met, d.MetSince = met, now
	if f.Lasting == nil {
		return
	}
	if was, since, known := f.Lasting(d.Rule.UID); known && was == met {
		d.MetSince = since
	}
}

// delayRelease holds a ready node on until it has been ready for long enough, or its timeout comes.
func (d *Decision) delayRelease(f *Facts, now time.Time) {
	r := d.Rule
	until := d.MetSince.Add(r.ReleaseAfter)
	held := findTaint(f.Node.Spec.Taints, &r.Taint) != nil || d.hasEntry && d.entry.State == EntryHeld
	if !held || !now.Before(until) {
		return
	}
	since := d.since(f, now)
	if r.Timeout > 0 {
		if d.Deadline = since.Add(r.Timeout); !now.Before(d.Deadline) {
			d.Deadline = time.Time{}
			return
		}
		d.recheck(d.Deadline)
	}
	d.State, d.Since = StateHeld, since
	d.recheck(until)
	var v verdict
	v.miss(ReasonDamping, r.Name, "all that is required is there since %s, and must be for %s (damping.releaseAfter)", d.MetSince.UTC().Format(time.TimeOnly), r.ReleaseAfter)
	d.Reasons = v.unmet
}

// delayHold says whether an unready node that is not held is left so for now.
func (d *Decision) delayHold(f *Facts, now time.Time) bool {
	until := d.MetSince.Add(d.Rule.HoldAfter)
	if !now.Before(until) || findTaint(f.Node.Spec.Taints, &d.Rule.Taint) != nil || d.hasEntry && d.entry.State == EntryHeld {
		return false
	}
	d.recheck(until)
	d.Restrain()
	return true
}

// recheck asks for another look at t.
func (d *Decision) recheck(t time.Time) {
	if d.Recheck.IsZero() || t.Before(d.Recheck) {
		d.Recheck = t
	}
}

// Restrain keeps the node from a hold that is due. Nothing is written for the rule, but its labels.
func (d *Decision) Restrain() {
	d.State, d.restrained = StateIgnored, true
	d.Since, d.Deadline, d.Overdue, d.DeleteNodeClaim = time.Time{}, time.Time{}, false, false
}

// Tainted says whether the node carries the rule's taint.
func (d *Decision) Tainted(f *Facts) bool { return findTaint(f.Node.Spec.Taints, &d.Rule.Taint) != nil }

// Rehold says whether the decision holds a node again that the rule, or its boot, was done with: it had completed or was let
// go, or is older than a boot may take. A node whose taint somebody else
// took off is none.
func (d *Decision) Rehold(f *Facts, now time.Time) bool {
	switch {
	case d.State != StateHeld, d.Tainted(f), d.hasEntry && d.entry.State == EntryHeld:
		return false
	case d.Again, d.hasEntry, d.rearmed:
		return true
	}
	begin := f.Node.CreationTimestamp.Time
	if d.Rule.Created.After(begin) {
		begin = d.Rule.Created
	}
	return now.After(begin.Add(max(d.Rule.Timeout, defaultTimeout)))
}
