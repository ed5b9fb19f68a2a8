package controller

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/types"

	"headstart.dev/gates"
)

// pullWish is one set of images that nodes should fetch because pods wait for it.
type pullWish struct {
	policy *gates.Policy
	// name is that of the PrepullPolicy.
	name   string
	images []string
	// hosts are the hostname labels of the nodes.
	hosts []string
}

// pullName names the PrepullPolicy of a GatePolicy for one set of images.
func pullName(policy *gates.Policy, images []string) string {
	sum := sha256.Sum256([]byte(string(policy.UID) + "\x00" + strings.Join(images, "\n")))
	return "gate-" + strings.TrimRight(policy.Name[:min(len(policy.Name), nameLimit-50)], "-.") + "-" + hex.EncodeToString(sum[:8])
}

// pullWishes says which nodes should fetch which images now. chosen are the hostnames that a PrepullPolicy has.
func (w *waitlist) pullWishes(chosen map[string][]string) []pullWish {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.sources.fleetReady() {
		return nil
	}
	var out []pullWish
	for gate, policy := range w.policies {
		pull, ok := policy.Pull()
		if !ok {
			continue
		}
		wishes := map[string]*pullWish{}
		for shape, pods := range w.shapes(gate) {
			if len(shape.Names) == 0 {
				continue
			}
			name := pullName(policy, shape.Names)
			wish := wishes[name]
			if wish == nil {
				wish = &pullWish{policy: policy, name: name, images: shape.Names}
				wishes[name] = wish
			}
			hosts := w.fleet.PullTargets(shape, pods, pull, slices.Concat(chosen[name], wish.hosts))
			wish.hosts = append(wish.hosts, hosts...)
			slices.Sort(wish.hosts)
			wish.hosts = slices.Compact(wish.hosts)
			wish.hosts = wish.hosts[:min(len(wish.hosts), pull.Most)]
		}
		for _, wish := range wishes {
			if len(wish.hosts) > 0 {
				out = append(out, *wish)
			}
		}
	}
	return out
}

// shapes counts the pods with a gate by their shape. The caller holds the lock.
func (w *waitlist) shapes(gate string) map[*gates.Shape]int {
	out := map[*gates.Shape]int{}
	for _, pod := range w.byGate[gate] {
		if pod.has(gate) {
			out[pod.Shape]++
		}
	}
	return out
}

// labelChange is one label of placement Required that a node should gain or lose.
type labelChange struct {
	node  string
	uid   types.UID
	label string
	set   bool
}

// labels says how the nodes' labels of placement Required should change. A label that no pod asks for is taken off the
// nodes once expired says so.
func (w *waitlist) labels(expired func(label string, wanted bool) bool) []labelChange {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.sources.fleetReady() {
		return nil
	}
	want, have := w.wantedLabels(), w.fleet.Labelled()
	var out []labelChange
	for label, nodes := range want {
		expired(label, true)
		for _, node := range nodes {
			if !slices.Contains(have[label], node) {
				out = append(out, labelChange{node.Name(), node.UID(), label, true})
			}
		}
	}
	for label, nodes := range have {
		if _, wanted := want[label]; !wanted && !expired(label, false) {
			continue
		}
		for _, node := range nodes {
			if !slices.Contains(want[label], node) {
				out = append(out, labelChange{node.Name(), node.UID(), label, false})
			}
		}
	}
	slices.SortFunc(out, func(a, b labelChange) int {
		return cmp.Or(strings.Compare(a.node, b.node), strings.Compare(a.label, b.label))
	})
	return out
}

// wantedLabels lists the nodes that should have a label, by label; a label that pods ask for while no node is warm has an
// empty list. The caller holds the lock.
func (w *waitlist) wantedLabels() map[string][]*gates.Node {
	demand := map[*gates.Shape]int{}
	for _, pod := range w.steered {
		demand[pod.Shape]++
	}
	for gate, policy := range w.policies {
		if !policy.Labels() {
			continue
		}
		for shape, pods := range w.shapes(gate) {
			demand[shape] += pods
		}
	}
	out := map[string][]*gates.Node{}
	for shape, pods := range demand {
		if len(shape.Images) == 0 {
			continue
		}
		label := shape.WarmLabel()
		nodes := out[label]
		for _, node := range w.fleet.LabelTargets(shape, pods) {
			if !slices.Contains(nodes, node) {
				nodes = append(nodes, node)
			}
		}
		out[label] = nodes
	}
	return out
}
