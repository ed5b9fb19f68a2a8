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
	for i := range p.decisions {
		d := &p.decisions[i]
		for j := range d.Rule.Optional {
			if d.blind.Optional {
				delete(want, d.Rule.Optional[j].ReadyLabel) // stays as it is
			}
		}
	}
	p.keepSuspended(want)
	for label, on := range want {
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
	if len(p.change.SetLabels)+len(p.change.RemoveLabels) > 0 {
		p.change.Urgency = min(p.change.Urgency, UrgencyLabel)
		slices.Sort(p.change.SetLabels)
		slices.Sort(p.change.RemoveLabels)
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

// keepSuspended takes out the labels of rules that are suspended: they stay as they are.
func (p *planner) keepSuspended(want map[string]bool) {
	for i := range p.decisions {
		d := &p.decisions[i]
		if d.State != StateSuspended {
			continue
		}
		for j := range d.Rule.Optional {
			delete(want, d.Rule.Optional[j].ReadyLabel)
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
