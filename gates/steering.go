package gates

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"headstart.dev/readiness"
)

// WarmLabelPrefix begins the labels by which placement Required leads pods to warm nodes. Value "true".
const WarmLabelPrefix = readiness.Domain + "/warm-"

// warmLabelHex is how many hex characters name a set of images: with 64 bits no two sets of a cluster meet.
const warmLabelHex = 16

// WarmLabel names the label of nodes on which all of these images (keys, sorted) are warm.
func WarmLabel(images []string) string {
	sum := sha256.Sum256([]byte(strings.Join(images, "\n")))
	return WarmLabelPrefix + hex.EncodeToString(sum[:])[:warmLabelHex]
}

// WarmLabel names the label that placement Required asks of the pod's node.
func (s *Shape) WarmLabel() string { return WarmLabel(s.Images) }

// requireLabel is what placement Required adds to each term of a pod's required node affinity.
func requireLabel(label string) corev1.NodeSelectorRequirement {
	return corev1.NodeSelectorRequirement{Key: label, Operator: corev1.NodeSelectorOpIn, Values: []string{"true"}}
}

// RequireLabel returns the terms of a required node affinity that also asks for the label. Terms are ORed, so each gets
// it; one that is empty matches no node and stays so. The API server lets a gated pod's terms gain requirements, not
// change otherwise. Source: kubernetes pkg/apis/core/validation/validation.go@v1.37.2 (validateNodeAffinityMutation).
func RequireLabel(terms []corev1.NodeSelectorTerm, label string) []corev1.NodeSelectorTerm {
	if len(terms) == 0 {
		return []corev1.NodeSelectorTerm{{MatchExpressions: []corev1.NodeSelectorRequirement{requireLabel(label)}}}
	}
	out := slices.Clone(terms)
	for i := range out {
		if len(out[i].MatchExpressions)+len(out[i].MatchFields) > 0 {
			out[i].MatchExpressions = append(slices.Clone(out[i].MatchExpressions), requireLabel(label))
		}
	}
	return out
}

// withoutSteering returns an affinity as it was before RequireLabel, and whether the label was in it.
func withoutSteering(affinity *corev1.NodeAffinity, label string) (*corev1.NodeAffinity, bool) {
	if affinity == nil || affinity.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return affinity, false
	}
	ours := func(r corev1.NodeSelectorRequirement) bool { return r.Key == label }
	terms := slices.Clone(affinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms)
	steered := false
	for i := range terms {
		if !slices.ContainsFunc(terms[i].MatchExpressions, ours) {
			continue
		}
		steered = true
		terms[i].MatchExpressions = slices.DeleteFunc(slices.Clone(terms[i].MatchExpressions), ours)
	}
	if !steered {
		return affinity, false
	}
	out := *affinity
	out.RequiredDuringSchedulingIgnoredDuringExecution = nil
	terms = slices.DeleteFunc(terms, func(t corev1.NodeSelectorTerm) bool { return len(t.MatchExpressions)+len(t.MatchFields) == 0 })
	if len(terms) > 0 {
		out.RequiredDuringSchedulingIgnoredDuringExecution = &corev1.NodeSelector{NodeSelectorTerms: terms}
	}
	return &out, true
}

func (n *node) labelled(label string) bool { return n.Node != nil && n.Labels[label] == "true" }

// ReserveLabelled is Reserve among the warm nodes that have the pod's WarmLabel.
func (f *Fleet) ReserveLabelled(pod *Pod, now time.Time) (term corev1.PreferredSchedulingTerm, ok bool) {
	label := pod.WarmLabel()
	return f.reserve(pod, now, func(n *node) bool { return n.labelled(label) })
}

// labelledRoom says whether a warm node with the label has room for one more pod.
func (f *Fleet) labelledRoom(shape *Shape) bool {
	label := shape.WarmLabel()
	return slices.ContainsFunc(f.warmNodes(shape), func(n *node) bool {
		return n.labelled(label) && n.hasRoom(shape) && f.hostnames[n.hostname()] <= 1
	})
}

// LabelTargets lists the nodes that should have the shape's WarmLabel: every one that is warm and where the pod could run.
// What pods do to each other there, and who has to go, the scheduler knows.
func (f *Fleet) LabelTargets(shape *Shape) []*Node {
	var out []*Node
	for _, n := range f.warmNodes(shape) {
		if f.hostnames[n.hostname()] <= 1 {
			out = append(out, n.Node)
		}
	}
	return out
}

// unlabelled says whether a warm node lacks the label still.
func (f *Fleet) unlabelled(shape *Shape) bool {
	label := shape.WarmLabel()
	return slices.ContainsFunc(f.LabelTargets(shape), func(n *Node) bool { return n.Labels[label] != "true" })
}

// Labelled lists the nodes that have a label of placement Required, by label.
func (f *Fleet) Labelled() map[string][]*Node {
	out := make(map[string][]*Node, len(f.labels))
	for key, nodes := range f.labels {
		for _, n := range nodes {
			out[key] = append(out[key], n.Node)
		}
	}
	return out
}

// warmLabels lists the labels of placement Required that a node has.
func (n *Node) warmLabels() []string {
	var out []string
	for key := range n.Labels {
		if strings.HasPrefix(key, WarmLabelPrefix) {
			out = append(out, key)
		}
	}
	return out
}

// steeringRequirement: placement Required has a node to lead the pod to.
type steeringRequirement struct{}

func (steeringRequirement) dependencies(pod *Pod) []Dependency {
	if len(pod.Images) == 0 {
		return nil
	}
	return []Dependency{{Kind: KindWarmLabel, Name: pod.WarmLabel()}}
}

// unmet waits for the label only where there is room to be labelled: full warm nodes are the matter of overflow. Pods that
// the scheduler has to keep apart wait until all warm nodes have it: between those with the label it spreads them.
func (steeringRequirement) unmet(pod *Pod, facts Facts) []Unmet {
	fleet := facts.Fleet
	if len(pod.Images) == 0 || fleet.holds(pod) || fleet.withRoom(pod.Shape, 1) == 0 ||
		(fleet.labelledRoom(pod.Shape) && (!pod.Apart || !fleet.unlabelled(pod.Shape))) {
		return nil
	}
	return []Unmet{{Dependency: Dependency{Kind: KindWarmLabel, Name: pod.WarmLabel()}, Want: 1}}
}
