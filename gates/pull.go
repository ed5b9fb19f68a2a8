package gates

import (
	"cmp"
	"slices"
	"strings"
)

// defaultPullNodes is how many nodes pull at most where a policy does not say: as many as a workload of ordinary size
// needs, and few enough that a wrong image name costs little.
const defaultPullNodes = 10

// Pull says on how many nodes a policy has agents fetch images.
type Pull struct {
	// Least and Most nodes are wanted with the images warm.
	Least, Most int
	// Allow are the registries whose images may be fetched; none means those of which some node has an image.
	Allow []string
}

// Pull says whether the policy has agents fetch the images that pods wait for.
func (p *Policy) Pull() (pull Pull, ok bool) {
	if p.leaving {
		return Pull{}, false
	}
	for _, r := range p.requirements {
		if images, is := r.(imagesRequirement); is && images.pullNodes > 0 {
			return Pull{Least: images.minNodes, Most: images.pullNodes, Allow: images.allow}, true
		}
	}
	return Pull{}, false
}

// PullTargets chooses the nodes whose agents are to fetch the images of a shape for so many waiting pods, by their
// hostname labels, sorted. It is empty when the warm nodes suffice, and when there is no other node where the pods could
// run now. Nodes chosen before stay while they are of use, also when they are warm: what pulled an image keeps it pinned.
func (f *Fleet) PullTargets(shape *Shape, pods int, pull Pull, chosen []string) []string {
	warm := f.warmNodes(shape)
	nodes := 0
	for _, n := range warm {
		if n.hasRoom(shape) {
			nodes, pods = nodes+1, pods-n.slotsFor(shape, pods)
		}
	}
	if pods <= 0 && nodes >= pull.Least {
		return nil
	}
	var out []string
	for _, n := range warm {
		if slices.Contains(chosen, n.hostname()) && len(out) < pull.Most {
			out = append(out, n.hostname())
		}
	}
	for _, n := range f.pullable(shape, chosen) {
		if len(out) >= pull.Most || (pods <= 0 && nodes >= pull.Least) {
			break
		}
		out = append(out, n.hostname())
		nodes, pods = nodes+1, pods-n.slotsFor(shape, pods)
	}
	slices.Sort(out)
	return out
}

// pullable lists the cold nodes with an agent and with room for the shape: those first that have not failed to pull it,
// then those chosen before, then the emptiest.
func (f *Fleet) pullable(shape *Shape, chosen []string) []*node {
	const enough = 1 << 20 // no node holds more pods
	type candidate struct {
		*node
		failed, fresh int
		slots         int
	}
	var found []candidate
	m := f.look(shape)
	for slot, n := range f.slots {
		if n == nil || m.marks[slot]&able == 0 || m.marks[slot]&warmHere != 0 || !n.inventory || n.hostname() == "" || f.hostnames[n.hostname()] > 1 {
			continue
		}
		c := candidate{node: n, fresh: 1, slots: n.slotsFor(shape, enough)}
		if c.slots == 0 {
			continue
		}
		if slices.ContainsFunc(shape.Names, func(name string) bool { return slices.Contains(n.failed, name) }) {
			c.failed = 1
		}
		if slices.Contains(chosen, n.hostname()) {
			c.fresh = 0
		}
		found = append(found, c)
	}
	slices.SortFunc(found, func(a, b candidate) int {
		return cmp.Or(a.failed-b.failed, a.fresh-b.fresh, b.slots-a.slots, strings.Compare(a.Name(), b.Name()))
	})
	out := make([]*node, 0, len(found))
	for _, c := range found {
		out = append(out, c.node)
	}
	return out
}

// MayPull says whether nodes may be told to fetch an image. Where no node has any image whose registry is known there is
// nothing to compare with, and no workload either.
func (f *Fleet) MayPull(pull Pull, image string) bool {
	registry := Registry(image)
	if len(pull.Allow) == 0 {
		return len(f.registries) == 0 || f.registries[registry] > 0
	}
	return slices.ContainsFunc(pull.Allow, func(allowed string) bool {
		allowed = strings.TrimSuffix(allowed, "/")
		rest, ok := strings.CutPrefix(image, allowed)
		return registry == allowed || (ok && rest != "" && strings.ContainsRune("/:@", rune(rest[0])))
	})
}
