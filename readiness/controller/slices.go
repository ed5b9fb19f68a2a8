package controller

import (
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// deviceIndex is what is known of the ResourceSlices of nodes. The zero index knows none.
type deviceIndex struct {
	// byNode is keyed by node name, then by the slice's name; nodes is the other way round.
	byNode map[string]map[string]sliceFact
	nodes  map[string][]string
}

// sliceFact is what a slice says of one node.
type sliceFact struct {
	pool       poolKey
	generation int64
	// total is how many slices the pool has in that generation.
	total   int64
	devices int
	// owner is the UID of the Node that the slice belongs to; "" where it does not say.
	owner types.UID
}

type poolKey struct{ driver, name string }

func (x *deviceIndex) clear() { x.byNode, x.nodes = nil, nil }

// set takes over a slice, and returns the nodes of which it says something else now.
func (x *deviceIndex) set(in *resourcev1.ResourceSlice, known bool) []string {
	touched := x.nodes[in.Name]
	for _, node := range touched {
		delete(x.byNode[node], in.Name)
		if len(x.byNode[node]) == 0 {
			delete(x.byNode, node)
		}
	}
	delete(x.nodes, in.Name)
	if !known {
		return touched
	}
	if x.byNode == nil {
		x.byNode, x.nodes = map[string]map[string]sliceFact{}, map[string][]string{}
	}
	for node, devices := range devicesByNode(in) {
		if x.byNode[node] == nil {
			x.byNode[node] = map[string]sliceFact{}
		}
		x.byNode[node][in.Name] = sliceFact{
			pool:       poolKey{driver: in.Spec.Driver, name: in.Spec.Pool.Name},
			generation: in.Spec.Pool.Generation, total: in.Spec.Pool.ResourceSliceCount, devices: devices, owner: ownerNode(in),
		}
		x.nodes[in.Name] = append(x.nodes[in.Name], node)
		touched = append(touched, node)
	}
	return touched
}

// devicesByNode counts the slice's devices by the node that they are on. Devices of the network are of no node.
func devicesByNode(in *resourcev1.ResourceSlice) map[string]int {
	if in.Spec.NodeName != nil && *in.Spec.NodeName != "" {
		return map[string]int{*in.Spec.NodeName: len(in.Spec.Devices)}
	}
	out := map[string]int{}
	for i := range in.Spec.Devices {
		if name := in.Spec.Devices[i].NodeName; name != nil {
			out[*name]++
		}
	}
	return out
}

func ownerNode(in *resourcev1.ResourceSlice) types.UID {
	for i := range in.OwnerReferences {
		if in.OwnerReferences[i].Kind == "Node" {
			return in.OwnerReferences[i].UID
		}
	}
	return ""
}

// devices is how many devices each driver has published for the node: of pools whose latest generation is complete, as for
// the scheduler, and not of an earlier Node of the same name.
func (x *deviceIndex) devices(node *corev1.Node) map[string]int {
	of := x.byNode[node.Name]
	if len(of) == 0 {
		return nil
	}
	type pool struct {
		generation, total, have int64
		devices                 int
	}
	pools := map[poolKey]pool{}
	for _, s := range of {
		if s.owner != "" && s.owner != node.UID {
			continue
		}
		p := pools[s.pool]
		switch {
		case s.generation < p.generation:
			continue
		case s.generation > p.generation || p.have == 0:
			p = pool{generation: s.generation, total: s.total}
		}
		p.have++
		p.devices += s.devices
		pools[s.pool] = p
	}
	out := map[string]int{}
	for key, p := range pools {
		if p.have >= p.total {
			out[key.driver] += p.devices
		}
	}
	return out
}

// ObserveSlice takes over a ResourceSlice; known says whether it exists still.
func (e *Engine) ObserveSlice(in *resourcev1.ResourceSlice, known bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, name := range e.slices.set(in, known) {
		if n := e.nodes[name]; n != nil && n.facts.Node != nil {
			n.facts.Devices = e.slices.devices(n.facts.Node)
			e.decide(n)
		}
	}
}

// ReplaceSlices takes over a complete list.
func (e *Engine) ReplaceSlices(list []*resourcev1.ResourceSlice) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.slices.clear()
	for _, in := range list {
		e.slices.set(in, true)
	}
	for _, n := range e.nodes {
		if n.facts.Node != nil {
			n.facts.Devices = e.slices.devices(n.facts.Node)
		}
	}
	e.decideAll()
}

// stripSlice keeps the fields of a ResourceSlice that are in use: of its devices, how many there are and where.
func stripSlice(in *resourcev1.ResourceSlice) *resourcev1.ResourceSlice {
	out := &resourcev1.ResourceSlice{ObjectMeta: metav1.ObjectMeta{Name: in.Name, ResourceVersion: in.ResourceVersion, OwnerReferences: in.OwnerReferences}}
	out.Spec = resourcev1.ResourceSliceSpec{Driver: intern(in.Spec.Driver), Pool: in.Spec.Pool, NodeName: in.Spec.NodeName}
	out.Spec.Devices = make([]resourcev1.Device, len(in.Spec.Devices))
	for i := range in.Spec.Devices {
		out.Spec.Devices[i].NodeName = in.Spec.Devices[i].NodeName
	}
	return out
}
