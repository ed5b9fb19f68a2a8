package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"headstart.dev/internal/decode"
)

// OnDeadline says what happens to a pod that still waits when the deadline of its gate comes.
// +kubebuilder:validation:Enum=Hold;Release
type OnDeadline string

// What a deadline does.
const (
	// OnDeadlineHold keeps the gate until its requirements hold, for ever if need be.
	OnDeadlineHold OnDeadline = "Hold"
	// OnDeadlineRelease lifts the gate, unsteered, so that the scheduler and the autoscaler can act on the pod.
	OnDeadlineRelease OnDeadline = "Release"
)

// Placement says how a pod is steered to warm nodes when its last gate is lifted.
// +kubebuilder:validation:Enum=None;Preferred;Required
type Placement string

// How a pod is steered.
const (
	// PlacementNone leaves the pod's affinity as it is.
	PlacementNone Placement = "None"
	// PlacementPreferred adds a preferred node affinity of weight 100 to a warm node with room for the pod.
	PlacementPreferred Placement = "Preferred"
	// PlacementRequired adds that, and a required node affinity to a label that the controller sets on warm nodes: the
	// pod runs on a node that has its images or not at all.
	PlacementRequired Placement = "Required"
)

// Overflow says what happens to pods for which waiting for nodes cannot help.
// +kubebuilder:validation:Enum=Hold;Release;Wait
type Overflow string

// What happens to pods for which waiting for nodes cannot help.
const (
	// OverflowHold lets them wait until the deadline.
	OverflowHold Overflow = "Hold"
	// OverflowRelease lifts their gate at once, unsteered.
	OverflowRelease Overflow = "Release"
	// OverflowWait is the earlier name of OverflowHold.
	OverflowWait Overflow = "Wait"
)

// GatePolicySpec says which gate is meant, what a pod that carries it waits for, and what happens when that never comes.
// +kubebuilder:validation:XValidation:rule="!has(self.placement) || self.placement != 'Required' || self.requires.exists(r, has(r.images))",message="placement Required is for pods that wait for warm images: add images: {minNodes: 1} to requires, or write placement: Preferred"
type GatePolicySpec struct {
	// gateName is the name of the scheduling gate, as pods carry it in spec.schedulingGates. Gates that no policy names
	// are never touched. Two policies for one gate are a conflict: the older one holds.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=316
	// +kubebuilder:validation:XValidation:rule="!format.qualifiedName().validate(self).hasValue()",message="gateName must be a qualified name, as schedulingGates has it: example.com/image-preload"
	// +required
	GateName string `json:"gateName"`

	// requires lists what must hold before the gate is lifted; all of it must hold.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:XValidation:rule="self.filter(r, has(r.gang)).size() <= 1",message="requires may hold one gang: a pod is in one gang, make one GatePolicy each"
	// +listType=atomic
	// +required
	Requires []Requirement `json:"requires"`

	// deadline is how long a pod waits at most, counted from its creation or from when the last gate of others went: while
	// a queue holds the pod, the time is the queue's.
	// +kubebuilder:default="5m"
	// +kubebuilder:validation:XValidation:rule="duration(self) > duration('0s')",message="deadline must be longer than 0s: write 5m, or onDeadline: Hold to wait for ever"
	// +optional
	Deadline *metav1.Duration `json:"deadline,omitempty"`

	// onDeadline says what happens then: Release lifts the gate (unsteered), Hold keeps it.
	// +kubebuilder:default=Release
	// +optional
	OnDeadline OnDeadline `json:"onDeadline,omitempty"`

	// overflow says what happens to a pod for which waiting for nodes cannot help, because no node could run it now or soon
	// (preemption counted) and nothing brings nodes while it is gated: Release, the default, lifts the gate at once,
	// unsteered, so that an autoscaler sees the pod; Hold lets it wait until the deadline. Release that is written out also
	// lifts the gate where the nodes that are warm are full and others have room. A gang of which some could run now waits
	// for the rest; so does one under onDeadline Hold.
	// +optional
	Overflow Overflow `json:"overflow,omitempty"`

	// placement says how a pod whose last gate is lifted is steered to nodes on which its images are warm: None leaves
	// its affinity alone, Preferred adds a preference for such a node with room, Required lets it run on such nodes only,
	// by the label headstart.dev/warm-<images> that the controller sets on them. With Required the gate goes with the
	// pod's last one. A pod whose gate is lifted for its deadline or by overflow is not steered.
	// +kubebuilder:default=Preferred
	// +optional
	Placement Placement `json:"placement,omitempty"`

	// warmPool names a WarmPool that brings capacity while pods wait: no autoscaler sees a gated pod, so the pool grows
	// by what they ask for and shrinks as their gates are lifted. The pool's max and budget still hold.
	// +optional
	WarmPool *WarmPoolReference `json:"warmPool,omitempty"`
}

// WarmPoolReference names a WarmPool.
type WarmPoolReference struct {
	// namespace of the WarmPool.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +required
	Namespace string `json:"namespace"`

	// name of the WarmPool.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +required
	Name string `json:"name"`
}

// Requirement is one thing that a pod waits for. Exactly one field is set.
// +kubebuilder:validation:ExactlyOneOf=images;references;nodes;object;service;gang
type Requirement struct {
	// images: the pod's images are warm on nodes where the pod could run.
	// +optional
	Images *ImagesRequirement `json:"images,omitempty"`

	// references: every ConfigMap, Secret, PersistentVolumeClaim, ServiceAccount and other object that the pod names
	// exists. Those that the pod marks optional are not waited for.
	// +optional
	References *ReferencesRequirement `json:"references,omitempty"`

	// nodes: enough nodes on which the pod could run have a condition.
	// +optional
	Nodes *NodesRequirement `json:"nodes,omitempty"`

	// object: an object exists and an expression over it holds.
	// +optional
	Object *ObjectRequirement `json:"object,omitempty"`

	// service: a Service has enough ready endpoints.
	// +optional
	Service *ServiceRequirement `json:"service,omitempty"`

	// gang: all members of a group of pods are there and fit on the nodes together; they are lifted all or none.
	// +optional
	Gang *GangRequirement `json:"gang,omitempty"`
}

// ImagesRequirement waits for warm images. An image is warm on a node when it is present, unpacked and complete there; a
// node counts when every image of the pod, init containers included, is warm on it and the pod could run there: its
// node selector, affinity, tolerations and resource requests fit what is free.
// +kubebuilder:validation:XValidation:rule="!has(self.maxPullNodes) || !has(self.minNodes) || self.maxPullNodes >= self.minNodes",message="maxPullNodes must not be below minNodes, or the pods would wait for nodes that nobody asks to pull"
// +kubebuilder:validation:XValidation:rule="!has(self.maxPullNodes) || (has(self.pull) && self.pull)",message="maxPullNodes has no meaning without pull: true"
// +kubebuilder:validation:XValidation:rule="!has(self.allow) || (has(self.pull) && self.pull)",message="allow has no meaning without pull: true"
type ImagesRequirement struct {
	// minNodes is how many such nodes there must be.
	// +kubebuilder:default=1
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000
	// +optional
	MinNodes int32 `json:"minNodes,omitempty"`

	// pull asks the agents of nodes where waiting pods could run to fetch their images, by the one PrepullPolicy that belongs
	// to this GatePolicy and goes away when no pod waits for images any more. At most 60 images are pulled at a time, 10 of
	// them for the pods of one namespace. Nodes pull with their own credentials, not
	// with the pods' imagePullSecrets.
	// +optional
	Pull bool `json:"pull,omitempty"`

	// maxPullNodes is how many nodes are asked at most for the images of one kind of pod; by default 10, or minNodes where
	// that is more. As many are asked as the waiting pods need.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000
	// +optional
	MaxPullNodes int32 `json:"maxPullNodes,omitempty"`

	// allow lists the registries whose images are pulled so: registry.example, or registry.example/team for what begins so.
	// By default those of which some node has an image already: who may make pods cannot have nodes pull from anywhere.
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=253
	// +listType=set
	// +optional
	Allow []string `json:"allow,omitempty"`
}

// ReferencesRequirement waits for the objects that a pod names in its own namespace, and for the cluster's classes that
// it names.
type ReferencesRequirement struct{}

// NodesRequirement counts nodes that have a condition with status True and on which the pod could run: node selector,
// affinity, tolerations and allocatable resources fit. What other pods take at present does not count against a node.
type NodesRequirement struct {
	// condition is the condition's type, such as headstart.dev/CSIReady.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=316
	// +required
	Condition string `json:"condition"`

	// min is how many such nodes there must be.
	// +kubebuilder:default=1
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000
	// +optional
	Min int32 `json:"min,omitempty"`
}

// ObjectRequirement waits until an object exists, is not being deleted, and an expression over it is true.
type ObjectRequirement struct {
	// apiVersion of the object: v1, apps/v1.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^([a-z0-9.-]+/)?v[0-9a-z]+$')",message="apiVersion must be version or group/version: v1, apps/v1"
	// +required
	APIVersion string `json:"apiVersion"`

	// kind of the object, such as ConfigMap. The controller needs the right to read it.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:XValidation:rule="self.matches('^[A-Z][A-Za-z0-9]*$')",message="kind must be written as manifests have it: ConfigMap, not configmaps"
	// +required
	Kind string `json:"kind"`

	// namespace of the object; by default the pod's. It has no meaning for kinds that have no namespace.
	// +kubebuilder:validation:MaxLength=63
	// +optional
	Namespace string `json:"namespace,omitempty"`

	// name of the object.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +required
	Name string `json:"name"`

	// expression is CEL over the variable object, and must give a bool: object.data.ready == 'true'. A field that the
	// object does not have makes it false; its cost is limited. Empty: the object need only exist.
	// +kubebuilder:validation:MaxLength=4096
	// +optional
	Expression string `json:"expression,omitempty"`
}

// ServiceRequirement waits for ready endpoints of a Service, counted once for each address of its EndpointSlices.
type ServiceRequirement struct {
	// namespace of the Service; by default the pod's.
	// +kubebuilder:validation:MaxLength=63
	// +optional
	Namespace string `json:"namespace,omitempty"`

	// name of the Service.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +required
	Name string `json:"name"`

	// minReadyEndpoints is how many endpoints must be ready.
	// +kubebuilder:default=1
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=10000
	// +optional
	MinReadyEndpoints int32 `json:"minReadyEndpoints,omitempty"`
}

// GangRequirement waits until all members of a gang are there, everything else that the policy requires holds for each
// of them, and they fit on the nodes together. Then the gate is lifted from all of them. When a member is past the gate
// (the controller was killed half way, or a deadline or another controller lifted it), the others follow at once.
//
// +kubebuilder:validation:XValidation:rule="has(self.size) != has(self.sizeFrom)",message="a gang needs size: how many members there must be, or in its place sizeFrom: Label, Annotation, Owner or PodGroup"
// +kubebuilder:validation:XValidation:rule="has(self.label) || (has(self.sizeFrom) && self.sizeFrom in ['Owner', 'PodGroup'])",message="label is missing: the key of the pod label whose value names the gang, as job-name"
// +kubebuilder:validation:XValidation:rule="!has(self.sizeKey) || (has(self.sizeFrom) && self.sizeFrom in ['Label', 'Annotation'])",message="sizeKey has no meaning without sizeFrom: Label or Annotation"
type GangRequirement struct {
	// label is the key of the pod label whose value names the gang, within the pod's namespace: job-name. Without it, under
	// sizeFrom Owner or PodGroup, a gang is the pods of one owner, or of one PodGroup.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=316
	// +optional
	Label string `json:"label,omitempty"`

	// size is how many members there must be.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000
	// +optional
	Size int32 `json:"size,omitempty"`

	// sizeFrom says where each gang's size is written: in a Label or an Annotation of its pods, in the object that controls
	// them (Owner: the parallelism of a Job, else replicas), or in the PodGroup of scheduling.k8s.io that they name.
	// +optional
	SizeFrom SizeFrom `json:"sizeFrom,omitempty"`

	// sizeKey is the key of that label or annotation.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=316
	// +optional
	SizeKey string `json:"sizeKey,omitempty"`
}

// SizeFrom says where the size of a gang is written.
// +kubebuilder:validation:Enum=Label;Annotation;Owner;PodGroup
type SizeFrom string

// Where the size of a gang is written.
const (
	SizeFromLabel      SizeFrom = "Label"
	SizeFromAnnotation SizeFrom = "Annotation"
	SizeFromOwner      SizeFrom = "Owner"
	SizeFromPodGroup   SizeFrom = "PodGroup"
)

// DefaultSizeKey is the key of the label or annotation that has a gang's size where sizeKey does not say.
const DefaultSizeKey = "headstart.dev/gang-size"

// GatePolicyStatus tells what the policy does at present. It holds counts, never lists of pods.
type GatePolicyStatus struct {
	// observedGeneration is the generation of the spec that the conditions speak of.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// conditions: Accepted says whether the policy is in force.
	// +listType=map
	// +listMapKey=type
	// +optional
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// waitingPods is how many pods wait for this gate.
	// +optional
	WaitingPods int32 `json:"waitingPods"`

	// liftedTotal is how many gates were lifted because the requirements held, since the policy was made.
	// +optional
	LiftedTotal int64 `json:"liftedTotal"`

	// deadlineTotal is how many gates were lifted because the deadline came, since the policy was made.
	// +optional
	DeadlineTotal int64 `json:"deadlineTotal"`

	// oldestWaiting is when the pod that waits longest was created; absent when none waits.
	// +optional
	OldestWaiting *metav1.Time `json:"oldestWaiting,omitempty"`
}

// GatePolicy says when one scheduling gate is lifted from the pods that carry it.
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:path=gatepolicies,scope=Cluster,shortName=gp
// +kubebuilder:printcolumn:name="Gate",type=string,JSONPath=`.spec.gateName`
// +kubebuilder:printcolumn:name="Accepted",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].status`
// +kubebuilder:printcolumn:name="Waiting",type=integer,JSONPath=`.status.waitingPods`
// +kubebuilder:printcolumn:name="Lifted",type=integer,JSONPath=`.status.liftedTotal`
// +kubebuilder:printcolumn:name="Deadline",type=integer,JSONPath=`.status.deadlineTotal`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type GatePolicy struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +required
	Spec GatePolicySpec `json:"spec"`
	// +optional
	Status GatePolicyStatus `json:"status,omitempty"`

	// Unreadable says why Go's types refuse the object; "" where they take it. The spec is empty then.
	Unreadable string `json:"-"`
}

// UnmarshalJSON decodes the policy alone: one that Go's types refuse stops no list and no watch, and says why in Unreadable.
func (p *GatePolicy) UnmarshalJSON(data []byte) error {
	type plain GatePolicy
	var out plain
	why, err := decode.Object(data, &out)
	if err != nil {
		return err
	}
	*p = GatePolicy(out)
	p.Unreadable = why
	return nil
}

// GatePolicyList is a list of GatePolicies.
// +kubebuilder:object:root=true
type GatePolicyList struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []GatePolicy `json:"items"`
}
