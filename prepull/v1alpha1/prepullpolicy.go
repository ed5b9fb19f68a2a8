package v1alpha1

import (
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"headstart.dev/internal/decode"
)

// PrepullPolicy says which images the matching nodes should have before a pod asks for them.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,shortName=pp
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="Matched",type=integer,JSONPath=`.status.nodes.matched`
// +kubebuilder:printcolumn:name="Ready",type=integer,JSONPath=`.status.nodes.ready`
// +kubebuilder:printcolumn:name="Pulling",type=integer,JSONPath=`.status.nodes.pulling`
// +kubebuilder:printcolumn:name="Failed",type=integer,JSONPath=`.status.nodes.failed`
// +kubebuilder:printcolumn:name="Complete",type=string,JSONPath=`.status.conditions[?(@.type=="Complete")].status`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="size(self.metadata.name) <= 200",message="the policy's name is longer than 200 characters, and what it learns is stored under a longer name: shorten it"
type PrepullPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   PrepullPolicySpec   `json:"spec"`
	Status PrepullPolicyStatus `json:"status,omitempty"`

	// Unreadable says why Go's types refuse the object; "" where they take it. The spec is empty then.
	Unreadable string `json:"-"`
}

// UnmarshalJSON decodes the policy alone: one that Go's types refuse stops no list and no watch, and says why in Unreadable.
func (p *PrepullPolicy) UnmarshalJSON(data []byte) error {
	type plain PrepullPolicy
	var out plain
	why, err := decode.Object(data, &out)
	if err != nil {
		return err
	}
	*p = PrepullPolicy(out)
	p.Unreadable = why
	return nil
}

// PrepullPolicyList is a list of policies.
//
// +kubebuilder:object:root=true
type PrepullPolicyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []PrepullPolicy `json:"items"`
}

// PrepullPolicySpec is what a user asks for. The images of all three sources are joined; everything may be changed
// later, and nothing restarts when it is.
//
// +kubebuilder:validation:XValidation:rule="(has(self.images) && size(self.images) > 0) || (has(self.fromWorkloads) && size(self.fromWorkloads) > 0) || has(self.learn)",message="nothing to prepull: set images, fromWorkloads or learn"
type PrepullPolicySpec struct {
	// nodeSelector chooses nodes by label. Absent or empty: every node.
	// +kubebuilder:validation:XValidation:rule="!has(self.matchExpressions) || self.matchExpressions.all(e, e.operator in ['In', 'NotIn', 'Exists', 'DoesNotExist'])",message="matchExpressions.operator must be one of In, NotIn, Exists, DoesNotExist"
	// +kubebuilder:validation:XValidation:rule="!has(self.matchExpressions) || self.matchExpressions.all(e, (e.operator in ['In', 'NotIn']) == (has(e.values) && size(e.values) > 0))",message="matchExpressions.values must be set for In and NotIn, and left out for Exists and DoesNotExist"
	// +optional
	NodeSelector *metav1.LabelSelector `json:"nodeSelector,omitempty"`

	// images are pulled as they are listed.
	// +kubebuilder:validation:MaxItems=100
	// +listType=map
	// +listMapKey=image
	// +optional
	Images []Image `json:"images,omitempty"`

	// fromWorkloads adds the images of the pod templates of these workloads, kept up to date: the images of a new
	// template are pulled the moment it appears.
	// +kubebuilder:validation:MaxItems=32
	// +listType=atomic
	// +optional
	FromWorkloads []WorkloadSource `json:"fromWorkloads,omitempty"`

	// learn adds the images that the pods of matching nodes really started with.
	// +optional
	Learn *Learn `json:"learn,omitempty"`

	// mode says how an image comes to a node. Eager: whole. Lazy: mounted by its SOCI index, so that containers start
	// before its content is there; an image without an index, and one on a node whose container runtime does not use the
	// SOCI snapshotter, comes whole. Auto: lazily where that is possible, else whole. Where another policy or the agent's
	// config asks for the whole image, it comes whole; a node on which it is mounted lazily by then keeps it so, and does
	// not count as ready for who wants it whole.
	// +kubebuilder:default=Auto
	// +optional
	Mode Mode `json:"mode,omitempty"`

	// pin keeps the kubelet's image garbage collection away from the images for as long as the policy wants them.
	// +kubebuilder:default=true
	// +optional
	Pin *bool `json:"pin,omitempty"`

	// maxBytes bounds what the images of this policy may take on one node, in the size that the kubelet reports for an
	// image (its compressed layers; one that several images share counts once). What does not fit is left out, least
	// important first, and named in the status.
	// +kubebuilder:validation:XValidation:rule="type(self) == int ? self > 0 : (isQuantity(string(self)) && quantity(string(self)).isGreaterThan(quantity('0')))",message="maxBytes must be a size above 0, such as 40Gi: leave it out for no bound"
	// +optional
	MaxBytes *resource.Quantity `json:"maxBytes,omitempty"`

	// maxNodes is on how many of the matching nodes the images are wanted; 0 means on all. Which ones is the
	// controller's choice, and stays the same as long as they are there.
	// +kubebuilder:validation:Minimum=0
	// +optional
	MaxNodes int32 `json:"maxNodes,omitempty"`

	// resolveInterval is how often a tag is looked up again; when it has moved, all nodes pull what it now names.
	// +kubebuilder:default="1h"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]+([.][0-9]+)?(ms|s|m|h))+$')",message="resolveInterval must be a duration with a unit, such as 30m or 1h"
	// +kubebuilder:validation:XValidation:rule="!self.matches('^([0-9]+([.][0-9]+)?(ms|s|m|h))+$') || duration(self) >= duration('10s')",message="resolveInterval must be at least 10s, because each lookup is a request to the registry"
	// +optional
	ResolveInterval *metav1.Duration `json:"resolveInterval,omitempty"`

	// imagePullSecrets are Secrets of type kubernetes.io/dockerconfigjson with which the controller looks the images up, beside
	// the credentials of its cloud. It reads them by name, so it must have been granted get on each; nodes pull with their own
	// credentials.
	// +kubebuilder:validation:MaxItems=16
	// +listType=atomic
	// +optional
	ImagePullSecrets []ObjectRef `json:"imagePullSecrets,omitempty"`

	// serviceAccounts add the imagePullSecrets of these ServiceAccounts.
	// +kubebuilder:validation:MaxItems=16
	// +listType=atomic
	// +optional
	ServiceAccounts []ObjectRef `json:"serviceAccounts,omitempty"`
}

// ObjectRef names an object in a namespace.
type ObjectRef struct {
	// namespace of the object.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Namespace string `json:"namespace"`

	// name of the object.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
}

// Mode says how an image comes to a node.
//
// +kubebuilder:validation:Enum=Eager;Lazy;Auto
type Mode string

// The modes; they mean what those of prepull mean. Auto is the default.
const (
	ModeEager Mode = "Eager"
	ModeLazy  Mode = "Lazy"
	ModeAuto  Mode = "Auto"
)

// Image is one image by name.
type Image struct {
	// image is the image as a pod names it: [registry/]name[:tag][@sha256:...].
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:XValidation:rule="!self.contains('://')",message="write the image as a pod names it, such as registry.example/app:v1, without https://"
	// +kubebuilder:validation:XValidation:rule="self.matches('^[^ \\t\\n]+$')",message="an image name has no spaces: write it as a pod names it, such as registry.example/app:v1"
	Image string `json:"image"`

	// priority orders the images: higher first. Workloads' images have 0, learned ones less.
	// +kubebuilder:validation:Minimum=-1000
	// +kubebuilder:validation:Maximum=1000000
	// +optional
	Priority int32 `json:"priority,omitempty"`

	// required images are those that headstart.dev/ImagesReady of a matching node waits for. They come before all
	// others when maxBytes does not suffice.
	// +optional
	Required bool `json:"required,omitempty"`
}

// WorkloadSource names workloads that have a pod template.
//
// +kubebuilder:validation:XValidation:rule="has(self.apiVersion) || self.kind in ['Deployment', 'StatefulSet', 'DaemonSet', 'ReplicaSet', 'Job', 'CronJob', 'PodTemplate']",message="apiVersion is known for Deployment, StatefulSet, DaemonSet, ReplicaSet, Job, CronJob and PodTemplate only: set it, for example argoproj.io/v1alpha1 for kind Rollout"
type WorkloadSource struct {
	// apiVersion of the kind; may be left out for the kinds of Kubernetes itself.
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:MinLength=1
	// +optional
	APIVersion string `json:"apiVersion,omitempty"`

	// kind is Deployment, StatefulSet, DaemonSet, ReplicaSet, Job, CronJob, PodTemplate, or any other that holds a pod
	// template.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Kind string `json:"kind"`

	// namespace of the workloads. Absent: all namespaces.
	// +kubebuilder:validation:MaxLength=63
	// +optional
	Namespace string `json:"namespace,omitempty"`

	// selector chooses workloads by their own labels. Absent or empty: all of the namespace.
	// +optional
	Selector *metav1.LabelSelector `json:"selector,omitempty"`

	// imagePaths are JSONPaths to the images of a kind that has no pod template, such as {.spec.driver.image} of a
	// SparkApplication or {.spec.templates[*].container.image} of a Workflow. They add to what the pod templates name.
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=256
	// +listType=atomic
	// +optional
	ImagePaths []string `json:"imagePaths,omitempty"`
}

// Learn adds the images that pods really started with, ranked by the bytes that having them saves: the pulls that they
// would have cost (the first start of an image on a node, recent ones counting more) times their size. Under maxBytes the
// top ones are taken in the order of what they save for the room that they take.
type Learn struct {
	// window is how far back starts count.
	// +kubebuilder:default="168h"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]+([.][0-9]+)?(ms|s|m|h))+$')",message="window must be a duration with a unit, such as 168h (there is no unit for days)"
	// +kubebuilder:validation:XValidation:rule="!self.matches('^([0-9]+([.][0-9]+)?(ms|s|m|h))+$') || (duration(self) >= duration('1m') && duration(self) <= duration('2160h'))",message="window must be between 1m and 2160h"
	// +optional
	Window *metav1.Duration `json:"window,omitempty"`

	// top is how many of the ranked images are pulled.
	// +kubebuilder:default=10
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	// +optional
	Top int32 `json:"top,omitempty"`
}
