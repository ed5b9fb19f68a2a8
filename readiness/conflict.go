package readiness

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
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
	var probes []string
	for i := range r.DaemonSets {
		if r.DaemonSets[i].ExecProbe {
			probes = append(probes, r.DaemonSets[i].String())
		}
	}
	return fmt.Sprintf("agents of held nodes do not run the exec probe of %s: set allowExec: true in the agent's config, or write httpGet, tcpSocket or grpc in the readinessProbe",
		strings.Join(probes, ", "))
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
