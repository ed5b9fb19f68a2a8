package gates

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"headstart.dev/internal/room"
	"headstart.dev/prepull"
	"headstart.dev/readiness"
)

// Node is what gates need to know of a node: about one KB where the API object has thirty. It is immutable.
type Node struct {
	room.Node
	uid        types.UID
	warm       []string // image keys, sorted
	conditions names    // types of the conditions that are True
	published  names    // types of all conditions
	failed     []string // names of images whose pull the agent has given up
	registries names    // registries of the images that are there
	inventory  bool     // an agent publishes what is warm
}

// Name names the node.
func (n *Node) Name() string { return n.Node.Name }

// UID is that of the Node object.
func (n *Node) UID() types.UID { return n.uid }

func (n *Node) hostname() string { return n.Labels[corev1.LabelHostname] }

// ReadNode keeps what is needed of a node; its labels are shared with the object. Strings that most nodes share are kept
// once.
func ReadNode(object *corev1.Node) *Node {
	n := &Node{Node: room.ReadNode(object), uid: object.UID}
	n.readInventory(object.Annotations[readiness.AnnotationImages])
	n.registries = registriesOf(n.warm, object.Status.Images)
	_, n.inventory = object.Annotations[readiness.AnnotationImages]
	published, conditions := make([]string, 0, len(object.Status.Conditions)), make([]string, 0, len(object.Status.Conditions))
	for i := range object.Status.Conditions {
		c := &object.Status.Conditions[i]
		published = append(published, string(c.Type))
		if c.Status == corev1.ConditionTrue {
			conditions = append(conditions, string(c.Type))
		}
	}
	n.published, n.conditions = newNames(published), newNames(conditions)
	return n
}

// readInventory reads what the node's agent publishes. A node that publishes nonsense has nothing warm.
func (n *Node) readInventory(text string) {
	if text == "" {
		return
	}
	inv, err := prepull.DecodeInventory(text)
	if err != nil {
		return
	}
	n.warm, n.failed = warmKeys(inv), inv.Failed
}

// names of images in a node's status are many; the registries are few.
func registriesOf(warm []string, images []corev1.ContainerImage) names {
	seen := map[string]struct{}{}
	for _, key := range warm {
		seen[Registry(key)] = struct{}{}
	}
	for i := range images {
		for _, name := range images[i].Names {
			seen[Registry(name)] = struct{}{}
		}
	}
	list := make([]string, 0, len(seen))
	for registry := range seen {
		if registry != "" {
			list = append(list, registry)
		}
	}
	return newNames(list)
}
