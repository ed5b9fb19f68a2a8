package controller

import (
	"hash/maphash"
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/resourceversion"

	"headstart.dev/prepull"
	"headstart.dev/prepull/warm"
	"headstart.dev/readiness"
)

// fleet is what is known of all nodes. The index in it is safe for concurrent use, the rest is the caller's to guard.
type fleet struct {
	index *warm.Index
	nodes map[string]*member
	seed  maphash.Seed
}

// member is one node.
type member struct {
	name   string
	labels map[string]string
	arch   string
	// agent says that an agent has published what is warm.
	agent bool
	// failed names the images whose pull the agent has given up.
	failed map[string]bool
	// version is the resourceVersion that labels are of; steered is when they were last written.
	version string
	steered time.Time
	// published is a hash of the annotation: decoding 16 KiB for every other change of a Node would be waste.
	published uint64
}

func (n *member) set() labels.Set { return n.labels }

func newFleet() *fleet {
	return &fleet{index: &warm.Index{}, nodes: map[string]*member{}, seed: maphash.MakeSeed()}
}

// stripNode keeps the labels and the one annotation that are read.
func stripNode(in *corev1.Node) *metav1.PartialObjectMetadata {
	out := &metav1.PartialObjectMetadata{}
	out.Name, out.ResourceVersion, out.Labels = in.Name, in.ResourceVersion, in.Labels
	if text, ok := in.Annotations[readiness.AnnotationImages]; ok {
		out.Annotations = map[string]string{readiness.AnnotationImages: text}
	}
	return out
}

// outdated says whether an event is older than what is known of the node: than the answer to a write.
func outdated(obj *metav1.PartialObjectMetadata, n *member) bool {
	order, err := resourceversion.CompareResourceVersion(obj.ResourceVersion, n.version)
	return err == nil && order < 0
}

// set takes a node over, and says whether something changed that a policy may depend on. The error is of an annotation
// that cannot be read: the node then has nothing.
func (f *fleet) set(obj *metav1.PartialObjectMetadata) (changed bool, err error) {
	n, known := f.nodes[obj.Name]
	if !known {
		n = &member{name: obj.Name}
		f.nodes[obj.Name] = n
		f.index.Set(n.name, prepull.Inventory{})
	}
	if known && outdated(obj, n) {
		return false, nil
	}
	n.version = obj.ResourceVersion
	if !known || !maps.Equal(n.labels, obj.Labels) {
		n.labels, n.arch, changed = obj.Labels, obj.Labels[corev1.LabelArchStable], true
	}
	text, agent := obj.Annotations[readiness.AnnotationImages]
	sum := maphash.String(f.seed, text)
	if agent == n.agent && (!agent || sum == n.published) {
		return changed, nil
	}
	n.agent, n.published = agent, sum
	inv := prepull.Inventory{}
	if agent {
		inv, err = prepull.DecodeInventory(text)
	}
	f.index.Set(n.name, inv)
	n.failed = nil
	for _, name := range inv.Failed {
		if n.failed == nil {
			n.failed = map[string]bool{}
		}
		n.failed[name] = true
	}
	return true, err
}

// delete forgets a node, and says whether it was known.
func (f *fleet) delete(name string) bool {
	if _, known := f.nodes[name]; !known {
		return false
	}
	delete(f.nodes, name)
	f.index.Delete(name)
	return true
}

// match returns the nodes that a selector chooses, in no order.
func (f *fleet) match(selector labels.Selector) []*member {
	var out []*member
	for _, n := range f.nodes {
		if selector.Matches(n.set()) {
			out = append(out, n)
		}
	}
	return out
}

// commonArch is the architecture that most of the nodes have; sizes are those of its images.
func commonArch(nodes []*member) string {
	counts := map[string]int{}
	for _, n := range nodes {
		counts[n.arch]++
	}
	best := "amd64"
	for arch, count := range counts {
		if arch != "" && (count > counts[best] || count == counts[best] && arch < best) {
			best = arch
		}
	}
	return best
}
