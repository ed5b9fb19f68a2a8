package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Damping says for how long facts must last before they count.
type Damping struct {
	// holdAfter is how long something required must be missing before the node is held, or held again.
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`
	// +optional
	HoldAfter *metav1.Duration `json:"holdAfter,omitempty"`
	// releaseAfter is how long all that is required must be there before the node is released. The timeout runs on.
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`
	// +optional
	ReleaseAfter *metav1.Duration `json:"releaseAfter,omitempty"`
}

// Budget bounds what a rule may do within a while. Shares are of the nodes that the rule governs, and at least one node.
type Budget struct {
	// window is the while.
	// +kubebuilder:default="10m"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1s')",message="window must be at least 1s"
	// +optional
	Window *metav1.Duration `json:"window,omitempty"`
	// nodeClaimDeletions is how many NodeClaims onTimeout: DeleteNodeClaim may delete within the window: a number, or a
	// share; by default 10%.
	// +kubebuilder:validation:XValidation:rule="type(self) == int ? self >= 1 : self.matches('^([1-9][0-9]?|100)%$')",message="nodeClaimDeletions must be a number from 1, or a share from 1% to 100%"
	// +optional
	NodeClaimDeletions *intstr.IntOrString `json:"nodeClaimDeletions,omitempty"`
	// reholds is how many nodes may be held again within the window: a number, or a share; by default 20% for mode
	// continuous, and without bound for bootstrap-only.
	// +kubebuilder:validation:XValidation:rule="type(self) == int ? self >= 1 : self.matches('^([1-9][0-9]?|100)%$')",message="reholds must be a number from 1, or a share from 1% to 100%"
	// +optional
	Reholds *intstr.IntOrString `json:"reholds,omitempty"`
}
