package controller

import (
	"cmp"
	"slices"

	"k8s.io/apimachinery/pkg/types"
)

// nodeLoad is what one node carries, as far as shrinking a pool goes.
type nodeLoad struct {
	node     string
	replicas []types.NamespacedName // of the pool
	others   int                    // pods that are neither the pool's nor a DaemonSet's
}

// surplus chooses n replicas to give up so that nodes become empty and can go: first all replicas of nodes that hold
// nothing else and fit wholly into n, the smallest first; then replicas beside other pods, whose nodes stay anyway; and
// only then some of a node that they alone hold.
func surplus(loads []nodeLoad, n int) []types.NamespacedName {
	slices.SortFunc(loads, func(a, b nodeLoad) int {
		return cmp.Or(cmp.Compare(min(a.others, 1), min(b.others, 1)), cmp.Compare(len(a.replicas), len(b.replicas)), cmp.Compare(a.node, b.node))
	})
	var chosen, beside, alone []types.NamespacedName
	for _, l := range loads {
		switch {
		case l.others > 0:
			beside = append(beside, l.replicas...)
		case len(chosen)+len(l.replicas) <= n:
			chosen = append(chosen, l.replicas...)
		default:
			alone = append(alone, l.replicas...)
		}
	}
	chosen = append(append(chosen, beside...), alone...)
	return chosen[:min(max(n, 0), len(chosen))]
}

// loads lists the nodes that hold bound replicas of the pool.
func (p *pool) loads(m *model) []nodeLoad {
	byNode := map[string]*nodeLoad{}
	for uid := range p.replicas {
		v := m.pods[uid]
		if v == nil || v.node == "" || v.over {
			continue
		}
		if byNode[v.node] == nil {
			byNode[v.node] = &nodeLoad{node: v.node}
		}
		byNode[v.node].replicas = append(byNode[v.node].replicas, v.key)
	}
	loads := make([]nodeLoad, 0, len(byNode))
	for name, l := range byNode {
		for _, v := range m.on[name] {
			if !v.daemon && !v.over && v.replicaOf != p.key {
				l.others++
			}
		}
		slices.SortFunc(l.replicas, func(a, b types.NamespacedName) int { return cmp.Compare(a.Name, b.Name) })
		loads = append(loads, *l)
	}
	return loads
}

// surplus returns the bound replicas that are too many when keep are to stay.
func (m *model) surplus(key types.NamespacedName, keep int) []types.NamespacedName {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.pools[key]
	if p == nil || keep <= 0 {
		return nil // all of them go: there is nothing to choose
	}
	loads, bound := p.loads(m), 0
	for _, l := range loads {
		bound += len(l.replicas)
	}
	return surplus(loads, bound-keep)
}
