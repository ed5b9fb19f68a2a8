package inflate

import (
	"encoding/binary"
	"fmt"
	"io"
)

// Source of all tables: RFC 1951, section 3.2.
const (
	maxLitlen  = 288
	maxOffsets = 32
	endOfBlock = 256
)

var codeLengthOrder = [19]int{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}

// blockHeader begins a block.
func (r *Reader) blockHeader() error {
	head, err := r.take(3)
	if err != nil {
		return err
	}
	r.last = head&1 != 0
	switch head >> 1 {
	case 0:
		r.align()
		b, err := r.bytes(4)
		if err != nil {
			return err
		}
		length := binary.LittleEndian.Uint16(b)
		if length != ^binary.LittleEndian.Uint16(b[2:]) {
			return fmt.Errorf("%w: a stored block's length", ErrCorrupt)
		}
		r.stored, r.state = int(length), inStored
		return nil
	case 1:
		return r.fixedCodes()
	case 2:
		return r.dynamicCodes()
	default:
		return fmt.Errorf("%w: a block of unknown kind", ErrCorrupt)
	}
}

func (r *Reader) fixedCodes() error {
	var lengths [maxLitlen]byte
	for i := range lengths {
		switch {
		case i < 144:
			lengths[i] = 8
		case i < 256:
			lengths[i] = 9
		case i < 280:
			lengths[i] = 7
		default:
			lengths[i] = 8
		}
	}
	var offsets [maxOffsets]byte
	for i := range offsets {
		offsets[i] = 5
	}
	r.state = inCodes
	return firstError(r.litlen.build(lengths[:], litlenEntry), r.offsets.build(offsets[:], offsetEntry))
}

func (r *Reader) dynamicCodes() error {
	counts, err := r.take(14)
	if err != nil {
		return err
	}
	litlens, offsets, codes := int(counts&31)+257, int(counts>>5&31)+1, int(counts>>10)+4
	if litlens > 286 || offsets > 30 {
		return fmt.Errorf("%w: too many codes", ErrCorrupt)
	}
	var codeLengths [19]byte
	for _, i := range codeLengthOrder[:codes] {
		length, err := r.take(3)
		if err != nil {
			return err
		}
		codeLengths[i] = byte(length)
	}
	if err := r.precode.build(codeLengths[:], precodeEntry); err != nil {
		return err
	}
	var lengths [286 + 30]byte
	if err := r.codeLengths(&r.precode, lengths[:litlens+offsets]); err != nil {
		return err
	}
	if lengths[endOfBlock] == 0 {
		return fmt.Errorf("%w: a block without an end", ErrCorrupt)
	}
	r.state = inCodes
	return firstError(r.litlen.build(lengths[:litlens], litlenEntry), r.offsets.build(lengths[litlens:litlens+offsets], offsetEntry))
}

// codeLengths reads the run-length coded lengths of both codes.
func (r *Reader) codeLengths(precode *table, lengths []byte) error {
	for i := 0; i < len(lengths); {
		symbol, err := r.symbol(precode)
		if err != nil {
			return err
		}
		if symbol < 16 {
			lengths[i] = byte(symbol)
			i++
			continue
		}
		var extra, base uint
		var value byte
		switch symbol {
		case 16:
			if i == 0 {
				return fmt.Errorf("%w: a repeat of nothing", ErrCorrupt)
			}
			extra, base, value = 2, 3, lengths[i-1]
		case 17:
			extra, base = 3, 3
		default:
			extra, base = 7, 11
		}
		more, err := r.take(extra)
		if err != nil {
			return err
		}
		repeat := int(base + more)
		if i+repeat > len(lengths) {
			return fmt.Errorf("%w: a repeat beyond the end", ErrCorrupt)
		}
		for range repeat {
			lengths[i] = value
			i++
		}
	}
	return nil
}

// symbol decodes one symbol of the precode, whose codes have at most 7 bits.
func (r *Reader) symbol(precode *table) (uint, error) {
	for {
		e := precode.entries[r.bitBuffer&(1<<precodeBits-1)]
		if length := uint(e & lengthMask); e&invalid == 0 && length <= r.bitCount {
			r.bitBuffer >>= length
			r.bitCount -= length
			return uint(e >> valueShift), nil
		}
		if r.bitCount >= precodeBits {
			return 0, fmt.Errorf("%w: a code that does not exist", ErrCorrupt)
		}
		if err := r.need(r.bitCount + 1); err != nil {
			return 0, err
		}
	}
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// codes decodes symbols until the block ends, the output is full, or the input has to be filled. It is the loop in which
// a pull spends its time. All state is in local variables; r.in is padded so that 8 bytes can be loaded at every position
// up to its valid end, and r.out has room for whatever one round writes.
//
//nolint:gocyclo // one loop: calls would cost what it is there to save
func (r *Reader) codes() error {
	if err := r.fill(inputSize / 2); err != nil {
		return err
	}
	in, out := r.in, r.out
	pos, filled, member := r.pos, r.filled, r.member
	bitBuffer, bitCount := r.bitBuffer, r.bitCount
	litlen, offsets := r.litlen.entries, r.offsets.entries
	limit := r.end - 16
	if r.eof {
		limit = r.end + padding - 16
	}
	var err error
	for filled < windowSize+outputSize && pos <= limit {
		bitBuffer |= binary.LittleEndian.Uint64(in[pos:]) << (bitCount & 63)
		pos += int((63 - bitCount) >> 3)
		bitCount |= 56
		e := litlen[bitBuffer&(1<<litlenBits-1)]
		if e&literal != 0 {
			// Two literals of at most 11 bits each before the next symbol: 56 bits hold them all.
			bitBuffer >>= e & 63
			bitCount -= uint(e & lengthMask)
			out[filled] = byte(e >> valueShift)
			filled++
			e = litlen[bitBuffer&(1<<litlenBits-1)]
			if e&literal != 0 {
				bitBuffer >>= e & 63
				bitCount -= uint(e & lengthMask)
				out[filled] = byte(e >> valueShift)
				filled++
				e = litlen[bitBuffer&(1<<litlenBits-1)]
				if e&literal != 0 {
					bitBuffer >>= e & 63
					bitCount -= uint(e & lengthMask)
					out[filled] = byte(e >> valueShift)
					filled++
					continue
				}
			}
			bitBuffer |= binary.LittleEndian.Uint64(in[pos:]) << (bitCount & 63)
			pos += int((63 - bitCount) >> 3)
			bitCount |= 56
		}
		if e&exceptional != 0 {
			if e&pointer != 0 {
				bitBuffer >>= e & 63
				bitCount -= uint(e & lengthMask)
				e = litlen[uint64(e>>valueShift)+bitBuffer&(1<<(e>>8&15)-1)]
				if e&literal != 0 {
					bitBuffer >>= e & 63
					bitCount -= uint(e & lengthMask)
					out[filled] = byte(e >> valueShift)
					filled++
					continue
				}
			}
			if e&invalid != 0 {
				err = fmt.Errorf("%w: a code that does not exist", ErrCorrupt)
				break
			}
			if e&ending != 0 {
				bitBuffer >>= e & 63
				bitCount -= uint(e & lengthMask)
				r.pos, r.filled, r.bitBuffer, r.bitCount = pos, filled, bitBuffer&(1<<(bitCount&63)-1), bitCount
				if r.overran() {
					return io.ErrUnexpectedEOF
				}
				r.endBlock()
				return nil
			}
		}
		length := int(e>>valueShift) + int(bitBuffer&(1<<(e&63)-1)>>(e>>8&15))
		bitBuffer >>= e & 63
		bitCount -= uint(e & lengthMask)

		o := offsets[bitBuffer&(1<<offsetBits-1)]
		if o&exceptional != 0 {
			if o&pointer == 0 {
				err = fmt.Errorf("%w: a distance that does not exist", ErrCorrupt)
				break
			}
			bitBuffer >>= o & 63
			bitCount -= uint(o & lengthMask)
			o = offsets[uint64(o>>valueShift)+bitBuffer&(1<<(o>>8&15)-1)]
			if o&exceptional != 0 {
				err = fmt.Errorf("%w: a distance that does not exist", ErrCorrupt)
				break
			}
		}
		distance := int(o>>valueShift) + int(bitBuffer&(1<<(o&63)-1)>>(o>>8&15))
		bitBuffer >>= o & 63
		bitCount -= uint(o & lengthMask)

		from := filled - distance
		if from < member {
			err = fmt.Errorf("%w: a distance beyond the beginning", ErrCorrupt)
			break
		}
		to := filled + length
		if distance >= 8 {
			for filled < to { // up to 7 bytes too many: the next symbol overwrites them
				binary.LittleEndian.PutUint64(out[filled:], binary.LittleEndian.Uint64(out[from:]))
				filled += 8
				from += 8
			}
		} else {
			for filled < to {
				out[filled] = out[from]
				filled++
				from++
			}
		}
		filled = to
	}
	r.pos, r.filled, r.bitBuffer, r.bitCount = pos, filled, bitBuffer&(1<<(bitCount&63)-1), bitCount
	if r.overran() {
		return io.ErrUnexpectedEOF // whatever the zeros behind the end seemed to mean
	}
	return err
}

// overran reports whether bits beyond the input's end have been used.
func (r *Reader) overran() bool {
	return r.eof && r.pos-int(r.bitCount>>3) > r.end
}
