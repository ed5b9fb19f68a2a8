package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Condition types of a PrepullPolicy.
const (
	// ConditionAccepted is False when something in the spec cannot be followed: a name that is no image, a kind that the
	// cluster does not have. What can be followed still is.
	ConditionAccepted = "Accepted"
	// ConditionResolved is False when the controller could not look up an image in its registry. Nodes then pull that
	// image by its tag, with their own credentials.
	ConditionResolved = "Resolved"
	// ConditionComplete is False when an image was left out, and Unknown while the size of one is not known, or a workload
	// names its images where they are not looked for.
	ConditionComplete = "Complete"
	// ConditionReady is True when every node that should have the images has them.
	ConditionReady = "Ready"
)

// Reasons of the conditions.
const (
	ReasonValid         = "Valid"
	ReasonInvalid       = "Invalid"
	ReasonAllResolved   = "AllResolved"
	ReasonResolving     = "Resolving"
	ReasonResolveFailed = "ResolveFailed"
	ReasonAllFit        = "AllFit"
	ReasonLeftOut       = "LeftOut"
	ReasonSizeUnknown   = "SizeUnknown"
	ReasonImagesUnknown = "ImagesUnknown"
	ReasonAllNodes      = "AllNodes"
	ReasonNoNodes       = "NoNodes"
	ReasonNoImages      = "NoImages"
	ReasonPulling       = "Pulling"
	ReasonFailed        = "Failed"
)

// PrepullPolicyStatus is what the controller made of the policy, and how far the nodes are. It holds no list of nodes.
type PrepullPolicyStatus struct {
	// observedGeneration is the generation that images was made from.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// conditions are Accepted, Resolved, Complete and Ready.
	// +listType=map
	// +listMapKey=type
	// +optional
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// nodes counts nodes.
	// +optional
	Nodes NodeCounts `json:"nodes,omitzero"`

	// images is what the nodes of this policy pull, most important first, followed by what was left out.
	// +kubebuilder:validation:MaxItems=100
	// +listType=atomic
	// +optional
	Images []ImageStatus `json:"images,omitempty"`

	// turn says which nodes may pull now. Absent: all.
	// +optional
	Turn *Turn `json:"turn,omitempty"`
}

// NodeCounts counts the nodes of a policy. A node is ready, pulling, failed, or it has no agent.
type NodeCounts struct {
	// matched nodes carry the labels that the policy asks for; at most maxNodes of them.
	Matched int32 `json:"matched"`
	// ready nodes have all images of the policy.
	Ready int32 `json:"ready"`
	// pulling nodes lack at least one image that has not failed.
	Pulling int32 `json:"pulling"`
	// failed nodes lack only images whose pull has failed for good.
	Failed int32 `json:"failed"`
}

// Source says why an image is in the list.
//
// +kubebuilder:validation:Enum=Spec;Workload;Learned
type Source string

// The sources of an image; where several name it, the first of these.
const (
	SourceSpec     Source = "Spec"
	SourceWorkload Source = "Workload"
	SourceLearned  Source = "Learned"
)

// ImageStatus is one image of the policy.
type ImageStatus struct {
	// image is its normalised name (docker.io/library/nginx:1.29).
	Image string `json:"image"`
	// digest is what the name resolved to: all nodes pull this one. Empty while it is unknown.
	// +optional
	Digest string `json:"digest,omitempty"`
	// bytes is its size as the kubelet reports it (compressed layers); 0 while it is unknown.
	Bytes int64 `json:"bytes"`
	// reported says that the registry told nothing, and that digest and bytes are what nodes that have the image report.
	// Nodes then pull by the tag.
	// +optional
	Reported bool `json:"reported,omitempty"`
	// nodes is how many of the policy's nodes have it.
	Nodes int32 `json:"nodes"`
	// priority orders pulls on a node: higher first.
	// +optional
	Priority int32 `json:"priority,omitempty"`
	// required images are waited for by headstart.dev/ImagesReady.
	// +optional
	Required bool `json:"required,omitempty"`
	// source says why the image is in the list.
	// +optional
	Source Source `json:"source,omitempty"`
	// leftOut says why nodes do not pull it; empty for an image that they do pull.
	// +optional
	LeftOut string `json:"leftOut,omitempty"`
}

// Turn paces the nodes of a policy, so that they do not all ask one registry at once, in two numbers instead of a list
// of nodes. Every node has a place between 0 and 4294967295, the same one for ever (prepull/turn.Place).
type Turn struct {
	// members: a node whose place is above is none of the policy's maxNodes nodes.
	Members int64 `json:"members"`
	// open: a node whose place is above waits. It rises as nodes finish.
	Open int64 `json:"open"`
}
