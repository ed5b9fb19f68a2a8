package readiness

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"

	"headstart.dev/readiness/v1alpha1"
)

// ConflictsWith says in one line how the two rules disagree about a taint that both use, or "". Two rules may share a
// taint (the union of their holds wins); they may not give it two values, and a rule of another form has another
// controller's ways with it.
func (r *Rule) ConflictsWith(other *Rule) string {
	if !SameTaint(&r.Taint, &other.Taint) {
		return ""
	}
	if r.Taint.Value != other.Taint.Value {
		return fmt.Sprintf("rule %s gives taint %s the value %q, this rule %q: the first to hold a node decides; give both the same value, or two keys",
			other.Name, TaintID(&r.Taint), other.Taint.Value, r.Taint.Value)
	}
	return ""
}

// ProbesRefused says in one line that agents do not run the rule's exec probes.
func (r *Rule) ProbesRefused() string {
	return fmt.Sprintf("agents of held nodes do not run the exec probe of %s: set allowExec: true in the agent's config, or write httpGet, tcpSocket or grpc in the readinessProbe",
		strings.Join(r.execs(), ", "))
}

// HasExec says whether the rule has a probe that runs a command on nodes.
func (r *Rule) HasExec() bool {
	return slices.ContainsFunc(r.DaemonSets, func(d DaemonSet) bool { return d.ExecProbe })
}

// RunsExec says whether the node's agent was seen to run a command for the rule: it reports the probe, and not that it may
// not run it.
func (f *Facts) RunsExec(r *Rule) bool {
	return slices.ContainsFunc(r.DaemonSets, func(d DaemonSet) bool {
		return d.ExecProbe && !slices.Contains(f.Refused, d.ProbeCondition) && f.condition(d.ProbeCondition) != nil
	})
}

// ExecRefused says in one line why the rule is not in force while no agent is seen to run its commands.
func (r *Rule) ExecRefused() string {
	return fmt.Sprintf("no agent is seen to run the command of the readinessProbe of %s, so no node is held for it: write httpGet, tcpSocket, grpc or kubectl wait --for=condition=C pod -l S -n N, or set allowExec: true in the config of the agents",
		strings.Join(r.execs(), ", "))
}

// BudgetUsedUp says in one line that the rule's budget keeps it from so many nodes.
func (r *Rule) BudgetUsedUp(nodes int) string {
	what := "within " + r.Budget.Window.String()
	if r.OnTimeout == v1alpha1.TimeoutDeleteNodeClaim {
		what = fmt.Sprintf("%s of its NodeClaims deleted %s", r.Budget.Deletions, what)
		if !r.Budget.Reholds.Unbounded() {
			what = fmt.Sprintf("%s of its nodes held again or ", r.Budget.Reholds) + what
		}
	} else {
		what = fmt.Sprintf("%s of its nodes held again %s", r.Budget.Reholds, what)
	}
	return fmt.Sprintf("the budget is used up (%s), and %d nodes are left as they are: look for what they have in common, then raise spec.budget or wait", what, nodes)
}

func (r *Rule) execs() []string {
	var probes []string
	for i := range r.DaemonSets {
		if r.DaemonSets[i].ExecProbe {
			probes = append(probes, r.DaemonSets[i].String())
		}
	}
	return probes
}

// Unsatisfiable says in one line what the rule waits for that cannot come while its taint is on the node, or "". in returns
// the DaemonSets of a namespace as far as they are known.
func (r *Rule) Unsatisfiable(in func(namespace string) []*DaemonSetSpec) string {
	if r.Taint.Effect == corev1.TaintEffectPreferNoSchedule {
		return ""
	}
	for i := range r.DaemonSets {
		ds := &r.DaemonSets[i]
		if ds.wildcard() {
			continue
		}
		for _, spec := range in(ds.Namespace) {
			if ds.means(spec) && !spec.Tolerates(&r.Taint) {
				return fmt.Sprintf("DaemonSet %s/%s does not tolerate taint %s, so its pod cannot start while the node is held: add a toleration {key: %s, operator: Exists}",
					spec.Namespace, spec.Name, TaintID(&r.Taint), r.Taint.Key)
			}
		}
	}
	return ""
}

// means says whether d asks about the pods of the DaemonSet.
func (d *DaemonSet) means(spec *DaemonSetSpec) bool {
	if d.Selector != nil {
		return d.Selector.Matches(labels.Set(spec.PodLabels))
	}
	return d.Name == spec.Name
}
