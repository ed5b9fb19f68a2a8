package gates

import (
	"math"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// apartTerm keeps pods of one template apart: required anti-affinity against themselves, or a spread constraint over them.
type apartTerm struct {
	// Key is the label of nodes that makes a domain.
	Key string
	// MaxSkew is by how many pods domains may differ; 0 is one pod for each domain.
	MaxSkew int32
}

// apartOf lists what keeps a pod apart from others of its template.
func apartOf(pod *corev1.Pod) []apartTerm {
	var out []apartTerm
	itself := func(selector *metav1.LabelSelector) bool {
		s, err := metav1.LabelSelectorAsSelector(selector)
		return err == nil && s.Matches(labels.Set(pod.Labels))
	}
	if affinity := pod.Spec.Affinity; affinity != nil && affinity.PodAntiAffinity != nil {
		for _, term := range affinity.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution {
			here := len(term.Namespaces) == 0 || slices.Contains(term.Namespaces, pod.Namespace)
			if here && itself(term.LabelSelector) {
				out = append(out, apartTerm{Key: term.TopologyKey})
			}
		}
	}
	for _, c := range pod.Spec.TopologySpreadConstraints {
		if c.WhenUnsatisfiable != corev1.ScheduleAnyway && itself(c.LabelSelector) {
			out = append(out, apartTerm{Key: c.TopologyKey, MaxSkew: c.MaxSkew})
		}
	}
	return out
}

// crowd counts the pods of one shape that are given places, by domain.
type crowd map[apartTerm]map[string]int

// crowdOver counts over the domains of the nodes that could be chosen.
func crowdOver(shape *Shape, nodes []*node) crowd {
	out := crowd{}
	for _, term := range shape.apart {
		out[term] = map[string]int{}
		for _, n := range nodes {
			if domain, ok := n.Labels[term.Key]; ok {
				out[term][domain] += 0
			}
		}
	}
	return out
}

// admits says whether one more pod on the node is far enough from the others.
func (c crowd) admits(n *node) bool {
	for term, domains := range c {
		domain, ok := n.Labels[term.Key]
		switch {
		case term.MaxSkew == 0 && ok && domains[domain] > 0:
			return false
		case term.MaxSkew > 0 && (!ok || domains[domain]+1-least(domains) > int(term.MaxSkew)):
			return false
		}
	}
	return true
}

func least(domains map[string]int) int {
	out := math.MaxInt
	for _, count := range domains {
		out = min(out, count)
	}
	return out
}

// take puts a pod on the node.
func (c crowd) take(n *node) {
	for term, domains := range c {
		if domain, ok := n.Labels[term.Key]; ok {
			domains[domain]++
		}
	}
}
