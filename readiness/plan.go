package readiness

import (
	"cmp"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Urgency orders writes: a release lets pods start, a hold keeps them from failing, a label only informs.
type Urgency int

// The urgencies, most urgent first.
const (
	UrgencyRelease Urgency = iota
	UrgencyHold
	UrgencyLabel
	// UrgencyNone: there is nothing to write.
	UrgencyNone
)

// Change is all that the controller wants to be different on a Node: one patch. The zero Change with UrgencyNone is
// nothing to do.
type Change struct {
	Urgency Urgency
	// Taints is the whole array as it should be; meaningful where TaintsChanged.
	Taints        []corev1.Taint
	TaintsChanged bool
	// SetLabels and RemoveLabels are keys.
	SetLabels    []string
	RemoveLabels []string
	// Record is the text of the annotation headstart.dev/readiness; meaningful where RecordChanged.
	Record        string
	RecordChanged bool
	// Annotations are to be set beside it: completions as upstream's controller notes them.
	Annotations map[string]string
	// Rehold says that a node which had been released is held again: such writes are spaced out.
	Rehold bool
	// Transitions are for events and metrics, after the write.
	Transitions []Transition
}

// Transition is a change of a node's state under a rule that a Change brings about.
type Transition struct {
	Rule     *Rule
	State    State
	Reasons  []Reason
	Deadline time.Time
	// Completed says that a bootstrap of the upstream form is over with this.
	Completed bool
	// Untainted says that the node had no taint to take off: nothing happens that is worth an event.
	Untainted bool
}

// Claim is a taint that a rule asked for earlier and that no longer is its own: the rule is gone, has another taint, or
// only runs dry. Nodes that were bound to the rule by then and got the taint at registration have no record of it.
type Claim struct {
	Rule *Rule
	// Until is how long the claim is kept where no node carries the taint: nodes that start now may come with it.
	Until time.Time
}

// Covers says whether the node still carries the claimed taint.
func (c *Claim) Covers(node *corev1.Node) bool {
	_, covers := c.from(node)
	return covers
}

// Recheck is when the claimed taint is to go from the node, where that is later than now; zero otherwise.
func (c *Claim) Recheck(node *corev1.Node, now time.Time) time.Time {
	if from, _ := c.from(node); now.Before(from) {
		return from
	}
	return time.Time{}
}

// from is since when the claimed taint is to go: ever since where the rule governed the node.
func (c *Claim) from(node *corev1.Node) (from time.Time, there bool) {
	if findTaint(node.Spec.Taints, &c.Rule.Taint) == nil {
		return time.Time{}, false
	}
	if c.Rule.Binds(node) {
		return time.Time{}, true
	}
	return c.Rule.stray(node)
}

// releases says whether the taint on the node is to go by the claim.
func (c *Claim) releases(node *corev1.Node, taint *corev1.Taint, now time.Time) bool {
	if !SameTaint(&c.Rule.Taint, taint) {
		return false
	}
	from, there := c.from(node)
	return there && !now.Before(from)
}

// Plan turns the decisions of all rules about one node into the one change that the node needs. retired are claims whose
// taints are to go.
func Plan(f *Facts, decisions []Decision, retired []Claim, now time.Time) (Change, error) {
	c := Change{Urgency: UrgencyNone}
	if f.Leaving() {
		return c, nil
	}
	p := planner{facts: f, decisions: decisions, retired: retired, now: now, change: &c}
	p.taints()
	p.labels()
	if err := p.record(); err != nil {
		return Change{Urgency: UrgencyNone}, err
	}
	return c, nil
}

type planner struct {
	facts     *Facts
	decisions []Decision
	retired   []Claim
	now       time.Time
	change    *Change
	removed   bool
	added     bool
}

// enforced yields the decisions that may write.
func (p *planner) enforced(yield func(*Decision) bool) {
	for i := range p.decisions {
		d := &p.decisions[i]
		if !d.writes() {
			continue
		}
		if !yield(d) {
			return
		}
	}
}

// writes says whether anything may be written for the decision.
func (d *Decision) writes() bool {
	switch d.State {
	case StateUnbound, StateIgnored, StateForeign, StateUndecided, StateSuspended:
		return false
	case StateHeld, StateReleased, StateTimedOut:
	}
	return !d.Rule.DryRun
}

// leaves says whether the rule's taint is to be left as it is.
func (d *Decision) leaves() bool { return d.State == StateForeign || d.State == StateSuspended }

func (p *planner) taints() {
	have := p.facts.Node.Spec.Taints
	frozen := p.facts.Rebooting()
	var out []corev1.Taint
	for i := range have {
		if !frozen && !p.held(&have[i]) && p.ours(&have[i]) {
			p.removed = true
			continue
		}
		out = append(out, have[i])
	}
	out = p.hold(out, frozen)
	if p.removed {
		p.released(out)
	}
	if p.removed || p.added {
		p.change.Taints, p.change.TaintsChanged = out, true
		p.change.Urgency = UrgencyHold
		if p.removed {
			p.change.Urgency = UrgencyRelease
		}
	}
}

// hold adds the taints that are missing. A node that Karpenter reboots is only held again, so that no window opens
// between Karpenter's fence and ours.
func (p *planner) hold(out []corev1.Taint, frozen bool) []corev1.Taint {
	for d := range p.enforced {
		if d.State != StateHeld || (frozen && !d.rearmed) {
			continue
		}
		if i := indexTaint(out, &d.Rule.Taint); i >= 0 {
			if !d.blind.Required && !p.valued(&out[i]) {
				out[i].Value = d.Rule.Taint.Value
				p.added = true
			}
			continue
		}
		out = append(out, d.Rule.Taint)
		p.added = true
		p.change.Rehold = p.change.Rehold || (d.hasEntry && d.entry.State != "")
		p.transition(d)
	}
	return out
}

// valued says whether a rule that holds the node gives the taint the value that it has.
func (p *planner) valued(t *corev1.Taint) bool {
	for d := range p.enforced {
		if d.State == StateHeld && SameTaint(&d.Rule.Taint, t) && d.Rule.Taint.Value == t.Value {
			return true
		}
	}
	return false
}

// released notes the rules whose taint goes with this change.
func (p *planner) released(out []corev1.Taint) {
	for d := range p.enforced {
		if d.State != StateHeld && findTaint(p.facts.Node.Spec.Taints, &d.Rule.Taint) != nil && findTaint(out, &d.Rule.Taint) == nil {
			p.transition(d)
		}
	}
	for i := range p.decisions {
		if d := &p.decisions[i]; d.stray && findTaint(out, &d.Rule.Taint) == nil {
			p.transition(d)
		}
	}
}

func (p *planner) transition(d *Decision) {
	p.change.Transitions = append(p.change.Transitions, Transition{Rule: d.Rule, State: d.State, Reasons: d.Reasons, Deadline: d.Deadline})
}

// held says whether some rule wants the taint there: with several rules on one taint the union of holds wins.
func (p *planner) held(t *corev1.Taint) bool {
	for d := range p.enforced {
		if d.State == StateHeld && SameTaint(&d.Rule.Taint, t) {
			return true
		}
	}
	return false
}

// ours says whether the taint is the controller's to take off: a rule that governs the node names it, a rule that is gone
// claimed it, one held the node by it until the label left, or it is a stray. The record says that the controller put it
// there only of what a rule or a claim names: a node can write it.
func (p *planner) ours(t *corev1.Taint) bool {
	if p.foreign(t) {
		return false
	}
	for i := range p.decisions {
		if d := &p.decisions[i]; d.stray && SameTaint(&d.Rule.Taint, t) {
			return true
		}
	}
	for d := range p.enforced {
		if SameTaint(&d.Rule.Taint, t) {
			return true
		}
	}
	id := TaintID(t)
	for _, e := range p.facts.Record.Rules {
		if e.Taint == id && e.State == EntryHeld && p.named(t) {
			return true
		}
	}
	for i := range p.retired {
		if p.retired[i].releases(p.facts.Node, t, p.now) {
			return true
		}
	}
	return slices.ContainsFunc(p.facts.Left, func(left corev1.Taint) bool { return SameTaint(&left, t) })
}

// named says whether a rule of today, or a claim, names the taint.
func (p *planner) named(t *corev1.Taint) bool {
	if p.facts.Named != nil && p.facts.Named(t) {
		return true
	}
	return slices.ContainsFunc(p.decisions, func(d Decision) bool { return !d.Rule.DryRun && SameTaint(&d.Rule.Taint, t) }) ||
		slices.ContainsFunc(p.retired, func(c Claim) bool { return SameTaint(&c.Rule.Taint, t) })
}

// foreign says whether the taint is another controller's business, or nobody's: it is a rule's that is left to that one, or
// that is suspended.
func (p *planner) foreign(t *corev1.Taint) bool {
	return slices.ContainsFunc(p.decisions, func(d Decision) bool { return d.leaves() && SameTaint(&d.Rule.Taint, t) })
}

// record brings the node's record up to date. It is written where it must be (a completion that nothing else shows) and,
// at no cost, with any other change.
func (p *planner) record() error {
	old := p.facts.Record
	next := Record{Node: p.facts.Node.UID, Labels: p.ownLabels(), More: old.More}
	must := p.rules(&next)
	must = must || !slices.Equal(old.Labels, next.Labels)
	completed, err := p.bootstraps()
	if err != nil {
		return err
	}
	if completed {
		must = true
		p.change.Urgency = min(p.change.Urgency, UrgencyLabel)
	}
	if p.change.Urgency == UrgencyNone && !must {
		return nil
	}
	if len(next.Rules) == 0 && len(next.Labels) == 0 && p.facts.Node.Annotations[AnnotationReadiness] == "" {
		return nil
	}
	text, err := next.Encode()
	if err != nil {
		return err
	}
	if text == p.facts.Node.Annotations[AnnotationReadiness] {
		return nil
	}
	p.change.Record, p.change.RecordChanged = text, true
	p.change.Urgency = min(p.change.Urgency, UrgencyLabel)
	return nil
}

// rules fills in the entries and says whether one of them must be written for its own sake.
func (p *planner) rules(next *Record) (must bool) {
	next.Rules = map[types.UID]Entry{}
	for d := range p.enforced {
		e, changed := p.entry(d)
		if e.State == "" {
			continue
		}
		next.Rules[d.Rule.UID] = e
		must = must || changed
	}
	for i := range p.decisions {
		if d := &p.decisions[i]; (d.leaves() || d.State == StateUndecided) && d.hasEntry {
			next.Rules[d.Rule.UID] = d.entry
		}
	}
	for uid, e := range p.facts.Record.Rules {
		if _, known := next.Rules[uid]; known {
			continue
		}
		// A rule that exists but does not govern the node now (its label left the selector) has still completed; a rule
		// that is gone is forgotten with the next write.
		if p.facts.live(uid) && e.State != EntryHeld {
			next.Rules[uid] = e
		}
	}
	return must
}

// entry is what the record should say of the rule, and whether it must.
func (p *planner) entry(d *Decision) (e Entry, must bool) {
	e = Entry{Name: d.Rule.Name, Taint: TaintID(&d.Rule.Taint), Boot: p.facts.bootID(), At: p.now.Unix(), Rearmed: d.entry.Rearmed || d.rearmed}
	switch d.State {
	case StateHeld:
		e.State = EntryHeld
		if d.hasEntry && d.entry.State == EntryHeld {
			e.At, e.Boot = d.entry.At, d.entry.Boot
		}
	case StateTimedOut:
		e.State = EntryTimedOut
		must = !d.hasEntry || d.entry.State != EntryTimedOut
	case StateReleased:
		e.State, e.Rearmed = EntryDone, false
		must = d.unrecorded()
	case StateUnbound, StateIgnored, StateForeign, StateUndecided, StateSuspended:
		return Entry{}, false
	}
	if d.Rule.RearmOnReboot {
		e.Old = p.oldMarks(d)
	}
	if d.hasEntry && d.entry.State == e.State && e.State != EntryHeld {
		// A bootID that came after the completion is the same boot, and needed to tell the next one.
		must = d.Rule.RearmOnReboot && d.entry.Boot == "" && e.Boot != ""
		e.At, e.Old = d.entry.At, d.entry.Old
		e.Boot = cmp.Or(d.entry.Boot, e.Boot)
	}
	return e, must
}

// oldMarks are what must not count for the rule after the boot that is, or after the one that was. A completion notes the
// pods that it rests on, for a controller that does not see the node boot; not its drivers and devices, of which nothing
// would tell then that they were renewed.
func (p *planner) oldMarks(d *Decision) Marks {
	if d.State != StateReleased {
		if d.entry.Rearmed || d.rearmed {
			return p.facts.OldBoot
		}
		return nil
	}
	var out Marks
	for i := range p.facts.Pods {
		pod := &p.facts.Pods[i]
		if slices.ContainsFunc(d.Rule.DaemonSets, func(ds DaemonSet) bool { return ds.concerns(pod) }) {
			out = append(out, pod.Mark())
		}
	}
	slices.Sort(out)
	return out
}

// unrecorded says whether a completion must be written down: without it, a bootstrap would begin again with the next loss,
// and a rule that waited would seem to wait still.
func (d *Decision) unrecorded() bool {
	if !d.hasEntry {
		return !d.Rule.Continuous && !d.existing
	}
	return d.entry.State == EntryHeld || d.entry.State == EntryTimedOut
}

// ownLabels are the readyLabels of which the record says, or shall say, that the controller put them there.
func (p *planner) ownLabels() []string {
	own := map[string]bool{}
	for _, l := range p.facts.Record.Labels {
		if p.namesLabel(l) {
			own[l] = true
		}
	}
	for _, l := range p.change.RemoveLabels {
		delete(own, l)
	}
	for _, l := range p.change.SetLabels {
		if _, derived := derivedLabels[l]; !derived {
			own[l] = true
		}
	}
	if len(own) == 0 {
		return nil
	}
	return slices.Sorted(maps.Keys(own))
}
