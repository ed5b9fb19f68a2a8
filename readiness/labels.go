package readiness

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// derivedLabels are the labels that follow a condition on every node, whatever the rules. Nobody else may set them: a
// node could otherwise attract pods by registering with one.
var derivedLabels = map[string]corev1.NodeConditionType{
	LabelImagesReady: ConditionImagesReady,
	LabelCNIReady:    ConditionCNIReady,
	LabelCSIReady:    ConditionCSIReady,
	LabelGPUReady:    ConditionGPUReady,
}

// readyLabel is the value that every label of the controller has.
const readyLabel = "true"

// labels compares the node's labels with its conditions and with the optional DaemonSets of its rules.
func (p *planner) labels() {
	want := p.wantedLabels()
	p.keepLabels(want)
	for label, on := range want {
		p.changeLabel(label, on)
	}
	if len(p.change.SetLabels)+len(p.change.RemoveLabels) > 0 {
		p.change.Urgency = min(p.change.Urgency, UrgencyLabel)
		slices.Sort(p.change.SetLabels)
		slices.Sort(p.change.RemoveLabels)
	}
}

// wantedLabels says of each label that is decided here whether the node is to have it. A label that was set once and that a
// rule still names is among them, also where nothing asks for it now.
func (p *planner) wantedLabels() map[string]bool {
	want := map[string]bool{}
	for label, condition := range derivedLabels {
		c := p.facts.condition(condition)
		want[label] = c != nil && c.Status == corev1.ConditionTrue
	}
	for _, label := range p.facts.Record.Labels {
		if p.namesLabel(label) {
			want[label] = want[label] || false
		}
	}
	for d := range p.governing {
		for i := range d.Rule.Optional {
			opt := &d.Rule.Optional[i]
			if opt.ReadyLabel != "" {
				want[opt.ReadyLabel] = want[opt.ReadyLabel] || p.facts.optionalReady(opt, d.Rule)
			}
		}
	}
	return want
}

// keepLabels takes out the labels that stay as they are: those of rules that are suspended, or whose optional DaemonSets
// cannot be looked at.
func (p *planner) keepLabels(want map[string]bool) {
	for i := range p.decisions {
		d := &p.decisions[i]
		if d.State != StateSuspended && !d.blind.Optional {
			continue
		}
		for j := range d.Rule.Optional {
			delete(want, d.Rule.Optional[j].ReadyLabel)
		}
	}
}

// changeLabel notes what is to be written for the label to be on the node, or not to be.
func (p *planner) changeLabel(label string, on bool) {
	have, there := p.facts.Node.Labels[label]
	_, derived := derivedLabels[label]
	own := derived || slices.Contains(p.facts.Record.Labels, label)
	switch {
	case there && have != readyLabel && !derived:
		// Somebody else's value: it is left as it is, and is not ours to take off.
	case on && have != readyLabel:
		p.change.SetLabels = append(p.change.SetLabels, label)
	case !on && there && own:
		p.change.RemoveLabels = append(p.change.RemoveLabels, label)
	}
}

// governing yields the decisions that labels follow: those that may write, and those that are only kept from a hold.
func (p *planner) governing(yield func(*Decision) bool) {
	for i := range p.decisions {
		d := &p.decisions[i]
		if d.writes() || d.restrained && !d.Rule.DryRun {
			if !yield(d) {
				return
			}
		}
	}
}

// optionalReady says whether the optional DaemonSet is ready on the node.
func (f *Facts) optionalReady(ds *DaemonSet, r *Rule) bool {
	if f.Partial {
		return false
	}
	var v verdict
	checkDaemonSet(ds, r, f, false, &v)
	return len(v.unmet) == 0
}

// namesLabel says whether a rule of today, or a claim, has the label for one of its own.
func (p *planner) namesLabel(label string) bool {
	if p.facts.NamedLabel != nil && p.facts.NamedLabel(label) {
		return true
	}
	return slices.ContainsFunc(p.decisions, func(d Decision) bool { return d.Rule.NamesLabel(label) }) ||
		slices.ContainsFunc(p.retired, func(c Claim) bool { return c.Rule.NamesLabel(label) })
}

// NamesLabel says whether the label is the readyLabel of one of the rule's optional DaemonSets.
func (r *Rule) NamesLabel(label string) bool {
	return slices.ContainsFunc(r.Optional, func(d DaemonSet) bool { return d.ReadyLabel != "" && d.ReadyLabel == label })
}
