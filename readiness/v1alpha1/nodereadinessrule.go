package v1alpha1

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"headstart.dev/internal/decode"
)

// NodeReadinessRule says what a node must have before its startup taint goes. Nodes are bound to it by nodeSelector or
// by the annotation headstart.dev/rule (or nodereadiness.k8s.io/rule) with the rule's name as value.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,shortName=hrr
// +kubebuilder:subresource:status
// +kubebuilder:selectablefield:JSONPath=`.spec.mode`
// +kubebuilder:selectablefield:JSONPath=`.spec.taint.key`
// +kubebuilder:printcolumn:name="Mode",type=string,JSONPath=`.spec.mode`
// +kubebuilder:printcolumn:name="Taint",type=string,JSONPath=`.spec.taint.key`,priority=1
// +kubebuilder:printcolumn:name="DryRun",type=boolean,JSONPath=`.spec.dryRun`,priority=1
// +kubebuilder:printcolumn:name="Matched",type=integer,JSONPath=`.status.matchedNodes`
// +kubebuilder:printcolumn:name="Held",type=integer,JSONPath=`.status.heldNodes`
// +kubebuilder:printcolumn:name="Released",type=integer,JSONPath=`.status.releasedNodes`
// +kubebuilder:printcolumn:name="TimedOut",type=integer,JSONPath=`.status.timedOutNodes`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="size(self.metadata.name) <= 63 || (has(self.spec.taint) && has(self.spec.taint.key))",message="the rule's name is longer than the 63 characters that a taint key allows: set spec.taint.key"
type NodeReadinessRule struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   NodeReadinessRuleSpec   `json:"spec"`
	Status NodeReadinessRuleStatus `json:"status,omitempty"`

	// Unreadable says why Go's types refuse the object; "" where they take it. The spec is empty then.
	Unreadable string `json:"-"`
}

// UnmarshalJSON decodes the rule alone: one that Go's types refuse stops no list and no watch, and says why in Unreadable.
func (r *NodeReadinessRule) UnmarshalJSON(data []byte) error {
	type plain NodeReadinessRule
	var out plain
	why, err := decode.Object(data, &out)
	if err != nil {
		return err
	}
	*r = NodeReadinessRule(out)
	r.Unreadable = why
	return nil
}

// NodeReadinessRuleList is a list of rules.
//
// +kubebuilder:object:root=true
type NodeReadinessRuleList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []NodeReadinessRule `json:"items"`
}

// Mode says for how long a rule watches a node.
//
// +kubebuilder:validation:Enum=bootstrap-only;continuous
type Mode string

// The modes.
const (
	// ModeBootstrapOnly holds a node once, from registration until everything required is there.
	ModeBootstrapOnly Mode = "bootstrap-only"
	// ModeContinuous holds a node again when something required is lost.
	ModeContinuous Mode = "continuous"
)

// ConditionPolicy says how many of the conditions must hold.
//
// +kubebuilder:validation:Enum=allOf;anyOf
type ConditionPolicy string

// The condition policies.
const (
	ConditionPolicyAllOf ConditionPolicy = "allOf"
	ConditionPolicyAnyOf ConditionPolicy = "anyOf"
)

// TimeoutAction is what happens to a node that is not ready in time.
//
// +kubebuilder:validation:Enum=Hold;Release;DeleteNodeClaim
type TimeoutAction string

// The timeout actions.
const (
	// TimeoutHold keeps the taint until the node is ready.
	TimeoutHold TimeoutAction = "Hold"
	// TimeoutRelease takes the taint off.
	TimeoutRelease TimeoutAction = "Release"
	// TimeoutDeleteNodeClaim deletes the Karpenter NodeClaim that owns the node, so that Karpenter replaces it. A node
	// without one is released.
	TimeoutDeleteNodeClaim TimeoutAction = "DeleteNodeClaim"
)

// ExistingNodes is what a rule does with nodes that are older than itself.
//
// +kubebuilder:validation:Enum=Ignore;Enforce
type ExistingNodes string

// What a rule does with nodes that are older than itself.
const (
	// ExistingNodesIgnore never adds the taint to them. One that carries it already is released like any other.
	ExistingNodesIgnore ExistingNodes = "Ignore"
	// ExistingNodesEnforce holds them too.
	ExistingNodesEnforce ExistingNodes = "Enforce"
)

// NodeReadinessRuleSpec is what a user asks for. The required parts (requiredDaemonSets, conditions, csiDrivers,
// resources, resourceSlices, objects) are ANDed, and there must be one. Everything may be changed later.
//
// +kubebuilder:validation:XValidation:rule="[has(self.requiredDaemonSets) && size(self.requiredDaemonSets) > 0, has(self.conditions) && size(self.conditions) > 0, has(self.csiDrivers) && size(self.csiDrivers) > 0, has(self.resources) && size(self.resources) > 0, has(self.resourceSlices) && size(self.resourceSlices) > 0, has(self.objects) && size(self.objects) > 0].exists(required, required)",message="the rule requires nothing, so it would release every node at once: write one of requiredDaemonSets, conditions, csiDrivers, resources, resourceSlices, objects"
// +kubebuilder:validation:XValidation:rule="!has(self.optionalDaemonSets) || !has(self.nodeSelector) || self.optionalDaemonSets.all(d, !has(d.readyLabel) || !has(self.nodeSelector.matchLabels) || !(d.readyLabel in self.nodeSelector.matchLabels))",message="readyLabel may not be a label that the rule's nodeSelector uses, since the controller takes it off nodes: write a key of its own, such as headstart.dev/ebs-ready"
// +kubebuilder:validation:XValidation:rule="!has(self.taint) || !has(self.taint.key) || !has(self.nodeSelector) || !has(self.nodeSelector.matchLabels) || !(self.taint.key in self.nodeSelector.matchLabels)",message="taint.key may not be a label that the rule's nodeSelector uses: such a taint is there to stay, and the controller takes this one off ready nodes"
// +kubebuilder:validation:XValidation:rule="!has(self.conditionPolicy) || self.conditionPolicy != 'anyOf' || self.mode == 'continuous'",message="conditionPolicy anyOf needs mode continuous: set mode: continuous, or conditionPolicy: allOf"
// +kubebuilder:validation:XValidation:rule="self.mode == 'continuous' || !has(self.conditions) || self.conditions.all(c, !has(c.defaultStatus))",message="defaultStatus needs mode continuous: a bootstrap waits for the first report; remove defaultStatus or set mode: continuous"
type NodeReadinessRuleSpec struct {
	// mode is bootstrap-only (hold once, at boot) or continuous (hold again when something is lost). With Karpenter,
	// continuous makes it buy a second node for one that is held after its initialisation.
	// +kubebuilder:default=bootstrap-only
	// +optional
	Mode Mode `json:"mode,omitempty"`

	// nodeSelector binds nodes by label. Absent: bound by annotation only. Fargate and virtual nodes, where no DaemonSet
	// runs, are bound only where it names their label (eks.amazonaws.com/compute-type, type).
	// +kubebuilder:validation:XValidation:rule="(has(self.matchLabels) && size(self.matchLabels) > 0) || (has(self.matchExpressions) && size(self.matchExpressions) > 0)",message="an empty nodeSelector would hold every node, the control plane too: for all Linux nodes write matchLabels: {kubernetes.io/os: linux}; leave nodeSelector out to bind by annotation"
	// +kubebuilder:validation:XValidation:rule="!has(self.matchExpressions) || self.matchExpressions.all(e, e.operator in ['In', 'NotIn', 'Exists', 'DoesNotExist'])",message="matchExpressions.operator must be one of In, NotIn, Exists, DoesNotExist"
	// +kubebuilder:validation:XValidation:rule="!has(self.matchExpressions) || self.matchExpressions.all(e, (e.operator in ['In', 'NotIn']) == (has(e.values) && size(e.values) > 0))",message="matchExpressions.values must be set for In and NotIn, and left out for Exists and DoesNotExist"
	// +optional
	NodeSelector *metav1.LabelSelector `json:"nodeSelector,omitempty"`

	// requiredDaemonSets must each have a Ready pod on the node.
	// +kubebuilder:validation:MaxItems=32
	// +listType=atomic
	// +optional
	RequiredDaemonSets []RequiredDaemonSet `json:"requiredDaemonSets,omitempty"`

	// optionalDaemonSets are never waited for; their readyLabel appears on the node when they are ready.
	// +kubebuilder:validation:MaxItems=32
	// +listType=atomic
	// +optional
	OptionalDaemonSets []OptionalDaemonSet `json:"optionalDaemonSets,omitempty"`

	// conditions are node conditions that must have the status named.
	// +kubebuilder:validation:MaxItems=32
	// +listType=map
	// +listMapKey=type
	// +optional
	Conditions []RequiredCondition `json:"conditions,omitempty"`

	// conditionPolicy says whether all conditions must hold or any one of them (anyOf: continuous only).
	// +kubebuilder:default=allOf
	// +optional
	ConditionPolicy ConditionPolicy `json:"conditionPolicy,omitempty"`

	// csiDrivers must be registered in the node's CSINode.
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=63
	// +listType=set
	// +optional
	CSIDrivers []string `json:"csiDrivers,omitempty"`

	// resources must be allocatable on the node.
	// +kubebuilder:validation:MaxItems=8
	// +listType=map
	// +listMapKey=name
	// +optional
	Resources []RequiredResource `json:"resources,omitempty"`

	// resourceSlices are devices that a DRA driver must have published for the node.
	// +kubebuilder:validation:MaxItems=32
	// +listType=map
	// +listMapKey=driver
	// +optional
	ResourceSlices []RequiredResourceSlices `json:"resourceSlices,omitempty"`

	// objects must exist in the cluster, and an expression over each be true.
	// +kubebuilder:validation:MaxItems=16
	// +listType=atomic
	// +optional
	Objects []RequiredObject `json:"objects,omitempty"`

	// taint is what an unready node carries.
	// +kubebuilder:default={}
	// +optional
	Taint RuleTaint `json:"taint,omitempty"`

	// readinessTimeout is how long a node may be held, from its registration, or from when it was held again.
	// +kubebuilder:default="10m"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`
	// +kubebuilder:validation:XValidation:rule="duration(self) > duration('0s')",message="readinessTimeout must be longer than 0s; to hold without limit write onTimeout: Hold"
	// +optional
	ReadinessTimeout *metav1.Duration `json:"readinessTimeout,omitempty"`

	// onTimeout is what happens then.
	// +kubebuilder:default=Release
	// +optional
	OnTimeout TimeoutAction `json:"onTimeout,omitempty"`

	// rearmOnReboot holds the node again when its bootID changes. With Karpenter, a reboot that Karpenter did not
	// start makes it buy a second node meanwhile.
	// +kubebuilder:default=false
	// +optional
	RearmOnReboot bool `json:"rearmOnReboot,omitempty"`

	// suspend freezes the rule: nothing is written for it, and nodes stay as they are.
	// +kubebuilder:default=false
	// +optional
	Suspend bool `json:"suspend,omitempty"`

	// damping says for how long facts must last before they count.
	// +optional
	Damping *Damping `json:"damping,omitempty"`

	// budget bounds what the rule may do to its nodes within a while. Past it the rule stops, and says so by the condition
	// Braked and a Warning.
	// +optional
	Budget *Budget `json:"budget,omitempty"`

	// existingNodes says whether nodes that were there before the rule are held.
	// +kubebuilder:default=Ignore
	// +optional
	ExistingNodes ExistingNodes `json:"existingNodes,omitempty"`

	// dryRun only counts what the rule would do.
	// +kubebuilder:default=false
	// +optional
	DryRun bool `json:"dryRun,omitempty"`
}

// RuleTaint is the taint of a rule.
type RuleTaint struct {
	// key of the taint; default readiness.k8s.io/<rule name>. Karpenter and Cluster Autoscaler take readiness.k8s.io/ for
	// startup taints, Cluster Autoscaler startup-taint.cluster-autoscaler.kubernetes.io/ too. A key of another domain must
	// be in the NodePool's startupTaints, and may not be one of Kubernetes' or Karpenter's own.
	// +kubebuilder:validation:MaxLength=317
	// +kubebuilder:validation:Pattern=`^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$`
	// +kubebuilder:validation:XValidation:rule="self.matches('^(readiness[.]k8s[.]io|startup-taint[.]cluster-autoscaler[.]kubernetes[.]io)/') || !self.matches('^([^/]*[.])?(kubernetes[.]io|k8s[.]io|karpenter[.]sh)/')",message="taint.key may not be of kubernetes.io, k8s.io or karpenter.sh, whose taints belong to others: write readiness.k8s.io/<name>, startup-taint.cluster-autoscaler.kubernetes.io/<name> or a key of your own domain"
	// +optional
	Key string `json:"key,omitempty"`
	// value of the taint.
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$`
	// +kubebuilder:default=pending
	// +optional
	Value string `json:"value,omitempty"`
	// effect of the taint. NoExecute evicts what does not tolerate it.
	// +kubebuilder:validation:Enum=NoSchedule;PreferNoSchedule;NoExecute
	// +kubebuilder:default=NoSchedule
	// +optional
	Effect corev1.TaintEffect `json:"effect,omitempty"`
}

// NodeReadinessRuleStatus counts; what holds one node stands on the node.
type NodeReadinessRuleStatus struct {
	// observedGeneration is the generation that the counts are of.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// conditions: Accepted (the rule is understood and in force), Conflict (another rule disagrees about the taint),
	// Unsatisfiable (something required can never come while the taint is there), Braked (the budget is used up); and where
	// there was such trouble, Undecided (what the rule asks about cannot be looked at) and WriteFailed (nodes cannot be written).
	// +listType=map
	// +listMapKey=type
	// +optional
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// matchedNodes are bound to the rule.
	MatchedNodes int32 `json:"matchedNodes"`
	// heldNodes carry the taint because of the rule.
	HeldNodes int32 `json:"heldNodes"`
	// releasedNodes have all that the rule requires.
	ReleasedNodes int32 `json:"releasedNodes"`
	// timedOutNodes were not ready in time, whatever was done about it.
	TimedOutNodes int32 `json:"timedOutNodes"`
	// wouldHoldNodes are those that a dry-run rule would hold.
	WouldHoldNodes int32 `json:"wouldHoldNodes"`
}
