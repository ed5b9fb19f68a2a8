package inflate

import (
	"fmt"
	"math/bits"
)

// The sizes of the main tables, in bits. Longer codes go on in subtables.
const (
	litlenBits  = 11
	offsetBits  = 9
	precodeBits = 7
	maxCodeBits = 15
)

// A table entry, of 32 bits:
//
//	0-7    bits that the symbol takes, its extra bits included
//	8-11   bits of its code alone, by which the extra bits are found; for a pointer, bits of the subtable
//	12-15  invalid, end of block, pointer to a subtable; exceptional is set for each of them
//	16-30  literal, length or distance base, symbol, or where the subtable begins
//	31     literal
const (
	lengthMask  = 0xff
	invalid     = 1 << 12
	ending      = 1 << 13
	pointer     = 1 << 14
	exceptional = 1 << 15
	valueShift  = 16
	literal     = 1 << 31
)

// table decodes one Huffman code.
type table struct {
	bits    uint
	entries []uint32
}

// build makes the table of a code from the lengths of its symbols' codes; entry makes the entry of a symbol. A code must
// be complete, but for one with a single symbol of one bit, or with none at all.
func (t *table) build(lengths []byte, entry func(symbol int) uint32) error {
	var count [maxCodeBits + 1]int
	longest := uint(0)
	for _, n := range lengths {
		count[n]++
		longest = max(longest, uint(n))
	}
	count[0] = 0
	next := [maxCodeBits + 2]uint{}
	code := uint(0)
	for n := 1; n <= maxCodeBits; n++ {
		code = (code + uint(count[n-1])) << 1
		next[n] = code
		if code+uint(count[n]) > 1<<n {
			return fmt.Errorf("%w: a code with too many symbols", ErrCorrupt)
		}
	}
	complete := next[maxCodeBits]+uint(count[maxCodeBits]) == 1<<maxCodeBits
	if !complete && longest > 0 && (longest != 1 || count[1] != 1) {
		return fmt.Errorf("%w: a code with too few symbols", ErrCorrupt)
	}
	main := 1 << t.bits
	t.entries = t.entries[:0]
	for len(t.entries) < main {
		t.entries = append(t.entries, invalid|exceptional)
	}
	for symbol, n := range lengths {
		if n == 0 {
			continue
		}
		reversed := bits.Reverse(next[n]) >> (bits.UintSize - uint(n))
		next[n]++
		t.set(reversed, uint(n), longest, entry(symbol))
	}
	return nil
}

// set writes an entry everywhere where its code leads. e has the number of extra bits in its lowest byte.
func (t *table) set(code, length, longest uint, e uint32) {
	if length <= t.bits {
		e += uint32(length) | uint32(length)<<8
		for i := code; i < 1<<t.bits; i += 1 << length {
			t.entries[i] = e
		}
		return
	}
	head := code & (1<<t.bits - 1)
	if t.entries[head]&invalid != 0 {
		start := uint32(len(t.entries))
		t.entries[head] = start<<valueShift | pointer | exceptional | uint32(longest-t.bits)<<8 | uint32(t.bits)
		for range 1 << (longest - t.bits) {
			t.entries = append(t.entries, invalid|exceptional)
		}
	}
	start := uint(t.entries[head] >> valueShift)
	rest := length - t.bits
	e += uint32(rest) | uint32(rest)<<8
	for i := code >> t.bits; i < 1<<(longest-t.bits); i += 1 << rest {
		t.entries[start+i] = e
	}
}

var (
	lengthBases = [29]uint16{3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258}
	lengthExtra = [29]uint8{0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0}
	offsetBases = [30]uint16{1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537, 2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577}
	offsetExtra = [30]uint8{0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13}
)

func litlenEntry(symbol int) uint32 {
	switch {
	case symbol < endOfBlock:
		return literal | uint32(symbol)<<valueShift
	case symbol == endOfBlock:
		return ending | exceptional
	case symbol-257 < len(lengthBases):
		return uint32(lengthBases[symbol-257])<<valueShift | uint32(lengthExtra[symbol-257])
	default:
		return invalid | exceptional
	}
}

func offsetEntry(symbol int) uint32 {
	if symbol >= len(offsetBases) {
		return invalid | exceptional
	}
	return uint32(offsetBases[symbol])<<valueShift | uint32(offsetExtra[symbol])
}

func precodeEntry(symbol int) uint32 { return uint32(symbol) << valueShift }
