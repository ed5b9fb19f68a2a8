package controller

import (
	"time"

	"headstart.dev/gates/v1alpha1"
	"headstart.dev/internal/resources"
)

// maxLead is the longest that counts as the time of a new node. What takes longer waited for capacity that nobody had, or
// for a policy that somebody had yet to write, and would have every schedule start as much too early.
const maxLead = time.Hour

// replicaChanged takes in a pause pod of the pool and reports whether the pool must look.
func (p *pool) replicaChanged(m *model, now time.Time, v *podView) bool {
	r := p.replicas[v.uid]
	if r == nil {
		r = &replica{sawCold: !v.ready}
		p.replicas[v.uid] = r
	}
	node := m.nodes[v.node]
	ready := v.ready && !v.over && node != nil
	warm := ready && node.warm(p.target.warmth) && p.target.admits(node)
	if node != nil {
		// Creation times have whole seconds: a node of the same second was asked for by an earlier pod.
		r.onNewerNode = node.created.After(v.created)
	}
	p.measureReplica(now, r, v.created, ready, warm)
	changed := ready != r.ready || warm != r.warm
	r.ready, r.warm = ready, warm
	changed = changed || r.unscheduled != v.unscheduled
	r.unscheduled = v.unscheduled
	return p.consume(now, r, v.preempted) || changed || r.sawCold && !ready
}

// measureReplica takes the time of a replica that is ready, or warm, for the first time. One that was so when it was first
// seen cannot be measured.
func (p *pool) measureReplica(now time.Time, r *replica, created time.Time, ready, warm bool) {
	if ready && r.sawCold && len(p.taken) > 0 && !r.everReady {
		p.refills.Add(now.Sub(p.taken[0]))
		p.taken = p.taken[1:]
	}
	if lead := now.Sub(created); warm && !r.everWarm && r.sawCold && r.onNewerNode && lead <= maxLead {
		p.leads.Add(lead)
	}
	r.everReady, r.everWarm = r.everReady || ready, r.everWarm || warm
}

// consume counts a replica that a workload's pod has taken, once.
func (p *pool) consume(now time.Time, r *replica, preempted bool) bool {
	if !preempted || r.counted {
		return false
	}
	r.counted, r.ready, r.warm = true, false, false
	p.consumed++
	p.taken = append(p.taken, now)
	return true
}

// measureStart records how long a pod of the workload took to be ready: on a node that was bought for it, or in a
// replica's place. Only a pod that was seen before it was ready, and that no gate held back, can be measured.
func (p *pool) measureStart(m *model, now time.Time, old, v *podView) {
	if old == nil || old.ready || !v.ready || v.over || v.daemon || p.demand[v.uid] == 0 || len(old.gates) > 0 {
		return
	}
	node := m.nodes[v.node]
	if node == nil {
		return
	}
	switch {
	case node.created.After(v.created):
		p.coldStarts.Add(now.Sub(v.created))
	case v.nominated:
		p.warmStarts.Add(now.Sub(v.created))
	}
}

// counts are the pool's replicas as they are now.
type counts struct{ ready, warm, pending int32 }

// counts counts replicas as the pool's backend has them.
func (p *pool) counts(m *model) counts {
	switch p.backend {
	case v1alpha1.BackendCapacityBuffer:
		return p.freeCounts(m, false)
	case v1alpha1.BackendStaticNodePool:
		return p.freeCounts(m, true)
	case v1alpha1.BackendPausePods:
	}
	return p.replicaCounts()
}

// coldStart is the median time that a pod waits which needs a new node: measured on the workload's own pods, or, while
// none of them had to, on the pool's replicas, which come to their nodes the same way.
func (p *pool) coldStart() time.Duration {
	return p.coldStarts.Quantile(0.5, p.leads.Quantile(0.5, 0))
}

// waitAvoided is what the taken replicas spared their takers, as far as both starts were measured.
func (p *pool) waitAvoided() time.Duration {
	cold, warm := p.coldStart(), p.warmStarts.Quantile(0.5, 0)
	if cold == 0 || warm == 0 {
		return 0
	}
	return max(0, cold-warm) * time.Duration(p.consumed)
}

// replicaCounts counts pause pods.
func (p *pool) replicaCounts() counts {
	var c counts
	for _, r := range p.replicas {
		switch {
		case r.counted:
		case r.warm:
			c.ready++
			c.warm++
		case r.ready:
			c.ready++
		default:
			c.pending++
		}
	}
	return c
}

// freeCounts counts the shapes that are free on the pool's nodes, for backends without pods of their own. A whole node
// that only DaemonSets use counts as one where nodes says so.
func (p *pool) freeCounts(m *model, nodes bool) counts {
	var c counts
	for name, n := range m.nodes {
		if !p.hosts(n) || !n.ready || !p.target.admits(n) {
			continue
		}
		free := resources.Count(p.target.shape, n.allocatable, m.used[name])
		if nodes {
			free = 0
			if m.idle(name) {
				free = 1
			}
		}
		c.ready += free
		if n.warm(p.target.warmth) {
			c.warm += free
		}
	}
	return c
}

// idle reports whether a node holds nothing but DaemonSets' pods.
func (m *model) idle(node string) bool {
	for _, v := range m.on[node] {
		if !v.daemon && !v.over {
			return false
		}
	}
	return true
}

// busyNodes counts the pool's nodes that hold work.
func (p *pool) busyNodes(m *model) int32 {
	busy := int32(0)
	for name, n := range m.nodes {
		if p.hosts(n) && !m.idle(name) {
			busy++
		}
	}
	return busy
}
