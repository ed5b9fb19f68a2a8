package inflate

import (
	"bytes"
	"errors"
	"io"
)

// Checkpoint is a place in a gzip stream from which it can be inflated: what a zTOC keeps of a layer.
type Checkpoint struct {
	Bit    int64 // of the compressed stream, at the beginning of a block
	Out    int64 // bytes inflated before
	Window []byte
}

// Checkpoints inflates a stream of one member and notes a place about every so many bytes, the first at the first block. The
// size is that of the inflated stream.
func Checkpoints(source io.Reader, every int64) (all []Checkpoint, size int64, err error) {
	counted := &countingReader{reader: source}
	r := NewReader(counted)
	var slid int64
	next := int64(0)
	for r.err == nil {
		before := r.filled
		r.taken = r.ready
		r.slide()
		slid += int64(before - r.filled)
		for r.err == nil && r.filled < windowSize+outputSize {
			if r.state == inBlockHeader && slid+int64(r.filled) >= next {
				all = append(all, Checkpoint{
					Bit: (counted.bytes-int64(r.end-r.pos))*8 - int64(r.bitCount), Out: slid + int64(r.filled),
					Window: bytes.Clone(r.out[max(r.member, r.filled-windowSize):r.filled]),
				})
				next = slid + int64(r.filled) + every
			}
			r.err = r.decode()
		}
		r.checksum()
	}
	if !errors.Is(r.err, io.EOF) {
		err = r.err
	}
	return all, slid + int64(r.filled), err
}

// OpenAt returns a Reader that begins at a checkpoint; source begins at the byte of its bit. It must not read up to the
// member's end, whose checksum is that of the whole.
func OpenAt(source io.Reader, at Checkpoint) (*Reader, error) {
	r := NewReader(source)
	r.filled = copy(r.out, at.Window)
	r.ready, r.taken = r.filled, r.filled
	r.state, r.began = inBlockHeader, true
	_, err := r.take(uint(at.Bit & 7))
	return r, err
}

type countingReader struct {
	reader io.Reader
	bytes  int64
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.reader.Read(p)
	c.bytes += int64(n)
	return n, err
}
