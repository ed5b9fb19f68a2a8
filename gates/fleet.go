package gates

import (
	"slices"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	schedulinghelper "k8s.io/component-helpers/scheduling/corev1"

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
	hostnames map[string]int              // how many nodes claim a hostname label
	pods      map[types.UID]occupant
	expiry    []reservation // in order of their end

	// fixed moves when a node changes in a way that may change where pods could run; room when something becomes free.
	fixed, room uint64
}

// node is a node, or the room that pods take on a node that is not known yet.
type node struct {
	known       bool
	object      *corev1.Node // name and labels, as the affinity helpers want them
	taints      []corev1.Taint
	allocatable Resources
	used        Resources
	warm        []string
}

func (n *node) hostname() string { return n.object.Labels[corev1.LabelHostname] }

// occupant is who takes room on a node: a bound pod, or a steered one that has a reservation.
type occupant struct {
	node     string
	requests Resources
	reserved bool
}

type reservation struct {
	pod types.UID
	end time.Time
}

// NewFleet returns a fleet without nodes.
func NewFleet() *Fleet {
	return &Fleet{
		nodes: map[string]*node{}, warm: map[string]map[string]*node{}, hostnames: map[string]int{}, pods: map[types.UID]occupant{},
	}
}

// SetNode takes a node as it is now. It returns what may have come true by the change: the dependencies whose waiting
// pods want another look. A heartbeat returns nothing.
func (f *Fleet) SetNode(object *corev1.Node) []Dependency {
	next := &node{
		known:       true,
		object:      &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: object.Name, Labels: object.Labels}},
		taints:      schedulingTaints(object),
		allocatable: newResources(object.Status.Allocatable),
		warm:        warmOn(object),
	}
	old := f.nodes[object.Name]
	if old == nil {
		next.used = Resources{}
	} else {
		next.used = old.used
		if sameNode(old, next) {
			return nil
		}
		f.unindex(old)
	}
	f.nodes[object.Name] = next
	f.hostnames[next.hostname()]++
	for _, key := range next.warm {
		if f.warm[key] == nil {
			f.warm[key] = map[string]*node{}
		}
		f.warm[key][object.Name] = next
	}
	f.fixed++
	f.room++
	return improved(next)
}

// DeleteNode forgets a node. The room that its pods take is forgotten with the pods.
func (f *Fleet) DeleteNode(name string) {
	if old := f.nodes[name]; old != nil {
		f.unindex(old)
		old.known = false
		f.fixed++
	}
}

func (f *Fleet) unindex(old *node) {
	if !old.known {
		return
	}
	if f.hostnames[old.hostname()]--; f.hostnames[old.hostname()] == 0 {
		delete(f.hostnames, old.hostname())
	}
	for _, key := range old.warm {
		if delete(f.warm[key], old.object.Name); len(f.warm[key]) == 0 {
			delete(f.warm, key)
		}
	}
}

// sameNode says whether two views of a node give every pod the same answers.
func sameNode(a, b *node) bool {
	return a.known && b.known && slices.Equal(a.warm, b.warm) && equalMaps(a.object.Labels, b.object.Labels) &&
		equalMaps(a.allocatable, b.allocatable) && slices.EqualFunc(a.taints, b.taints, func(x, y corev1.Taint) bool {
		return x.Key == y.Key && x.Value == y.Value && x.Effect == y.Effect
	})
}

func equalMaps[K, V comparable](a, b map[K]V) bool {
	if len(a) != len(b) {
		return false
	}
	for key, value := range a {
		if other, ok := b[key]; !ok || other != value {
			return false
		}
	}
	return true
}

func improved(n *node) []Dependency {
	out := make([]Dependency, 0, len(n.warm))
	for _, key := range n.warm {
		out = append(out, Dependency{Kind: KindImage, Name: key})
	}
	return out
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

// warmOn reads a node's inventory. A node that publishes nonsense has nothing warm.
func warmOn(object *corev1.Node) []string {
	text := object.Annotations[readiness.AnnotationImages]
	if text == "" {
		return nil
	}
	inv, err := prepull.DecodeInventory(text)
	if err != nil {
		return nil
	}
	return warmKeys(inv)
}

// couldRun says whether the scheduler's filters would let the pod run there if the node were empty.
func (n *node) couldRun(shape *Shape) bool {
	if !n.known || !fits(shape.Requests, n.allocatable, nil) {
		return false
	}
	_, untolerated := schedulinghelper.FindMatchingUntoleratedTaint(logr.Discard(), n.taints, shape.tolerations, nil, true)
	if untolerated {
		return false
	}
	match, err := shape.required.Match(n.object)
	return err == nil && match
}

// hasRoom says whether the pod fits in what is free there.
func (n *node) hasRoom(shape *Shape) bool { return fits(shape.Requests, n.allocatable, n.used) }
