package readiness

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"headstart.dev/readiness/v1alpha1"
)

// Form is the API that a rule was written in.
type Form string

// The forms of a rule.
const (
	FormNative   Form = "native"
	FormGuide    Form = "guide"
	FormUpstream Form = "upstream"
)

// Rule is a readiness rule as the engine knows it, whatever form it was written in. It is immutable once made.
type Rule struct {
	Name       string
	UID        types.UID
	Form       Form
	Generation int64
	// Created is the API server's time: compared only with a Node's, never with a local clock.
	Created time.Time

	Continuous bool
	// Selector is nil for a rule that is bound by annotation only.
	Selector labels.Selector

	DaemonSets []DaemonSet
	Optional   []DaemonSet
	Conditions []Condition
	// AnyOf makes one of Conditions enough.
	AnyOf      bool
	CSIDrivers []string
	Resources  []Resource
	Devices    []Devices
	Objects    []Object

	Taint corev1.Taint
	// Timeout of 0 means none.
	Timeout   time.Duration
	OnTimeout v1alpha1.TimeoutAction

	RearmOnReboot   bool
	EnforceExisting bool
	DryRun          bool
	// Suspended says that nothing is to be written for the rule.
	Suspended bool
	// HoldAfter and ReleaseAfter are how long facts must be false, or true, before they count.
	HoldAfter, ReleaseAfter time.Duration
	Budget                  Budget
	// Foreign says that another controller carries the rule out at present, and that we must not.
	Foreign bool
}

// DaemonSet is what a rule says of a DaemonSet's pod on the node.
type DaemonSet struct {
	Namespace string
	// Name is "*" for every DaemonSet of the namespace. Where Selector is set, Name is for people only.
	Name     string
	Selector labels.Selector
	// Except are DaemonSets that a wildcard does not mean: name, namespace/name or namespace/*.
	Except []string
	// Wait is what a readinessProbe that runs kubectl wait asks of the node's pods; nil without one.
	Wait *PodWait
	// ProbeCondition is the node condition by which the agent reports the readinessProbe; "" without one.
	ProbeCondition corev1.NodeConditionType
	// ExecProbe says that the probe runs a command, which the agent does only where its config allows it.
	ExecProbe bool
	// Report is the node condition by which the agent of a node reports the pod, where its kubelet tells it of pods; ""
	// for what no agent reports.
	Report corev1.NodeConditionType
	// ReadyLabel is the label of an optional DaemonSet; "" for none.
	ReadyLabel string
}

// AllDaemonSets is the name that means every DaemonSet of a namespace, and the namespace that means all of them.
const AllDaemonSets = "*"

// concerns says whether the pod is one that d asks about.
func (d *DaemonSet) concerns(pod *Pod) bool {
	if d.wildcard() {
		return pod.Namespace == d.Namespace && pod.DaemonSet != ""
	}
	return d.owns(pod)
}

// wildcard says whether d means every DaemonSet of its namespace.
func (d *DaemonSet) wildcard() bool { return d.Selector == nil && d.Name == AllDaemonSets }

// includes says whether the wildcard d means the DaemonSet of that name in one of its namespaces.
func (d *DaemonSet) includes(namespace, name string) bool {
	for _, out := range d.Except {
		if out == name || out == namespace+"/"+name || out == namespace+"/"+AllDaemonSets {
			return false
		}
	}
	return true
}

// Wants says whether the DaemonSet of that name is one of those that d names; not for a d with a Selector.
func (d *DaemonSet) Wants(namespace, name string) bool {
	if d.Namespace != namespace && d.Namespace != AllDaemonSets {
		return false
	}
	return d.Name == name || d.Name == AllDaemonSets && d.includes(namespace, name)
}

// String names d as a person would: namespace/name.
func (d *DaemonSet) String() string {
	if d.Name == "" {
		return d.Namespace + "/[" + d.Selector.String() + "]"
	}
	return d.Namespace + "/" + d.Name
}

// Condition is a node condition that must have a status.
type Condition struct {
	Type     corev1.NodeConditionType
	Required corev1.ConditionStatus
	// Default stands for a condition that nobody has reported; "" is Unknown.
	Default corev1.ConditionStatus
	// MaxAge of 0 means that a report never grows old.
	MaxAge time.Duration
}

// Resource is an amount that must be allocatable.
type Resource struct {
	Name corev1.ResourceName
	Min  resource.Quantity
}

// Devices is a number of devices that a DRA driver must have published for the node.
type Devices struct {
	Driver string
	Min    int
}

// Object is an object of the cluster that must exist, and over which Expression must be true where there is one.
type Object struct {
	APIVersion, Kind, Namespace, Name string
	Expression                        string
}

// String names o as a person would.
func (o *Object) String() string {
	if o.Namespace == "" {
		return o.Kind + " " + o.Name
	}
	return o.Kind + " " + o.Namespace + "/" + o.Name
}

// SameTaint says whether two taints are the same to Kubernetes: key and effect decide, the value does not.
func SameTaint(a, b *corev1.Taint) bool { return a.Key == b.Key && a.Effect == b.Effect }

// TaintID is the identity of a taint in text: key:effect.
func TaintID(t *corev1.Taint) string { return t.Key + ":" + string(t.Effect) }

// findTaint returns the taint of taints that is the same as want, or nil.
func findTaint(taints []corev1.Taint, want *corev1.Taint) *corev1.Taint {
	if i := indexTaint(taints, want); i >= 0 {
		return &taints[i]
	}
	return nil
}

// indexTaint is where it is, or -1.
func indexTaint(taints []corev1.Taint, want *corev1.Taint) int {
	for i := range taints {
		if SameTaint(&taints[i], want) {
			return i
		}
	}
	return -1
}

// Binds says whether the rule governs the node: by its selector, or by an annotation on the node that names it (rules of
// the upstream form have no annotation). A node on which no DaemonSet runs is bound where the rule means it.
func (r *Rule) Binds(node *corev1.Node) bool {
	if r.Selector != nil && r.Selector.Matches(labels.Set(node.Labels)) && (r.Form == FormUpstream || !virtual(node) || r.selects(virtualLabels...)) {
		return true
	}
	if r.Form == FormUpstream {
		return false
	}
	return node.Annotations[AnnotationRule] == r.Name || node.Annotations[AnnotationRuleGuide] == r.Name
}

// selects says whether the rule's selector looks at one of the labels.
func (r *Rule) selects(keys ...string) bool {
	if r.Selector == nil {
		return false
	}
	requirements, _ := r.Selector.Requirements()
	return slices.ContainsFunc(requirements, func(q labels.Requirement) bool { return slices.Contains(keys, q.Key()) })
}
