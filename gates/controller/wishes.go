package controller

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/types"

	"headstart.dev/gates"
)

// What pods cause is bounded: anybody who may make a pod with a gate has nodes pull for it.
const (
	// pullImages is how many images one GatePolicy has nodes pull at a time, pullImagesOfNamespace how many of them for the
	// pods of one namespace.
	pullImages            = 60
	pullImagesOfNamespace = 10
	// pullShapes is how many kinds of pods are looked at for it at a time.
	pullShapes = 60
	// pullHosts is how many nodes pull for one GatePolicy at most, all kinds of pods together.
	pullHosts = 1000
)

// pullWish is what nodes should fetch because pods wait by a policy.
type pullWish struct {
	policy *gates.Policy
	// images are sorted.
	images []string
	// hosts are the hostname labels of the nodes, sorted.
	hosts []string
	// refused says why an image that pods wait for is not fetched.
	refused string
}

// pullName names the PrepullPolicy of a GatePolicy.
func pullName(policy *gates.Policy) string {
	sum := sha256.Sum256([]byte(policy.UID))
	return "gate-" + strings.TrimRight(policy.Name[:min(len(policy.Name), nameLimit-50)], "-.") + "-" + hex.EncodeToString(sum[:8])
}

// pullWishes says which nodes should fetch what now, for each policy that has nodes pull. chosen are the hostnames that
// its PrepullPolicy has.
func (w *waitlist) pullWishes(chosen map[string][]string) []pullWish {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.sources.fleetProblem() != "" {
		return nil
	}
	var out []pullWish
	for gate, policy := range w.policies {
		if pull, ok := policy.Pull(); ok {
			wish := pullWish{policy: policy}
			w.wishFor(&wish, gate, pull, chosen[pullName(policy)])
			out = append(out, wish)
		}
	}
	return out
}

// wishFor fills a wish. Namespaces take turns, so that none of them takes what is there for all.
func (w *waitlist) wishFor(wish *pullWish, gate string, pull gates.Pull, chosen []string) {
	counts, perNamespace := w.shapes(gate), map[string]int{}
	for i, turn := range w.turns(gate) {
		shape := turn.shape
		added := missingFrom(wish.images, shape.Names)
		if i >= pullShapes || len(wish.images)+len(added) > pullImages || perNamespace[turn.namespace]+len(added) > pullImagesOfNamespace {
			continue
		}
		if image, ok := w.notAllowed(pull, shape); !ok {
			wish.refused = fmt.Sprintf("image %s is not pulled ahead: images.allow does not name its registry", image)
			if len(pull.Allow) == 0 {
				wish.refused = fmt.Sprintf("image %s is not pulled ahead: no node has an image of its registry; name the registry in images.allow", image)
			}
			continue
		}
		hosts := w.fleet.PullTargets(shape, counts[shape], pull, slices.Concat(chosen, wish.hosts))
		if len(hosts) == 0 {
			continue
		}
		perNamespace[turn.namespace] += len(added)
		wish.images = append(wish.images, added...)
		wish.hosts = append(wish.hosts, hosts...)
		slices.Sort(wish.hosts)
		wish.hosts = slices.Compact(wish.hosts)
		wish.hosts = wish.hosts[:min(len(wish.hosts), pullHosts)]
	}
	slices.Sort(wish.images)
}

// turn is a kind of pod that waits in a namespace.
type turn struct {
	namespace string
	shape     *gates.Shape
	order     int
}

// turns lists the kinds of pods that wait for a gate, each once: the first of every namespace, then the second.
func (w *waitlist) turns(gate string) []turn {
	byNamespace := map[string]map[*gates.Shape]struct{}{}
	for _, pod := range w.byGate[gate] {
		if !pod.has(gate) || len(pod.Names) == 0 {
			continue
		}
		if byNamespace[pod.Namespace] == nil {
			byNamespace[pod.Namespace] = map[*gates.Shape]struct{}{}
		}
		byNamespace[pod.Namespace][pod.Shape] = struct{}{}
	}
	var out []turn
	for namespace, shapes := range byNamespace {
		sorted := slices.SortedFunc(maps.Keys(shapes), func(a, b *gates.Shape) int { return slices.Compare(a.Names, b.Names) })
		for order, shape := range sorted {
			out = append(out, turn{namespace, shape, order})
		}
	}
	slices.SortStableFunc(out, func(a, b turn) int {
		return cmp.Or(a.order-b.order, strings.Compare(a.namespace, b.namespace))
	})
	seen := map[*gates.Shape]bool{}
	return slices.DeleteFunc(out, func(t turn) bool {
		again := seen[t.shape]
		seen[t.shape] = true
		return again
	})
}

// notAllowed names an image of the shape that nodes may not be told to fetch; ok says that there is none.
func (w *waitlist) notAllowed(pull gates.Pull, shape *gates.Shape) (image string, ok bool) {
	for _, name := range shape.Names {
		if !w.fleet.MayPull(pull, name) {
			return name, false
		}
	}
	return "", true
}

func missingFrom(have, wanted []string) []string {
	var out []string
	for _, name := range wanted {
		if !slices.Contains(have, name) {
			out = append(out, name)
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

// refusedPulls says of each policy why it has something not pulled.
func refusedPulls(wishes []pullWish) map[types.UID]string {
	out := map[types.UID]string{}
	for i := range wishes {
		if wishes[i].refused != "" {
			out[wishes[i].policy.UID] = wishes[i].refused
		}
	}
	return out
}
