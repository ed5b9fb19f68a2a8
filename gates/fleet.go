package gates

import (
	"maps"
	"slices"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	schedulinghelper "k8s.io/component-helpers/scheduling/corev1"

	"headstart.dev/internal/resources"
	"headstart.dev/prepull"
	"headstart.dev/readiness"
)

// ReservationTTL is how long room is held for a pod that was steered to a node and is not yet bound. The scheduler
// binds in milliseconds when there is room; a pod that has not come by then has gone elsewhere or waits for something else.
const ReservationTTL = 30 * time.Second

// Fleet knows the nodes: what is warm on each, who could run there and what is free. It is not safe for concurrent use.
type Fleet struct {
	nodes     map[string]*node
	warm      map[string]map[string]*node // by image key, then node name
	labels    map[string]map[string]*node // by label of placement Required, then node name
	hostnames map[string]int              // how many nodes claim a hostname label
	pods      map[types.UID]occupant
	expiry    []reservation // in order of their end

	// fixed moves when a node changes in a way that may change where pods could run; room when something becomes free.
	fixed, room uint64
}

// Node is what gates need to know of a node: about one KB where the API object has thirty. It is immutable.
type Node struct {
	name        string
	uid         types.UID
	labels      map[string]string
	taints      []corev1.Taint
	allocatable resources.List
	warm        []string // image keys, sorted
	conditions  names    // types of the conditions that are True
	published   names    // types of all conditions
	failed      []string // names of images whose pull the agent has given up
	inventory   bool     // an agent publishes what is warm
}

// Name names the node.
func (n *Node) Name() string { return n.name }

// UID is that of the Node object.
func (n *Node) UID() types.UID { return n.uid }

func (n *Node) hostname() string { return n.labels[corev1.LabelHostname] }

// ReadNode keeps what is needed of a node; its labels are shared with the object. Strings that most nodes share are kept
// once.
func ReadNode(object *corev1.Node) *Node {
	n := &Node{
		name: object.Name, uid: object.UID, labels: object.Labels,
		taints: schedulingTaints(object), allocatable: resources.New(object.Status.Allocatable),
	}
	n.readInventory(object.Annotations[readiness.AnnotationImages])
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

// node is a Node and the room that so many pods take on it; without a Node where only the pods are known yet, or still.
type node struct {
	*Node
	used resources.List
	pods int
}

// occupant is who takes room on a node: a bound pod, or a steered one that has a reservation.
type occupant struct {
	node     string
	requests resources.List
	reserved bool
}

type reservation struct {
	pod types.UID
	end time.Time
}

// NewFleet returns a fleet without nodes.
func NewFleet() *Fleet {
	return &Fleet{
		nodes: map[string]*node{}, warm: map[string]map[string]*node{}, labels: map[string]map[string]*node{}, hostnames: map[string]int{}, pods: map[types.UID]occupant{},
	}
}

// SetNode takes a node as it is now. It returns what may have come true by the change: the dependencies whose waiting
// pods want another look. A heartbeat returns nothing.
func (f *Fleet) SetNode(now *Node) []Dependency {
	next := &node{Node: now, used: resources.List{}}
	if old := f.nodes[now.Name()]; old != nil {
		next.used, next.pods = old.used, old.pods
		if old.Node != nil && sameNode(old.Node, now) {
			old.Node = now
			return nil
		}
		f.unindex(old)
	}
	f.nodes[now.Name()] = next
	f.hostnames[now.hostname()]++
	file(f.warm, now.warm, next)
	file(f.labels, now.warmLabels(), next)
	f.fixed++
	f.room++
	return improved(next)
}

// DeleteNode forgets a node. The room that its pods take is forgotten with the pods.
func (f *Fleet) DeleteNode(name string) {
	if old := f.nodes[name]; old != nil {
		f.unindex(old)
		f.nodes[name] = &node{used: old.used, pods: old.pods}
		f.forgetEmpty(name)
		f.fixed++
	}
}

// forgetEmpty forgets a name that neither a node nor a pod has any more: nodes come and go under new names.
func (f *Fleet) forgetEmpty(name string) {
	if n := f.nodes[name]; n != nil && n.Node == nil && n.pods == 0 {
		delete(f.nodes, name)
	}
}

func (f *Fleet) unindex(old *node) {
	if old.Node == nil {
		return
	}
	if f.hostnames[old.hostname()]--; f.hostnames[old.hostname()] == 0 {
		delete(f.hostnames, old.hostname())
	}
	unfile(f.warm, old.warm, old.Name())
	unfile(f.labels, old.warmLabels(), old.Name())
}

func file(index map[string]map[string]*node, keys []string, n *node) {
	for _, key := range keys {
		if index[key] == nil {
			index[key] = map[string]*node{}
		}
		index[key][n.Name()] = n
	}
}

func unfile(index map[string]map[string]*node, keys []string, name string) {
	for _, key := range keys {
		if delete(index[key], name); len(index[key]) == 0 {
			delete(index, key)
		}
	}
}

// sameNode says whether two views of a node give every pod the same answers.
func sameNode(a, b *Node) bool {
	return slices.Equal(a.warm, b.warm) && slices.Equal(a.failed, b.failed) && a.conditions == b.conditions &&
		maps.Equal(a.labels, b.labels) && maps.Equal(a.allocatable, b.allocatable) &&
		slices.EqualFunc(a.taints, b.taints, func(x, y corev1.Taint) bool {
			return x.Key == y.Key && x.Value == y.Value && x.Effect == y.Effect
		})
}

func improved(n *node) []Dependency {
	if n.Node == nil {
		return nil
	}
	out := make([]Dependency, 0, len(n.warm)+n.conditions.size()+1)
	for _, key := range n.warm {
		out = append(out, Dependency{Kind: KindImage, Name: key})
	}
	for _, key := range n.warmLabels() {
		out = append(out, Dependency{Kind: KindWarmLabel, Name: key})
	}
	for condition := range n.conditions.all() {
		out = append(out, Dependency{Kind: KindNodeCondition, Name: condition})
	}
	return append(out, Dependency{Kind: KindRoom})
}

// schedulingTaints lists the taints that keep pods from being scheduled, cordoning included.
func schedulingTaints(object *corev1.Node) []corev1.Taint {
	var out []corev1.Taint
	for _, taint := range object.Spec.Taints {
		if taint.Effect != corev1.TaintEffectPreferNoSchedule {
			out = append(out, taint)
		}
	}
	if object.Spec.Unschedulable {
		out = append(out, corev1.Taint{Key: corev1.TaintNodeUnschedulable, Effect: corev1.TaintEffectNoSchedule})
	}
	return out
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

// couldRun says whether the scheduler's filters would let the pod run there if the node were empty.
func (n *node) couldRun(shape *Shape) bool {
	if n.Node == nil || !resources.Fit(shape.Requests, n.allocatable, nil) {
		return false
	}
	_, untolerated := schedulinghelper.FindMatchingUntoleratedTaint(logr.Discard(), n.taints, shape.tolerations, nil, true)
	if untolerated {
		return false
	}
	shape.candidate.Name, shape.candidate.Labels = n.name, n.labels
	match, err := shape.required.Match(&shape.candidate)
	return err == nil && match
}

// hasRoom says whether the pod fits in what is free there.
func (n *node) hasRoom(shape *Shape) bool {
	return n.Node != nil && resources.Fit(shape.Requests, n.allocatable, n.used)
}
