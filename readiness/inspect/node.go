package inspect

import (
	"slices"
	"strings"
	"time"
	"unicode"

	corev1 "k8s.io/api/core/v1"

	"headstart.dev/prepull"
	"headstart.dev/readiness"
)

// Node is what is known of one node.
type Node struct {
	Name    string    `json:"name"`
	Created time.Time `json:"created"`
	// State is Held, TimedOut, Released, Ignored, Suspended, WouldHold, or None where no rule governs the node.
	State readiness.State `json:"state"`
	// Notice says that no controller is alive, or that none has taken up a rule of the node; absent where all is well.
	Notice string `json:"notice,omitempty"`
	// Conditions are those under headstart.dev/, in the order of their types.
	Conditions []Condition `json:"conditions,omitempty"`
	// Rules are what each rule says, held ones first.
	Rules []readiness.Explanation `json:"rules,omitempty"`
	// Taints that keep pods away and belong to no rule: someone else has to take them off.
	Taints []string `json:"otherTaints,omitempty"`
	// Unclaimed are those of them under our own prefix that no rule at all names: nothing takes them off.
	Unclaimed []string `json:"unclaimedTaints,omitempty"`
	// Images counts what is warm.
	Images Images `json:"images"`
}

// Condition is one of the agent's conditions.
type Condition struct {
	Type    string                 `json:"type"`
	Status  corev1.ConditionStatus `json:"status"`
	Since   time.Time              `json:"since,omitzero"`
	Reason  string                 `json:"reason,omitempty"`
	Message string                 `json:"message,omitempty"`
}

// Images counts a node's images; Known is false where its agent has published none.
type Images struct {
	Known bool `json:"known"`
	Warm  int  `json:"warm"`
	Lazy  int  `json:"lazy,omitempty"`
	More  int  `json:"more,omitempty"`
	// Runtime, Snapshotter and Engines are what the agent chose to pull with; "" and none while it has pulled nothing.
	Runtime     string   `json:"runtime,omitempty"`
	Snapshotter string   `json:"snapshotter,omitempty"`
	Engines     []string `json:"engines,omitempty"`
}

const (
	// StateNone is the state of a node that no rule governs.
	StateNone readiness.State = "None"
	// StateWouldHold is that of a node which a rule would hold, and does not: it is a dry run, or no controller is alive and
	// the taint is not on the node.
	StateWouldHold readiness.State = "WouldHold"
)

// Nodes reports on each node, in the order of their names.
func (v View) Nodes(nodes []corev1.Node, rules []*readiness.Rule) []Node {
	out := make([]Node, 0, len(nodes))
	for i := range nodes {
		out = append(out, v.report(&nodes[i], rules))
	}
	slices.SortFunc(out, func(a, b Node) int { return strings.Compare(a.Name, b.Name) })
	return out
}

func (v View) report(node *corev1.Node, rules []*readiness.Rule) Node {
	n := Node{
		Name: node.Name, Created: node.CreationTimestamp.Time,
		Rules: readiness.Explain(node, rules, v.Now), Images: images(node),
	}
	n.Notice = v.notice(v.foretell(n.Rules))
	n.State = state(n.Rules)
	for i, rule := range n.Rules {
		for j, reason := range rule.Reasons {
			n.Rules[i].Reasons[j].Message = clean(reason.Message)
		}
	}
	for _, c := range node.Status.Conditions {
		if !strings.HasPrefix(string(c.Type), readiness.Domain+"/") {
			continue
		}
		n.Conditions = append(n.Conditions, Condition{
			Type: clean(string(c.Type)), Status: c.Status, Since: c.LastTransitionTime.Time, Reason: clean(c.Reason), Message: clean(c.Message),
		})
	}
	slices.SortFunc(n.Conditions, func(a, b Condition) int { return strings.Compare(a.Type, b.Type) })
	for _, taint := range node.Spec.Taints {
		if taint.Effect != corev1.TaintEffectPreferNoSchedule && !ruled(taint, n.Rules) {
			n.Taints = append(n.Taints, taint.ToString())
			if strings.HasPrefix(taint.Key, readiness.TaintPrefix) && !named(taint, rules) {
				n.Unclaimed = append(n.Unclaimed, taint.ToString())
			}
		}
	}
	return n
}

// foretell takes out of the rules what nobody will do, and says which of them no controller has taken up.
func (v View) foretell(rules []readiness.Explanation) (unseen []RuleKey) {
	for i := range rules {
		e := &rules[i]
		key := RuleKey{e.Form, e.Rule}
		if slices.Contains(v.Unseen, key) {
			unseen = append(unseen, key)
		}
		if v.acts(key) || e.State != readiness.StateHeld {
			continue
		}
		e.Deadline = time.Time{}
		if !e.Overdue {
			e.OnTimeout = ""
		}
		if !e.Tainted {
			e.State, e.Since = StateWouldHold, time.Time{}
		}
	}
	return unseen
}

// state is that of the node: Held where a rule holds it, else what a rule says that acts, else what one would do.
func state(rules []readiness.Explanation) readiness.State {
	out, best := StateNone, 4
	for _, e := range rules {
		state, rank := e.State, 1
		switch {
		case e.DryRun && state == readiness.StateHeld:
			state, rank = StateWouldHold, 3
		case e.DryRun:
			rank = 3
		case state == StateWouldHold:
			rank = 2
		case state == readiness.StateHeld:
			rank = 0
		}
		if rank < best {
			out, best = state, rank
		}
	}
	return out
}

// named says whether a rule has the taint for its own, though it may not govern the node.
func named(taint corev1.Taint, rules []*readiness.Rule) bool {
	return slices.ContainsFunc(rules, func(r *readiness.Rule) bool { return readiness.SameTaint(&r.Taint, &taint) })
}

func ruled(taint corev1.Taint, rules []readiness.Explanation) bool {
	return slices.ContainsFunc(rules, func(e readiness.Explanation) bool { return e.Taint == taint.ToString() })
}

func images(node *corev1.Node) Images {
	text, ok := node.Annotations[readiness.AnnotationImages]
	if !ok {
		return Images{}
	}
	inventory, err := prepull.DecodeInventory(text)
	if err != nil {
		return Images{}
	}
	out := Images{
		Known: true, Warm: len(inventory.Warm), Lazy: len(inventory.Lazy), More: inventory.More,
		Runtime: clean(inventory.Runtime), Snapshotter: clean(inventory.Snapshotter),
	}
	for _, engine := range inventory.Engines[:min(len(inventory.Engines), maxEngines)] {
		out.Engines = append(out.Engines, clean(engine))
	}
	return out
}

// maxEngines is more than there are.
const maxEngines = 8

// maxText bounds what is shown of a text that a node wrote.
const maxText = 300

// clean makes a text from a node fit for a terminal: no control characters, no endless lines.
func clean(text string) string {
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, text)
	if len(text) > maxText {
		text = strings.ToValidUTF8(text[:maxText], "") + "..."
	}
	return text
}
