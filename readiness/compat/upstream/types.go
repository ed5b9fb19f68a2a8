package upstream

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"headstart.dev/internal/decode"
)

// GroupVersion is readiness.node.x-k8s.io/v1alpha1.
var GroupVersion = schema.GroupVersion{Group: "readiness.node.x-k8s.io", Version: "v1alpha1"}

// AddToScheme registers upstream's kind.
func AddToScheme(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(GroupVersion, &NodeReadinessRule{}, &NodeReadinessRuleList{})
	metav1.AddToGroupVersion(scheme, GroupVersion)
	return nil
}

// NodeReadinessRule keeps a taint on the nodes that its nodeSelector selects until their conditions are as it asks.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,shortName=nrr
// +kubebuilder:subresource:status
// +kubebuilder:selectablefield:JSONPath=`.spec.enforcementMode`
// +kubebuilder:selectablefield:JSONPath=`.spec.taint.key`
// +kubebuilder:selectablefield:JSONPath=`.spec.dryRun`
// +kubebuilder:printcolumn:name="Mode",type=string,JSONPath=`.spec.enforcementMode`,description="The enforcement mode of the rule: bootstrap-only or continuous."
// +kubebuilder:printcolumn:name="Taint",type=string,JSONPath=`.spec.taint.key`,description="The readiness taint applied by this rule."
// +kubebuilder:printcolumn:name="Effect",type=string,JSONPath=`.spec.taint.effect`,description="The taint effect: NoSchedule, PreferNoSchedule or NoExecute."
// +kubebuilder:printcolumn:name="DryRun",type=boolean,JSONPath=`.spec.dryRun`,description="Whether the rule is in dry-run mode and only previews taint changes."
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`,description="The age of this resource"
type NodeReadinessRule struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec NodeReadinessRuleSpec `json:"spec"`
	// +optional
	Status NodeReadinessRuleStatus `json:"status,omitempty,omitzero"`

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

// EnforcementMode says for how long a rule watches a node.
//
// +kubebuilder:validation:Enum=bootstrap-only;continuous
type EnforcementMode string

// The enforcement modes.
const (
	EnforcementModeBootstrapOnly EnforcementMode = "bootstrap-only"
	EnforcementModeContinuous    EnforcementMode = "continuous"
)

// ConditionPolicy says how many of the conditions must be met; absent is allOf.
//
// +kubebuilder:validation:Enum=allOf;anyOf
type ConditionPolicy string

// The condition policies.
const (
	ConditionPolicyAllOf ConditionPolicy = "allOf"
	ConditionPolicyAnyOf ConditionPolicy = "anyOf"
)

// NodeReadinessRuleSpec is what a user asks for. All but dryRun is fixed once it is there.
//
// +kubebuilder:validation:XValidation:rule="(!has(oldSelf.conditionPolicy) ? 'allOf' : oldSelf.conditionPolicy) == (!has(self.conditionPolicy) ? 'allOf' : self.conditionPolicy)",message="conditionPolicy is immutable"
// +kubebuilder:validation:XValidation:rule="!has(self.conditionPolicy) || self.conditionPolicy != 'anyOf' || self.conditions.all(c, !has(c.defaultStatus))",message="defaultStatus is not supported when conditionPolicy is anyOf"
// +kubebuilder:validation:XValidation:rule="self.enforcementMode != 'bootstrap-only' || !has(self.conditionPolicy) || self.conditionPolicy != 'anyOf'",message="anyOf conditionPolicy is not supported with bootstrap-only enforcementMode"
// +kubebuilder:validation:XValidation:rule="self.enforcementMode != 'bootstrap-only' || self.conditions.all(c, !has(c.defaultStatus))",message="defaultStatus should not be used with bootstrap-only enforcementMode"
type NodeReadinessRuleSpec struct {
	// conditions are the Node conditions that decide about the taint.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="conditions is immutable"
	// +listType=map
	// +listMapKey=type
	Conditions []ConditionRequirement `json:"conditions"`

	// conditionPolicy is allOf (the default: every condition must have its requiredStatus) or anyOf (one is enough;
	// not with enforcementMode bootstrap-only).
	// +optional
	ConditionPolicy ConditionPolicy `json:"conditionPolicy,omitempty"`

	// enforcementMode is bootstrap-only (the taint goes once) or continuous (it comes back when a condition is lost).
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="enforcementMode is immutable"
	EnforcementMode EnforcementMode `json:"enforcementMode"`

	// taint is what a node carries until its conditions are met. Its key is readiness.k8s.io/<name>. NoExecute evicts
	// the pods that do not tolerate it.
	// +kubebuilder:validation:XValidation:rule="self.key.startsWith('readiness.k8s.io/')",message="taint key must start with 'readiness.k8s.io/'"
	// +kubebuilder:validation:XValidation:rule="self.key.size() <= 253",message="taint key length must be at most 253 characters"
	// +kubebuilder:validation:XValidation:rule="size(self.key.split('/')) == 2",message="taint key must have exactly one '/' separator (prefix/name format)"
	// +kubebuilder:validation:XValidation:rule="size(self.key.split('/')[1]) > 0 && size(self.key.split('/')[1]) <= 63",message="taint key name part must be 1-63 characters"
	// +kubebuilder:validation:XValidation:rule="self.key.split('/')[1].matches('^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$')",message="taint key name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character"
	// +kubebuilder:validation:XValidation:rule="!has(self.value) || self.value.size() <= 63",message="taint value length must be at most 63 characters"
	// +kubebuilder:validation:XValidation:rule="!has(self.value) || self.value.matches('^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$')",message="taint value must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character"
	// +kubebuilder:validation:XValidation:rule="self.effect in ['NoSchedule', 'PreferNoSchedule', 'NoExecute']",message="taint effect must be one of 'NoSchedule', 'PreferNoSchedule', 'NoExecute'"
	// +kubebuilder:validation:XValidation:rule="!has(oldSelf.key) || self.key == oldSelf.key",message="taint key is immutable"
	// +kubebuilder:validation:XValidation:rule="!has(oldSelf.effect) || self.effect == oldSelf.effect",message="taint effect is immutable"
	// +kubebuilder:validation:XValidation:rule="!has(oldSelf.value) || self.value == oldSelf.value",message="taint value is immutable"
	Taint corev1.Taint `json:"taint"`

	// nodeSelector binds nodes by label. An empty one, which would bind every node, is refused.
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="nodeSelector is immutable"
	// +kubebuilder:validation:XValidation:rule="(has(self.matchLabels) && size(self.matchLabels) > 0) || (has(self.matchExpressions) && size(self.matchExpressions) > 0)",message="nodeSelector must not be empty"
	NodeSelector metav1.LabelSelector `json:"nodeSelector"`

	// dryRun only tells in the status what the rule would do.
	// +optional
	DryRun bool `json:"dryRun,omitempty"`
}

// ConditionRequirement is a Node condition that must have a status.
type ConditionRequirement struct {
	// type of the Node condition.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=316
	Type string `json:"type"`
	// requiredStatus is one of True, False, Unknown.
	// +kubebuilder:validation:Enum="True";"False";Unknown
	RequiredStatus corev1.ConditionStatus `json:"requiredStatus"`
	// defaultStatus stands for a condition that the Node does not have; Unknown where it is left out. Not with
	// enforcementMode bootstrap-only.
	// +kubebuilder:validation:Enum="True";"False";Unknown
	// +optional
	DefaultStatus corev1.ConditionStatus `json:"defaultStatus,omitempty"`
}

// NodeReadinessRuleStatus is upstream's, and conditions beside it. The lists hold the first MaxListedNodes nodes, held
// ones first: the nodes themselves tell of all.
//
// +kubebuilder:validation:MinProperties=1
type NodeReadinessRuleStatus struct {
	// observedGeneration is the generation that the rest is of.
	// +kubebuilder:validation:Minimum=1
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// appliedNodes are nodes that the rule governs: at most 100 names, those that are held first.
	// +kubebuilder:validation:MaxItems=5000
	// +kubebuilder:validation:items:MaxLength=253
	// +listType=set
	// +optional
	AppliedNodes []string `json:"appliedNodes,omitempty"`
	// failedNodes are nodes whose writes keep failing.
	// +kubebuilder:validation:MaxItems=5000
	// +listType=map
	// +listMapKey=nodeName
	// +optional
	FailedNodes []NodeFailure `json:"failedNodes,omitempty"`
	// nodeEvaluations say of the same nodes as appliedNodes what the rule sees.
	// +kubebuilder:validation:MaxItems=5000
	// +listType=map
	// +listMapKey=nodeName
	// +optional
	NodeEvaluations []NodeEvaluation `json:"nodeEvaluations,omitempty"`
	// dryRunResults count what a rule with dryRun would do, as things are now.
	// +optional
	DryRunResults *DryRunResults `json:"dryRunResults,omitempty"`
	// conditions say what is wrong with the rule, and are absent otherwise: Accepted is False where it cannot be carried
	// out, Conflict is True where another rule disagrees about the taint. They are not upstream's.
	// +listType=map
	// +listMapKey=type
	// +optional
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// NodeFailure is a node that could not be written.
type NodeFailure struct {
	// nodeName is the name of the node.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`
	NodeName string `json:"nodeName"`
	// reason is one word.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	// +optional
	Reason string `json:"reason,omitempty"`
	// message is for a person.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=10240
	// +optional
	Message string `json:"message,omitempty"`
	// lastEvaluationTime is when that was seen first.
	LastEvaluationTime metav1.Time `json:"lastEvaluationTime"`
}

// NodeEvaluation is what the rule sees of a node.
type NodeEvaluation struct {
	// nodeName is the name of the node.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`
	NodeName string `json:"nodeName"`
	// conditionResults are the rule's conditions on the node.
	// +kubebuilder:validation:MaxItems=5000
	// +listType=map
	// +listMapKey=type
	ConditionResults []ConditionEvaluationResult `json:"conditionResults"`
	// taintStatus says whether the node has the taint: Present or Absent.
	// +kubebuilder:validation:Enum=Present;Absent
	TaintStatus TaintStatus `json:"taintStatus"`
	// lastEvaluationTime is when the rest last changed.
	LastEvaluationTime metav1.Time `json:"lastEvaluationTime"`
}

// TaintStatus says whether a node has the taint.
type TaintStatus string

// The taint statuses.
const (
	TaintStatusPresent TaintStatus = "Present"
	TaintStatusAbsent  TaintStatus = "Absent"
)

// ConditionEvaluationResult is one condition of a rule on a node.
type ConditionEvaluationResult struct {
	// type of the Node condition.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=316
	Type string `json:"type"`
	// currentStatus is the Node's, or the default where it has none.
	// +kubebuilder:validation:Enum="True";"False";Unknown
	CurrentStatus corev1.ConditionStatus `json:"currentStatus"`
	// requiredStatus is the rule's.
	// +kubebuilder:validation:Enum="True";"False";Unknown
	RequiredStatus corev1.ConditionStatus `json:"requiredStatus"`
	// defaultStatus is the rule's.
	// +kubebuilder:validation:Enum="True";"False";Unknown
	// +optional
	DefaultStatus corev1.ConditionStatus `json:"defaultStatus,omitempty"`
}

// DryRunResults count what a dry-run rule would do.
//
// +kubebuilder:validation:MinProperties=1
type DryRunResults struct {
	// affectedNodes is how many nodes the rule governs.
	// +kubebuilder:validation:Minimum=0
	// +optional
	AffectedNodes *int32 `json:"affectedNodes,omitempty"`
	// taintsToAdd is how many of them would get the taint.
	// +kubebuilder:validation:Minimum=0
	// +optional
	TaintsToAdd *int32 `json:"taintsToAdd,omitempty"`
	// taintsToRemove is how many would lose it.
	// +kubebuilder:validation:Minimum=0
	// +optional
	TaintsToRemove *int32 `json:"taintsToRemove,omitempty"`
	// riskyOperations is how many lack one of the conditions altogether.
	// +kubebuilder:validation:Minimum=0
	// +optional
	RiskyOperations *int32 `json:"riskyOperations,omitempty"`
	// summary is for a person.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=4096
	Summary string `json:"summary"`
}
