package warm

import (
	"math/bits"
	"slices"
)

// sparseMax is how many nodes a set lists one by one; 32 of them take as much room as the bits of 1,000 nodes.
const sparseMax = 32

// set is a set of node numbers: a list while it is small, because most images of a fleet are on few nodes, and one bit
// a node from then on, because the images that are asked for are on many.
type set struct {
	list []uint32
	bits []uint64
	size int
}

func (s *set) add(n uint32) {
	if s.has(n) {
		return
	}
	s.size++
	if s.bits == nil && len(s.list) < sparseMax {
		s.list = append(s.list, n)
		return
	}
	for _, m := range s.list {
		s.setBit(m)
	}
	s.list = nil
	s.setBit(n)
}

func (s *set) setBit(n uint32) {
	word := int(n / 64)
	if word >= len(s.bits) {
		s.bits = append(s.bits, make([]uint64, word+1-len(s.bits))...)
	}
	s.bits[word] |= 1 << (n % 64)
}

func (s *set) remove(n uint32) {
	if !s.has(n) {
		return
	}
	s.size--
	if s.bits != nil {
		s.bits[n/64] &^= 1 << (n % 64)
		return
	}
	s.list = slices.DeleteFunc(s.list, func(m uint32) bool { return m == n })
}

func (s *set) has(n uint32) bool {
	if s == nil {
		return false
	}
	if s.bits != nil {
		return int(n/64) < len(s.bits) && s.bits[n/64]&(1<<(n%64)) != 0
	}
	return slices.Contains(s.list, n)
}

// or adds the set to words, which has room for every node.
func (s *set) or(words []uint64) {
	if s == nil {
		return
	}
	for i, w := range s.bits {
		words[i] |= w
	}
	for _, n := range s.list {
		words[n/64] |= 1 << (n % 64)
	}
}

// each calls yield with every number whose bit is set.
func each(words []uint64, yield func(uint32)) {
	for i, w := range words {
		for ; w != 0; w &= w - 1 {
			yield(uint32(i*64 + bits.TrailingZeros64(w)))
		}
	}
}
