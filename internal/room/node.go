package room

import (
	"strings"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	schedulinghelper "k8s.io/component-helpers/scheduling/corev1"

	"headstart.dev/internal/resources"
)

// Node is what the scheduler asks of a node, who runs there apart. It is immutable.
type Node struct {
	Name        string
	Labels      map[string]string
	Taints      []corev1.Taint
	Allocatable resources.List
	// Starting says that the node may still gain resources: what buys nodes has not called it initialised.
	Starting bool
}

// Labels of Karpenter. Source: sigs.k8s.io/karpenter pkg/apis/v1/labels.go@v1.15.0.
const (
	labelNodePool    = "karpenter.sh/nodepool"
	labelInitialized = "karpenter.sh/initialized"
)

// ReadNode keeps what is needed of a node; its labels are shared with the object.
func ReadNode(object *corev1.Node) Node {
	_, bought := object.Labels[labelNodePool]
	return Node{
		Name: object.Name, Labels: object.Labels, Taints: schedulingTaints(object), Allocatable: resources.New(object.Status.Allocatable),
		Starting: bought && object.Labels[labelInitialized] != "true",
	}
}

// schedulingTaints lists the taints that keep pods from being scheduled, cordoning included.
func schedulingTaints(object *corev1.Node) []corev1.Taint {
	var out []corev1.Taint
	for _, taint := range object.Spec.Taints {
		if taint.Effect != corev1.TaintEffectPreferNoSchedule {
			out = append(out, taint)
		}
	}
	if object.Spec.Unschedulable {
		out = append(out, corev1.Taint{Key: corev1.TaintNodeUnschedulable, Effect: corev1.TaintEffectNoSchedule})
	}
	return out
}

// ephemeral says whether a taint goes by itself once a node has started. It is what Karpenter and Cluster Autoscaler take
// for such, and the usual name of what CNI and CSI drivers set.
// Source: sigs.k8s.io/karpenter pkg/scheduling/taints.go@v1.15.0; cluster-autoscaler FAQ, startup taints.
func ephemeral(taint *corev1.Taint) bool {
	switch taint.Key {
	case corev1.TaintNodeNotReady, "node.cloudprovider.kubernetes.io/uninitialized", "karpenter.sh/unregistered":
		return true
	}
	return strings.HasPrefix(taint.Key, "readiness.k8s.io/") || strings.HasPrefix(taint.Key, "startup-taint.cluster-autoscaler.kubernetes.io/") ||
		strings.HasSuffix(taint.Key, "/agent-not-ready")
}

// Admits says whether the scheduler's filters would let the pod run there if the node were empty.
func (n *Node) Admits(d *Demand) bool {
	for name, amount := range d.Requests {
		if amount > 0 && n.Allocatable[name] < amount {
			return false
		}
	}
	_, untolerated := schedulinghelper.FindMatchingUntoleratedTaint(logr.Discard(), n.Taints, d.tolerations, nil, true)
	return !untolerated && n.matches(d)
}

// WillAdmit says whether it will once the node has started: taints that go by themselves do not count, nor do devices
// that the node does not have yet.
func (n *Node) WillAdmit(d *Demand) bool {
	for name, amount := range d.Requests {
		if amount > 0 && n.Allocatable[name] < amount && !n.mayGain(name) {
			return false
		}
	}
	lasting := func(taint *corev1.Taint) bool { return !ephemeral(taint) }
	_, untolerated := schedulinghelper.FindMatchingUntoleratedTaint(logr.Discard(), n.Taints, d.tolerations, lasting, true)
	return !untolerated && n.matches(d)
}

// mayGain says whether a node that is starting may still get a resource: a device plugin comes after the kubelet.
func (n *Node) mayGain(name corev1.ResourceName) bool {
	return n.Starting && n.Allocatable[name] == 0 && strings.Contains(string(name), "/")
}

func (n *Node) matches(d *Demand) bool {
	d.candidate.Name, d.candidate.Labels = n.Name, n.Labels
	match, err := d.required.Match(&d.candidate)
	return err == nil && match
}
