// Package turn lets a large fleet pull in turns without a list of nodes anywhere: every node has a fixed place on a
// line, derived from its name and the policy's UID, and the policy's status says in two numbers up to which place nodes
// belong to it and up to which they may pull now. It is pure and safe for concurrent use. The controller calls
// Schedule, the agents call Place.
package turn

import (
	"cmp"
	"hash/fnv"
	"slices"
)

// Last is the last place: whoever opens up to here lets everybody in.
const Last = int64(1)<<32 - 1

// Place is the node's place for one policy, 0 to Last. It never changes, differs from policy to policy, and is spread
// evenly, so the nodes that a policy takes first are not those that the next one takes first.
func Place(policyUID, node string) int64 {
	h := fnv.New64a()
	// hash.Hash never returns an error.
	_, _ = h.Write([]byte(policyUID))
	_, _ = h.Write([]byte{'/'})
	_, _ = h.Write([]byte(node))
	return int64(mix(h.Sum64()) >> 32)
}

// mix spreads what FNV leaves close together: names of nodes differ in their last characters only.
// Source: the finalizer of MurmurHash3 (public domain), 64 bit.
func mix(x uint64) uint64 {
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}

// Node is one matching node as Schedule needs it.
type Node struct {
	// Place of the node for this policy.
	Place int64
	// Busy says that the node still has to pull, or is pulling.
	Busy bool
}

// Schedule returns up to which place nodes are members of a policy of at most maxNodes nodes (0: all), and up to which
// place they may pull so that at most slots of them do at once (0: no limit). Both are Last when nobody has to be kept
// out, so that a node that joins a settled policy starts without asking.
func Schedule(nodes []Node, maxNodes, slots int) (members, open int64) {
	nodes = slices.SortedFunc(slices.Values(nodes), func(a, b Node) int { return cmp.Compare(a.Place, b.Place) })
	members, open = Last, Last
	if maxNodes > 0 && len(nodes) > maxNodes {
		nodes = nodes[:maxNodes]
		members = nodes[maxNodes-1].Place
	}
	if slots <= 0 {
		return members, open
	}
	busy := 0
	for _, n := range nodes {
		if !n.Busy {
			continue
		}
		if busy == slots {
			return members, n.Place - 1
		}
		busy++
	}
	return members, open
}
