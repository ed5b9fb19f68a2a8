package readiness

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// nodeClaimOf returns the Karpenter NodeClaim that owns the node, or nil.
func nodeClaimOf(node *corev1.Node) *metav1.OwnerReference {
	for i := range node.OwnerReferences {
		ref := &node.OwnerReferences[i]
		if ref.Kind == "NodeClaim" && strings.HasPrefix(ref.APIVersion, "karpenter.sh/") {
			return ref
		}
	}
	return nil
}

// NodeClaimOf returns the reference to the Karpenter NodeClaim that owns the node, and whether there is one.
func NodeClaimOf(node *corev1.Node) (metav1.OwnerReference, bool) {
	if ref := nodeClaimOf(node); ref != nil {
		return *ref, true
	}
	return metav1.OwnerReference{}, false
}
