package readiness

import (
	"cmp"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Explanation is what one rule says of one node, for a person: kubectl headstart why and status.
type Explanation struct {
	Rule string `json:"rule"`
	Form Form   `json:"form"`
	// State is Ignored, Held, Released or TimedOut.
	State State `json:"state"`
	// Taint is key=value:effect of the rule, and Tainted whether the node carries it.
	Taint   string `json:"taint"`
	Tainted bool   `json:"tainted"`
	DryRun  bool   `json:"dryRun,omitempty"`
	// Since is when the hold began; zero unless held.
	Since time.Time `json:"since,omitzero"`
	// Reasons are what the rule waits for.
	Reasons []Reason `json:"reasons,omitempty"`
	// Deadline is when the timeout comes and OnTimeout what happens then; zero where there is none ahead.
	Deadline  time.Time `json:"deadline,omitzero"`
	OnTimeout string    `json:"onTimeout,omitempty"`
	// Overdue says that the deadline has passed and the node is still held.
	Overdue bool `json:"overdue,omitempty"`
}

// Explain says what holds the node, rule by rule, held ones first, from the Node and the rules alone (make those with
// FromNative, or readiness/compat for the other forms). DaemonSet pods and CSI drivers are not known from there: a
// requirement of one is named as a reason with the code DaemonSetUnknown or CSIDriverUnknown, unless the record on the
// node shows that the rule has let the node go. Rules that do not govern the node are left out.
func Explain(node *corev1.Node, rules []*Rule, now time.Time) []Explanation {
	f := Facts{Node: node, Partial: true}
	// A record that cannot be read says nothing; the taints do.
	f.Record, _ = DecodeRecord(node)
	return ExplainFacts(&f, rules, now)
}

// ExplainFacts is Explain for a caller who knows more than the Node.
func ExplainFacts(f *Facts, rules []*Rule, now time.Time) []Explanation {
	var out []Explanation
	for _, r := range rules {
		d := Evaluate(r, f, now)
		if d.State == StateUnbound {
			continue
		}
		if d.State == StateHeld && r.HasExec() && !d.Tainted(f) && !f.RunsExec(r) {
			d.Restrain()
		}
		tainted := findTaint(f.Node.Spec.Taints, &r.Taint) != nil
		if f.Partial && d.State == StateHeld && !tainted && d.hasEntry && d.entry.State == EntryDone {
			d.State, d.Reasons = StateReleased, nil
		}
		e := Explanation{
			Rule: r.Name, Form: r.Form, State: d.State, Taint: r.Taint.ToString(), Tainted: tainted, DryRun: r.DryRun,
			Since: d.Since, Reasons: d.Reasons, Deadline: d.Deadline, Overdue: d.Overdue,
		}
		if !d.Deadline.IsZero() || d.Overdue {
			e.OnTimeout = string(r.OnTimeout)
		}
		out = append(out, e)
	}
	slices.SortStableFunc(out, func(a, b Explanation) int {
		return cmp.Or(rank(a.State)-rank(b.State), cmp.Compare(a.Rule, b.Rule))
	})
	return out
}

func rank(s State) int {
	if s == StateHeld {
		return 0
	}
	return 1
}
