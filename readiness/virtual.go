package readiness

import corev1 "k8s.io/api/core/v1"

// Labels and a taint of nodes that are no machines: Fargate gives a pod one of its own, a virtual kubelet passes pods on
// to a cloud. No DaemonSet runs there and no agent, so nothing that a rule waits for ever comes.
// Source: docs.aws.amazon.com/eks/latest/userguide/fargate-getting-started.html; virtual-kubelet cmd/virtual-kubelet/internal/commands/root/node.go@v1.11.
const (
	labelComputeType = "eks.amazonaws.com/compute-type"
	labelNodeType    = "type"
	taintProvider    = "virtual-kubelet.io/provider"

	computeTypeFargate     = "fargate"
	nodeTypeVirtualKubelet = "virtual-kubelet"
)

// virtualLabels are those by which a rule's selector means such nodes.
var virtualLabels = []string{labelComputeType, labelNodeType}

// virtual says whether the node is one on which no DaemonSet runs.
func virtual(node *corev1.Node) bool {
	if node.Labels[labelComputeType] == computeTypeFargate || node.Labels[labelNodeType] == nodeTypeVirtualKubelet {
		return true
	}
	for i := range node.Spec.Taints {
		if node.Spec.Taints[i].Key == taintProvider {
			return true
		}
	}
	return false
}
