package v1alpha1

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"headstart.dev/internal/decode"
)

// WarmPoolBackend says what keeps the capacity there.
//
// +kubebuilder:validation:Enum=PausePods;CapacityBuffer;StaticNodePool
type WarmPoolBackend string

// The backends. PausePods works with every autoscaler: real pods preempt the pool's. CapacityBuffer drives an
// autoscaling.x-k8s.io/v1beta1 object and needs Karpenter's or Cluster Autoscaler's feature gate. StaticNodePool drives
// spec.replicas of an existing static Karpenter NodePool, which lets the pool do so by the annotation
// headstart.dev/warm-pool: <namespace>/<name>; one replica is then one free node.
const (
	BackendPausePods      WarmPoolBackend = "PausePods"
	BackendCapacityBuffer WarmPoolBackend = "CapacityBuffer"
	BackendStaticNodePool WarmPoolBackend = "StaticNodePool"
)

// DefaultPriorityClassName is the PriorityClass (-10, preemptionPolicy Never) that the controller makes when a pool
// uses it and the cluster lacks it.
const DefaultPriorityClassName = "headstart-warm-pool"

// WarmPoolSpec is what a user asks for. The size is the largest of min, the floors of the active schedules, the
// adaptive size and what gated pods wait for; max and budget cap it and win over all of them.
//
// +kubebuilder:validation:XValidation:rule="self.min <= self.max",message="min must not be above max: lower min or raise max"
// +kubebuilder:validation:XValidation:rule="!has(self.adaptive) || !has(self.adaptive.costPerMiss) || (has(self.budget) && has(self.budget.costPerReplicaHour))",message="adaptive.costPerMiss needs budget.costPerReplicaHour: the quantile is derived from both"
// +kubebuilder:validation:XValidation:rule="self.backend != 'StaticNodePool' || (has(self.template) && has(self.template.nodeSelector) && 'karpenter.sh/nodepool' in self.template.nodeSelector)",message="backend StaticNodePool needs template.nodeSelector['karpenter.sh/nodepool']: the static NodePool to scale"
// +kubebuilder:validation:XValidation:rule="!has(self.percent) || has(self.shape.scalableRef)",message="percent needs shape.scalableRef: it is a share of that workload's replicas"
type WarmPoolSpec struct {
	// backend keeps the capacity there.
	// +kubebuilder:default=PausePods
	// +optional
	Backend WarmPoolBackend `json:"backend,omitempty"`
	// shape is the size of one replica.
	// +required
	Shape WarmPoolShape `json:"shape"`
	// template says where replicas go.
	// +optional
	Template WarmPoolTemplate `json:"template,omitzero"`
	// min is the smallest size. The scale subresource writes it.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:default=0
	// +optional
	Min int32 `json:"min"`
	// max is the largest size; nothing raises the pool above it.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=10000
	// +required
	Max int32 `json:"max"`
	// percent is a size as a share of the replicas that shape.scalableRef's workload is to have, rounded up. The largest of
	// all inputs wins.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000
	// +optional
	Percent *int32 `json:"percent,omitempty"`
	// schedules are floors at certain times. Where they overlap the largest wins.
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=32
	// +optional
	Schedules []WarmPoolSchedule `json:"schedules,omitempty"`
	// adaptive sizes the pool from the demand it has seen. Without it only min and schedules do.
	// +optional
	Adaptive *WarmPoolAdaptive `json:"adaptive,omitempty"`
	// budget caps what the pool may cost.
	// +optional
	Budget *WarmPoolBudget `json:"budget,omitempty"`
	// warm says when a replica counts as warm. Without it, a replica is warm when it is ready.
	// +optional
	Warm *WarmPoolWarm `json:"warm,omitempty"`
}

// WarmPoolShape is the size of one replica: resources given, or those of a workload's pod.
//
// +kubebuilder:validation:XValidation:rule="has(self.resources) != has(self.scalableRef)",message="set exactly one of shape.resources and shape.scalableRef"
type WarmPoolShape struct {
	// resources that one replica requests.
	// +kubebuilder:validation:MinProperties=1
	// +kubebuilder:validation:MaxProperties=16
	// +kubebuilder:validation:XValidation:rule="self.all(k, type(self[k]) == int || isQuantity(self[k]))",message="resources must be quantities, such as 1, 500m or 2Gi"
	// +optional
	Resources corev1.ResourceList `json:"resources,omitempty"`
	// scalableRef names a workload: one replica requests what one of its pods does, and its pods are the demand.
	// +optional
	ScalableRef *ScalableRef `json:"scalableRef,omitempty"`
}

// ScalableRef names a workload with a pod template.
type ScalableRef struct {
	// kind of the workload.
	// +kubebuilder:validation:Enum=Deployment;StatefulSet;ReplicaSet
	// +required
	Kind string `json:"kind"`
	// name of the workload, in the pool's namespace.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +required
	Name string `json:"name"`
}

// WarmPoolTemplate says where replicas go and what else their pods have. Where shape.scalableRef names a workload, what is
// left out is taken from its pods, but for labels and annotations: a replica must not be taken for one of them.
//
// +kubebuilder:validation:XValidation:rule="!has(self.labels) || !self.labels.exists(k, k == 'headstart.dev/warm-pool')",message="labels must leave out headstart.dev/warm-pool: the pool's replicas are known by it"
type WarmPoolTemplate struct {
	// nodeSelector of the replicas: that of the workloads the pool is for.
	// +kubebuilder:validation:MaxProperties=32
	// +optional
	NodeSelector map[string]string `json:"nodeSelector,omitempty"`
	// tolerations of the replicas.
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=32
	// +optional
	Tolerations []corev1.Toleration `json:"tolerations,omitempty"`
	// priorityClassName of pause pods. headstart-warm-pool is made when it is missing; any other must be there.
	// +kubebuilder:default=headstart-warm-pool
	// +kubebuilder:validation:MaxLength=253
	// +optional
	PriorityClassName string `json:"priorityClassName,omitempty"`
	// image of pause pods. By default one that the pool's nodes already have is looked for (a sandbox image), and
	// registry.k8s.io/pause is used where none is known.
	// +kubebuilder:validation:MaxLength=512
	// +optional
	Image string `json:"image,omitempty"`
	// affinity of the replicas. Taken from a workload, what its pods want of each other is what replicas want of each other.
	// +optional
	Affinity *corev1.Affinity `json:"affinity,omitempty"`
	// topologySpreadConstraints of the replicas.
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	// +optional
	TopologySpreadConstraints []corev1.TopologySpreadConstraint `json:"topologySpreadConstraints,omitempty"`
	// labels of the pause pods, beside headstart.dev/warm-pool.
	// +kubebuilder:validation:MaxProperties=32
	// +optional
	Labels map[string]string `json:"labels,omitempty"`
	// annotations of the pause pods.
	// +kubebuilder:validation:MaxProperties=32
	// +optional
	Annotations map[string]string `json:"annotations,omitempty"`
	// schedulerName of the pause pods.
	// +kubebuilder:validation:MaxLength=253
	// +optional
	SchedulerName string `json:"schedulerName,omitempty"`
	// imagePullSecrets of the pause pods.
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	// +optional
	ImagePullSecrets []corev1.LocalObjectReference `json:"imagePullSecrets,omitempty"`
	// runtimeClassName of the pause pods.
	// +kubebuilder:validation:MaxLength=253
	// +optional
	RuntimeClassName *string `json:"runtimeClassName,omitempty"`
}

// WarmPoolSchedule is a floor between two times. start and end are wall-clock times of timeZone: a time that daylight
// saving skips happens at the end of the gap, one that it repeats happens the first time.
type WarmPoolSchedule struct {
	// name of the schedule.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +required
	Name string `json:"name"`
	// start is a five-field cron expression. The pool is warm at this time: it grows earlier by the observed lead time.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	// +kubebuilder:validation:XValidation:rule="!self.contains('TZ=') && !self.startsWith('@every')",message="write the zone in timeZone, and times instead of @every"
	// +required
	Start string `json:"start"`
	// end is a five-field cron expression.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	// +kubebuilder:validation:XValidation:rule="!self.contains('TZ=') && !self.startsWith('@every')",message="write the zone in timeZone, and times instead of @every"
	// +required
	End string `json:"end"`
	// timeZone is an IANA name, America/New_York.
	// +kubebuilder:default=UTC
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule="self != 'Local'",message="name a zone such as Europe/Berlin: the controller's local time is not yours"
	// +optional
	TimeZone string `json:"timeZone,omitempty"`
	// min is the floor.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=10000
	// +required
	Min int32 `json:"min"`
}

// WarmPoolAdaptive sizes the pool from demand: the quantile, over the hours of the window, of the largest rise of
// demand within one lead time.
//
// +kubebuilder:validation:XValidation:rule="!(has(self.quantile) && has(self.costPerMiss))",message="set quantile or costPerMiss, not both: the one is derived from the other"
type WarmPoolAdaptive struct {
	// window is how far back demand counts.
	// +kubebuilder:default="168h"
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1h') && duration(self) <= duration('2160h')",message="window must be between 1h and 2160h"
	// +optional
	Window *metav1.Duration `json:"window,omitempty"`
	// quantile of the hours whose largest rise the pool covers, "0.95" when neither it nor costPerMiss is set.
	// +kubebuilder:validation:Pattern=`^(0(\.[0-9]{1,6})?|1(\.0{1,6})?)$`
	// +optional
	Quantile string `json:"quantile,omitempty"`
	// costPerMiss is what one pod costs that finds no warm replica. The quantile is then costPerMiss / (costPerMiss +
	// the cost of holding one replica for an hour).
	// +kubebuilder:validation:Pattern=`^[0-9]{1,9}(\.[0-9]{1,6})?$`
	// +optional
	CostPerMiss string `json:"costPerMiss,omitempty"`
	// headroom is added to the adaptive size: replicas, or percent of it.
	// +kubebuilder:validation:XIntOrString
	// +kubebuilder:validation:XValidation:rule="type(self) == int ? self >= 0 && self <= 10000 : self.matches('^[0-9]{1,3}%$')",message="headroom is a number of replicas, or a percentage such as 10%"
	// +optional
	Headroom *intstr.IntOrString `json:"headroom,omitempty"`
	// scaleDownAfter is how long a smaller adaptive size must hold before the pool follows. It grows at once.
	// +kubebuilder:default="10m"
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('0s') && duration(self) <= duration('24h')",message="scaleDownAfter must be between 0s and 24h"
	// +optional
	ScaleDownAfter *metav1.Duration `json:"scaleDownAfter,omitempty"`
}

// WarmPoolBudget caps what the pool may cost. The currency is the user's.
//
// +kubebuilder:validation:XValidation:rule="!has(self.maxPerHour) || has(self.costPerReplicaHour)",message="maxPerHour needs costPerReplicaHour"
type WarmPoolBudget struct {
	// costPerReplicaHour is what one replica costs for an hour.
	// +kubebuilder:validation:Pattern=`^[0-9]{1,9}(\.[0-9]{1,6})?$`
	// +optional
	CostPerReplicaHour string `json:"costPerReplicaHour,omitempty"`
	// maxPerHour caps the pool: it never has more replicas than this pays for.
	// +kubebuilder:validation:Pattern=`^[0-9]{1,9}(\.[0-9]{1,6})?$`
	// +optional
	MaxPerHour string `json:"maxPerHour,omitempty"`
}

// WarmPoolWarm says when a replica is warm: its node has completed the rule and holds the images.
type WarmPoolWarm struct {
	// rule is a NodeReadinessRule that the node must have completed.
	// +kubebuilder:validation:MaxLength=253
	// +optional
	Rule string `json:"rule,omitempty"`
	// prepull is a PrepullPolicy whose images the node must hold.
	// +kubebuilder:validation:MaxLength=253
	// +optional
	Prepull string `json:"prepull,omitempty"`
}

// WarmPoolStatus is what the controller saw and decided. It is written on change, at most once a second.
type WarmPoolStatus struct {
	// observedGeneration is the generation of the spec that this status is of.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// conditions: Accepted (the spec can be followed), Ready (the backend holds what is desired), Limited (max or budget
	// cut it).
	// +listType=map
	// +listMapKey=type
	// +optional
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// desired is the size decided on.
	Desired int32 `json:"desired"`
	// ready counts replicas that hold capacity now.
	Ready int32 `json:"ready"`
	// readyWarm counts those on nodes where spec.warm holds.
	ReadyWarm int32 `json:"readyWarm"`
	// consumed counts replicas that workloads have taken since the pool was made, by preemption: backend PausePods only.
	Consumed int64 `json:"consumed"`
	// refillP95 is the 95th percentile of the time from a replica taken to the next one ready.
	// +optional
	RefillP95 *metav1.Duration `json:"refillP95,omitempty"`
	// leadP95 is the 95th percentile of the time that a replica takes which needs a new node.
	// +optional
	LeadP95 *metav1.Duration `json:"leadP95,omitempty"`
	// costPerHour is desired x costPerReplicaHour.
	// +optional
	CostPerHour string `json:"costPerHour,omitempty"`
	// saving sets what the pool has cost against the waits it has spared.
	// +optional
	Saving *WarmPoolSaving `json:"saving,omitempty"`
	// reason says which input decided the size, for a person.
	// +optional
	Reason string `json:"reason,omitempty"`
	// selector of the replicas, for the scale subresource.
	// +optional
	Selector string `json:"selector,omitempty"`
	// nextChange is the next change of size that is known now.
	// +optional
	NextChange *WarmPoolChange `json:"nextChange,omitempty"`
}

// WarmPoolSaving is measured, not assumed: waits are counted only for pods that really took a replica, at the
// difference of the cold and warm starts that were seen.
type WarmPoolSaving struct {
	// coldStart is the median time from a pod's creation to running where a new node had to be bought: of the workload's
	// pods, or of the pool's replicas while none of those had to wait.
	// +optional
	ColdStart *metav1.Duration `json:"coldStart,omitempty"`
	// warmStart is the median time from a pod's creation to running where a replica made room.
	// +optional
	WarmStart *metav1.Duration `json:"warmStart,omitempty"`
	// waitAvoided is consumed x (coldStart - warmStart).
	// +optional
	WaitAvoided *metav1.Duration `json:"waitAvoided,omitempty"`
	// cost is what the pool has cost from its making to its last change of size; the metric headstart_warmpool_cost_total
	// has it up to now.
	// +optional
	Cost string `json:"cost,omitempty"`
	// costPerSecond is cost over waitAvoided: the price of a second that nobody waited.
	// +optional
	CostPerSecond string `json:"costPerSecond,omitempty"`
}

// WarmPoolChange is a change of size at a known time.
type WarmPoolChange struct {
	// time of the change.
	Time metav1.Time `json:"time"`
	// replicas from then on, if demand stays as it is.
	Replicas int32 `json:"replicas"`
	// reason of the change.
	Reason string `json:"reason"`
}

// WarmPool keeps capacity there before the pods are.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Namespaced,shortName=wp
// +kubebuilder:subresource:status
// +kubebuilder:subresource:scale:specpath=.spec.min,statuspath=.status.ready,selectorpath=.status.selector
// +kubebuilder:printcolumn:name="Desired",type=integer,JSONPath=`.status.desired`
// +kubebuilder:printcolumn:name="Ready",type=integer,JSONPath=`.status.ready`
// +kubebuilder:printcolumn:name="Warm",type=integer,JSONPath=`.status.readyWarm`
// +kubebuilder:printcolumn:name="Cost/h",type=string,JSONPath=`.status.costPerHour`
// +kubebuilder:printcolumn:name="Next",type=date,JSONPath=`.status.nextChange.time`
// +kubebuilder:printcolumn:name="Why",type=string,priority=1,JSONPath=`.status.reason`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="size(self.metadata.name) <= 63",message="the pool's name is a label's value on its replicas: shorten it to 63 characters"
type WarmPool struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +required
	Spec WarmPoolSpec `json:"spec"`
	// +optional
	Status WarmPoolStatus `json:"status,omitzero"`

	// Unreadable says why Go's types refuse the object; "" where they take it. The spec is empty then.
	Unreadable string `json:"-"`
}

// UnmarshalJSON decodes the pool alone: one that Go's types refuse stops no list and no watch, and says why in Unreadable.
func (p *WarmPool) UnmarshalJSON(data []byte) error {
	type plain WarmPool
	var out plain
	why, err := decode.Object(data, &out)
	if err != nil {
		return err
	}
	*p = WarmPool(out)
	p.Unreadable = why
	return nil
}

// WarmPoolList is a list of WarmPools.
//
// +kubebuilder:object:root=true
type WarmPoolList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []WarmPool `json:"items"`
}
