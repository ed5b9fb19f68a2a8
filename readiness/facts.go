package readiness

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
)

// Facts is all that is known of one node. Evaluation reads it and never writes it.
type Facts struct {
	Node *corev1.Node
	// Conditions are the node's, where Node comes without them; nil: they are Node's own.
	Conditions Conditions
	// Record is the node's own, decoded.
	Record Record
	// Pods are the pods of this node that some rule asks about, in no order.
	Pods []Pod
	// DaemonSets returns those of a namespace, for rules that name "*". Nil: none are known.
	DaemonSets func(namespace string) []*DaemonSetSpec
	// CSIDrivers are those that the node's CSINode lists.
	CSIDrivers []string
	// CSINode is what else is known of it.
	CSINode CSINode
	// OldNode and OldBoot mark what was seen before the Node was made, and before it last booted.
	OldNode, OldBoot Marks
	// Blind says what of a rule's requirements cannot be looked at now. Nil: all can.
	Blind func(*Rule) Blind
	// Devices is how many devices each DRA driver has published for the node; nil for none.
	Devices map[string]int
	// Objects says how an object of the cluster is. Nil: none was looked at.
	Objects func(*Object) ObjectState
	// Lasting says since when all that a rule requires is there, or is not, as Decision.Met and MetSince said it last.
	// Nil: nothing is known.
	Lasting func(types.UID) (met bool, since time.Time, known bool)
	// Refused are the types of those conditions by which the agent says that it may not run a rule's probe; nil for none.
	Refused []corev1.NodeConditionType
	// Partial says that Pods, DaemonSets and CSIDrivers were not looked at (kubectl headstart why): what depends on
	// them is reported as not known, and never as met.
	Partial bool
	// Seen is when a condition's report was last seen to change, by the evaluator's own clock: the node's clock may be
	// an hour off. A type that is absent counts as seen just now.
	Seen map[corev1.NodeConditionType]time.Time
	// BootSeen is when the node's bootID was seen to change; zero where that was not witnessed.
	BootSeen time.Time
	// Left are the taints of rules that were seen to hold this node until its label left their selector: a node that
	// registered with its taint carries no record of it until it is released.
	Left []corev1.Taint
	// Named and NamedLabel say whether a rule of today, or a claim, names the taint or the label: only those are ever taken off.
	// Nil: those of the decisions and claims at hand are.
	Named      func(*corev1.Taint) bool
	NamedLabel func(string) bool
	// Startup says whether a rule of today names the taint: it goes by itself. Nil: none is known.
	Startup func(*corev1.Taint) bool
	// LiveRule says which rule UIDs exist today. Nil: those of the rules being evaluated are all that is known.
	LiveRule func(types.UID) bool
}

// Pod is what the engine keeps of a pod.
type Pod struct {
	Namespace string
	Name      string
	// DaemonSet is the name of the DaemonSet that controls it, or "".
	DaemonSet   string
	Labels      map[string]string
	Ready       bool
	Terminating bool
	// True are the types of its conditions that are True, joined by JoinTrue.
	True string
	// Changed is when Ready last changed, by the node's clock; zero where it never did.
	Changed time.Time
	// CreatedAt is when the pod was made, by the API server's clock, and StartedAt when the last of its containers was
	// started, by the node's: seconds since 1970, 0 where that is not known.
	CreatedAt, StartedAt int64
}

// CSINode is whose a CSINode is and when it was made.
type CSINode struct {
	// Owner is the UID of the Node that owns it; "" where none does.
	Owner types.UID
	// CreatedAt is in seconds since 1970.
	CreatedAt int64
}

// Blind says what of a rule cannot be looked at, as when a right is missing.
type Blind struct {
	// Required and Optional: some of what it requires, of what its labels depend on.
	Required, Optional bool
	// Why is one line for a person; "" where the first list is still to come.
	Why string
}

func (f *Facts) blind(r *Rule) Blind {
	if f.Blind == nil {
		return Blind{}
	}
	return f.Blind(r)
}

// DaemonSetSpec is what the engine keeps of a DaemonSet: what decides where its pods can be.
type DaemonSetSpec struct {
	Namespace  string
	Name       string
	UID        types.UID
	Generation int64
	Selector   labels.Selector
	// PodLabels are those of its pods.
	PodLabels map[string]string
	// Template has nodeSelector, affinity and tolerations only.
	Template corev1.PodSpec
}

// live says whether a rule of that UID exists.
func (f *Facts) live(uid types.UID) bool { return f.LiveRule != nil && f.LiveRule(uid) }

// condition returns the node's condition of that type, or nil.
func (f *Facts) condition(t corev1.NodeConditionType) *corev1.NodeCondition {
	if f.Conditions != nil {
		return f.Conditions.Find(t)
	}
	for i := range f.Node.Status.Conditions {
		if f.Node.Status.Conditions[i].Type == t {
			return &f.Node.Status.Conditions[i]
		}
	}
	return nil
}

func (f *Facts) bootID() string { return f.Node.Status.NodeInfo.BootID }

// karpenterInitialized is the label that Karpenter puts on a node which it counts as ready. A startup taint that comes
// after it makes Karpenter buy another node.
const karpenterInitialized = "karpenter.sh/initialized"

// Taints that Karpenter puts on nodes that are its business alone.
// Source: sigs.k8s.io/karpenter pkg/apis/v1/taints.go@v1.15.0.
const (
	karpenterDisrupted = "karpenter.sh/disrupted"
	karpenterRebooting = "karpenter.sh/rebooting"
)

func (f *Facts) hasTaintKey(key string) bool {
	for i := range f.Node.Spec.Taints {
		if f.Node.Spec.Taints[i].Key == key {
			return true
		}
	}
	return false
}

// Leaving says whether the node is being deleted, by anybody or by Karpenter: such a node is left alone.
func (f *Facts) Leaving() bool {
	return f.Node.DeletionTimestamp != nil || f.hasTaintKey(karpenterDisrupted)
}

// Rebooting says whether Karpenter is rebooting the node in place: its facts are those of a boot that is ending.
func (f *Facts) Rebooting() bool { return f.hasTaintKey(karpenterRebooting) }
