// Package warm answers which nodes have which images, from the inventories that the agents publish
// (prepull.Inventory). It is pure. Start from Index for a fleet and from Missing for one node.
package warm

import (
	"maps"
	"slices"
	"sync"

	"headstart.dev/prepull"
)

// Want is one image that somebody needs on a node.
type Want struct {
	// Name is the normalised reference (docker.io/library/nginx:1.29).
	Name string
	// Digest is what the name has to be there ("sha256:..."); empty for whatever it was when it was pulled.
	Digest string
	// Lazy accepts an image whose content still comes over the network.
	Lazy bool
}

// Missing returns those of wants that the node with this inventory lacks, in their order.
func Missing(inv prepull.Inventory, wants []Want) []Want {
	has := func(list []prepull.InventoryImage, w Want) bool {
		return slices.ContainsFunc(list, func(img prepull.InventoryImage) bool {
			return img.Name == w.Name && (w.Digest == "" || img.Digest == prepull.DigestPrefix(w.Digest))
		})
	}
	return slices.DeleteFunc(slices.Clone(wants), func(w Want) bool {
		return has(inv.Warm, w) || w.Lazy && has(inv.Lazy, w)
	})
}

// Index knows which nodes have which images. The zero value is empty and ready. All methods are safe for concurrent use.
type Index struct {
	mu     sync.RWMutex
	number map[string]uint32 // of a node
	nodes  []*node           // by number; nil where a node has gone
	free   []uint32
	images map[image]*set
}

type node struct {
	name   string
	images []image
}

// image is one key of the index. An image that is present under a name is filed twice, with its digest and with none,
// because both are asked for.
type image struct {
	name, digest string
	lazy         bool
}

// Set replaces what is known of a node.
func (x *Index) Set(name string, inv prepull.Inventory) {
	images := keys(inv)
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.number == nil {
		x.number, x.images = map[string]uint32{}, map[image]*set{}
	}
	n, known := x.number[name]
	if !known {
		n = x.claim(name)
	}
	have := x.nodes[n]
	for _, img := range have.images {
		if !images[img] {
			x.drop(img, n)
		}
	}
	have.images = slices.Collect(maps.Keys(images))
	for img := range images {
		s := x.images[img]
		if s == nil {
			s = &set{}
			x.images[img] = s
		}
		s.add(n)
	}
}

// Delete forgets a node; an unknown one is no error.
func (x *Index) Delete(name string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	n, known := x.number[name]
	if !known {
		return
	}
	for _, img := range x.nodes[n].images {
		x.drop(img, n)
	}
	x.nodes[n] = nil
	x.free = append(x.free, n)
	delete(x.number, name)
}

// Nodes returns the nodes that have all the images, in no order; all known nodes when wants is empty.
func (x *Index) Nodes(wants ...Want) []string {
	x.mu.RLock()
	defer x.mu.RUnlock()
	words := x.match(wants)
	var names []string
	each(words, func(n uint32) {
		if x.nodes[n] != nil {
			names = append(names, x.nodes[n].name)
		}
	})
	return names
}

// Has says whether the node has all the images; an unknown node has none.
func (x *Index) Has(name string, wants ...Want) bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	n, known := x.number[name]
	if !known {
		return false
	}
	for _, w := range wants {
		full, lazy := x.sets(w)
		if !full.has(n) && !lazy.has(n) {
			return false
		}
	}
	return true
}

// match returns one bit for each node that has all the images. The caller holds mu.
func (x *Index) match(wants []Want) []uint64 {
	words := make([]uint64, (len(x.nodes)+63)/64)
	for i := range words {
		words[i] = ^uint64(0)
	}
	if tail := len(x.nodes) % 64; tail > 0 {
		words[len(words)-1] = 1<<tail - 1
	}
	one := make([]uint64, len(words))
	for _, w := range wants {
		clear(one)
		full, lazy := x.sets(w)
		full.or(one)
		lazy.or(one)
		for i := range words {
			words[i] &= one[i]
		}
	}
	return words
}

// sets returns the nodes that have the image, whole and, if that is accepted, lazily. The caller holds mu.
func (x *Index) sets(w Want) (full, lazy *set) {
	key := image{name: w.Name}
	if w.Digest != "" {
		key.digest = prepull.DigestPrefix(w.Digest)
	}
	full = x.images[key]
	if w.Lazy {
		key.lazy = true
		lazy = x.images[key]
	}
	return full, lazy
}

// claim gives a new node the lowest free number, so that the bits stay dense. The caller holds mu.
func (x *Index) claim(name string) uint32 {
	n := uint32(len(x.nodes))
	if last := len(x.free) - 1; last >= 0 {
		n, x.free = x.free[last], x.free[:last]
		x.nodes[n] = &node{name: name}
	} else {
		x.nodes = append(x.nodes, &node{name: name})
	}
	x.number[name] = n
	return n
}

// drop takes a node from an image, and forgets an image that no node has. The caller holds mu.
func (x *Index) drop(img image, n uint32) {
	s := x.images[img]
	if s == nil {
		return
	}
	s.remove(n)
	if s.size == 0 {
		delete(x.images, img)
	}
}

func keys(inv prepull.Inventory) map[image]bool {
	images := make(map[image]bool, 2*(len(inv.Warm)+len(inv.Lazy)))
	file := func(list []prepull.InventoryImage, lazy bool) {
		for _, img := range list {
			images[image{name: img.Name, digest: img.Digest, lazy: lazy}] = true
			images[image{name: img.Name, lazy: lazy}] = true
		}
	}
	file(inv.Warm, false)
	file(inv.Lazy, true)
	return images
}
