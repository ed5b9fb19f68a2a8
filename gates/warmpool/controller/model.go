package controller

import (
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"

	"headstart.dev/internal/resources"
	"headstart.dev/readiness/nodewatch"
)

// model is the cluster as the warm pools see it, fed by watches. Safe for concurrent use.
type model struct {
	now     func() time.Time
	changed func(types.NamespacedName) // a pool has something to reconcile; must not block

	mu    sync.Mutex
	pools map[types.NamespacedName]*pool
	pods  map[types.UID]*podView
	nodes map[string]*nodeView
	used  map[string]resources.List // by node: what its pods request
	on    map[string]map[types.UID]*podView
	// gates maps the name of a scheduling gate to the pools that are to bring capacity for its pods.
	gates    map[string][]types.NamespacedName
	policies map[types.UID]gateDemand
}

func newModel(now func() time.Time, changed func(types.NamespacedName)) *model {
	return &model{
		now: now, changed: changed,
		pools: map[types.NamespacedName]*pool{}, pods: map[types.UID]*podView{}, nodes: map[string]*nodeView{},
		used: map[string]resources.List{}, on: map[string]map[types.UID]*podView{}, gates: map[string][]types.NamespacedName{},
		policies: map[types.UID]gateDemand{},
	}
}

// podHandler feeds the model from an informer.
func (m *model) podHandler() toolscache.ResourceEventHandler {
	set := func(obj any) {
		if pod, ok := obj.(*corev1.Pod); ok {
			m.setPod(newPodView(pod))
		}
	}
	return toolscache.ResourceEventHandlerFuncs{
		AddFunc:    set,
		UpdateFunc: func(_, obj any) { set(obj) },
		DeleteFunc: func(obj any) {
			if pod, ok := last(obj).(*corev1.Pod); ok {
				m.deletePod(pod.UID, newPodView(pod).preempted)
			}
		},
	}
}

// nodeHandler feeds the model from the watch of nodes.
func (m *model) nodeHandler() nodewatch.Handler[*nodeView] {
	return nodewatch.Handler[*nodeView]{Read: m.readNode, Set: m.setNode, Delete: m.deleteNode}
}

// last unwraps the object of a deletion that a watch missed.
func last(obj any) any {
	if gone, ok := obj.(toolscache.DeletedFinalStateUnknown); ok {
		return gone.Obj
	}
	return obj
}

func (m *model) setPod(v *podView) {
	m.mu.Lock()
	defer m.mu.Unlock()
	old := m.pods[v.uid]
	if old != nil {
		v.nominated = v.nominated || old.nominated // the API server clears it when the pod is bound
		if old.sameAs(v) {
			return
		}
		m.unplace(old)
	}
	m.pods[v.uid] = v
	m.place(v)
	now := m.now()
	for _, p := range m.pools {
		if p.podChanged(m, now, old, v) {
			m.changed(p.key)
		}
	}
}

// deletePod forgets a pod. preempted tells of a preemption whose own update the watch may have folded into the deletion.
func (m *model) deletePod(uid types.UID, preempted bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	old := m.pods[uid]
	if old == nil {
		return
	}
	m.unplace(old)
	delete(m.pods, uid)
	now := m.now()
	for _, p := range m.pools {
		if p.podGone(m, now, old, preempted) {
			m.changed(p.key)
		}
	}
}

func (m *model) place(v *podView) {
	if v.node == "" {
		return
	}
	if m.on[v.node] == nil {
		m.on[v.node], m.used[v.node] = map[types.UID]*podView{}, resources.List{}
	}
	m.on[v.node][v.uid] = v
	if !v.over {
		m.used[v.node].Add(v.requests, 1)
	}
}

func (m *model) unplace(v *podView) {
	if v.node == "" || m.on[v.node] == nil {
		return
	}
	delete(m.on[v.node], v.uid)
	if !v.over {
		m.used[v.node].Add(v.requests, -1)
	}
	if len(m.on[v.node]) == 0 {
		delete(m.on, v.node)
		delete(m.used, v.node)
	}
}

// readNode makes a view of a node; what did not change since the last one is not parsed again.
func (m *model) readNode(node *corev1.Node) *nodeView {
	m.mu.Lock()
	old := m.nodes[node.Name]
	m.mu.Unlock()
	return newNodeView(node, old)
}

func (m *model) setNode(v *nodeView) {
	m.mu.Lock()
	defer m.mu.Unlock()
	old := m.nodes[v.name]
	m.nodes[v.name] = v
	now := m.now()
	moved := old == nil || !sameLabels(old.labels, v.labels)
	for _, p := range m.pools {
		if p.nodeChanged(m, now, v, moved) {
			m.changed(p.key)
		}
	}
}

func (m *model) deleteNode(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.nodes, name)
	now := m.now()
	for _, p := range m.pools {
		changed := !p.pausePods()
		// The API server has the pods for a while yet; the room that they held is gone with the node.
		for _, v := range m.on[name] {
			if v.replicaOf == p.key {
				changed = p.replicaChanged(m, now, v) || changed
			}
		}
		if changed {
			m.changed(p.key)
		}
	}
}

// adopt replaces the pool of a key by what build makes of it (nil where there is none), and counts what the cluster
// already holds of it.
func (m *model) adopt(key types.NamespacedName, build func(have *pool) *pool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := build(m.pools[key])
	m.pools[key] = p
	p.recount(m)
	// What is there at the first look, or looks larger beside another shape, is no rise of demand.
	p.sizer.Window().Rebase()
	now := m.now()
	p.sizer.Observe(now, float64(p.demandSum)/micro, p.lead())
	for _, v := range m.pods {
		if v.replicaOf == p.key {
			p.replicaChanged(m, now, v)
		}
	}
}

// drop forgets a pool.
func (m *model) drop(key types.NamespacedName) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.pools, key)
}

// with calls f with a pool while nothing changes it, and reports whether there is one.
func (m *model) with(key types.NamespacedName, f func(*pool)) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.pools[key]
	if p == nil {
		return false
	}
	f(p)
	return true
}
