package readiness

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
)

// Fits says whether a pod of the DaemonSet has its place on the node and can start there while the startup taint is on
// it: its nodeSelector and affinity select the node, and it tolerates the taints that stay.
// startups says which other taints are a rule's and go by themselves; nil for none.
func (d *DaemonSetSpec) Fits(node *corev1.Node, startup *corev1.Taint, startups func(*corev1.Taint) bool) bool {
	pod := corev1.Pod{Spec: d.Template}
	if ok, err := nodeaffinity.GetRequiredNodeAffinity(&pod).Match(node); err != nil || !ok {
		return false
	}
	if !d.Tolerates(startup) {
		return false
	}
	for i := range node.Spec.Taints {
		t := &node.Spec.Taints[i]
		if SameTaint(t, startup) || temporary(t) || startups != nil && startups(t) {
			continue
		}
		if !d.Tolerates(t) {
			return false
		}
	}
	return true
}

// fits is Fits with what is known of startup taints.
func (f *Facts) fits(d *DaemonSetSpec, r *Rule) bool { return d.Fits(f.Node, &r.Taint, f.Startup) }

// temporary says whether the taint is one of a node that starts.
func temporary(t *corev1.Taint) bool {
	return bootTaints[t.Key] || slices.ContainsFunc(startupPrefixes, func(prefix string) bool { return strings.HasPrefix(t.Key, prefix) }) ||
		strings.HasSuffix(t.Key, startupSuffix)
}

// startupPrefixes begin taints that Karpenter and Cluster Autoscaler take for startup taints, and startupSuffix ends those by
// which drivers hold a node until they run there: ebs.csi.aws.com/agent-not-ready, node.cilium.io/agent-not-ready. A
// DaemonSet that does not tolerate one of them will run there nonetheless.
// Source: sigs.k8s.io/karpenter pkg/scheduling/taints.go@v1.15.0; k8s.io/autoscaler cluster-autoscaler/utils/taints/taints.go@1.34.
var startupPrefixes = []string{TaintPrefix, "startup-taint.cluster-autoscaler.kubernetes.io/", "ignore-taint.cluster-autoscaler.kubernetes.io/"}

const startupSuffix = "/agent-not-ready"

// bootTaints are taints of a node that starts, which the DaemonSet controller tolerates on every pod's behalf or which
// go by themselves: they say nothing of where the pod will be.
// Source: k8s.io/kubernetes pkg/controller/daemon/util/daemonset_util.go@v1.37.
var bootTaints = map[string]bool{
	corev1.TaintNodeNotReady:                         true,
	corev1.TaintNodeUnreachable:                      true,
	corev1.TaintNodeDiskPressure:                     true,
	corev1.TaintNodeMemoryPressure:                   true,
	corev1.TaintNodePIDPressure:                      true,
	corev1.TaintNodeUnschedulable:                    true,
	corev1.TaintNodeNetworkUnavailable:               true,
	"node.cloudprovider.kubernetes.io/uninitialized": true,
	"karpenter.sh/unregistered":                      true,
}

// Tolerates says whether the DaemonSet's pods can be put on a node with that taint.
func (d *DaemonSetSpec) Tolerates(taint *corev1.Taint) bool {
	if taint.Effect == corev1.TaintEffectPreferNoSchedule {
		return true
	}
	for i := range d.Template.Tolerations {
		if tolerates(&d.Template.Tolerations[i], taint) {
			return true
		}
	}
	return false
}

func tolerates(t *corev1.Toleration, taint *corev1.Taint) bool {
	if t.Effect != "" && t.Effect != taint.Effect {
		return false
	}
	if t.Key != "" && t.Key != taint.Key {
		return false
	}
	switch t.Operator {
	case corev1.TolerationOpExists:
		return true
	case "", corev1.TolerationOpEqual:
		return t.Value == taint.Value
	default:
		return false
	}
}
