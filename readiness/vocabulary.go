// Package readiness decides which startup taint a node must carry. It holds the vocabulary that the agent and the
// controllers share (condition types, taint keys, labels, annotations) and pure evaluation of rules against facts: no
// clients, no clocks of its own, safe for concurrent use because nothing in it is mutable.
package readiness

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// Domain prefixes every name that Headstart puts on a Node or a Pod.
const Domain = "headstart.dev"

// Node condition types that the agent writes to its own Node. All have positive polarity: True is good, Unknown means
// that the agent has not been able to look yet. A user probe named my-agent gets headstart.dev/MyAgentReady.
// Karpenter's node repair acts on NetworkingReady, StorageReady, KernelReady, ContainerRuntimeReady and
// AcceleratedHardwareReady, so none of those is ever used.
const (
	ConditionImagesReady = Domain + "/ImagesReady"
	ConditionCNIReady    = Domain + "/CNIReady"
	ConditionCSIReady    = Domain + "/CSIReady"
	ConditionGPUReady    = Domain + "/GPUReady"
)

// TaintPrefix is the prefix under which Karpenter (>= 1.13) and Cluster Autoscaler treat a taint as a startup taint.
// Source: sigs.k8s.io/karpenter pkg/scheduling/taints.go@v1.15.0.
const TaintPrefix = "readiness.k8s.io/"

// DefaultTaintValue is the value of a startup taint whose rule names none.
const DefaultTaintValue = "pending"

// ReasonExecNotAllowed is the reason of a probe's condition where the agent may not run commands.
const ReasonExecNotAllowed = "ExecNotAllowed"

// Annotations on a Node.
const (
	// AnnotationReadiness is the controller's ownership and completion record, JSON. Only the controller writes it.
	AnnotationReadiness = Domain + "/readiness"
	// AnnotationTimeline is the boot of this node, compact JSON of at most 4 KiB. Only the agent writes it.
	AnnotationTimeline = Domain + "/timeline"
	// AnnotationImages says what is warm on this node, at most 16 KiB (see prepull.Inventory). Only the agent writes it.
	AnnotationImages = Domain + "/images"
	// AnnotationRule and AnnotationRuleGuide bind a node to the rule they name; a Karpenter NodePool template carries them.
	AnnotationRule      = Domain + "/rule"
	AnnotationRuleGuide = "nodereadiness.k8s.io/rule"
)

// Labels on a Node, "true" or absent, derived by the controller from the conditions of the same name.
const (
	LabelImagesReady = Domain + "/images-ready"
	LabelCNIReady    = Domain + "/cni-ready"
	LabelCSIReady    = Domain + "/csi-ready"
	LabelGPUReady    = Domain + "/gpu-ready"
)

// LabelWarmPool is on every pod that holds room for a WarmPool; its value is the pool's name. As an annotation on a Karpenter
// NodePool, <namespace>/<name>, it lets that pool size it.
const LabelWarmPool = Domain + "/warm-pool"

// LabelPrepullPrefix begins the labels of PrepullPolicies; all labels under it are the controller's. See PrepullLabel.
const LabelPrepullPrefix = "prepull." + Domain + "/"

// maxLabelName is how long a label's name may be, without its prefix.
const maxLabelName = 63

// PrepullLabel is the label of the PrepullPolicy of that name: "true" on nodes that have all of its images, absent on all
// others. A name that is too long for a label is cut, and told apart by a hash.
func PrepullLabel(policy string) string {
	if len(policy) > maxLabelName {
		sum := sha256.Sum256([]byte(policy))
		policy = strings.TrimRight(policy[:maxLabelName-9], "-.") + "-" + hex.EncodeToString(sum[:4])
	}
	return LabelPrepullPrefix + policy
}
