package layer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"time"
)

// Inflated bytes go from the inflater to the writer in blocks, a few ahead: enough that neither waits for the other's
// hiccups, and small enough to stay in the processor's cache.
const (
	blockSize  = 256 << 10
	blockCount = 8
)

// pipe passes a tar in blocks from one goroutine to another, and digests and counts it on the way out. Unlike io.Pipe it
// lets the writer run ahead.
type pipe struct {
	ctx   context.Context //nolint:containedctx // ends with the Unpack that made it
	full  chan []byte
	empty chan []byte

	// Of the writing end.
	blocked time.Duration
	err     error // set before full is closed

	// Of the reading end.
	current  []byte // what the reader has left
	whole    []byte // the block that current is a part of
	digester hash.Hash
	bytes    int64
	limit    int64
	waited   time.Duration
}

func newPipe(ctx context.Context, digester hash.Hash, limit int64) *pipe {
	p := &pipe{
		ctx: ctx, full: make(chan []byte, blockCount), empty: make(chan []byte, blockCount), digester: digester, limit: limit,
	}
	for range blockCount {
		p.empty <- nil // made when first needed: a small layer takes one
	}
	return p
}

// ReadFrom implements io.ReaderFrom: it fills block after block.
func (p *pipe) ReadFrom(r io.Reader) (int64, error) {
	var total int64
	for {
		block, err := p.take()
		if err != nil {
			return total, err
		}
		n, err := fill(r, block)
		total += int64(n)
		if n > 0 {
			p.full <- block[:n]
		} else {
			p.empty <- block
		}
		if errors.Is(err, io.EOF) {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
}

// take waits for an empty block.
func (p *pipe) take() ([]byte, error) {
	began := time.Now()
	defer func() { p.blocked += time.Since(began) }()
	select {
	case block := <-p.empty:
		if block == nil {
			block = make([]byte, blockSize)
		}
		return block, nil
	case <-p.ctx.Done():
		return nil, context.Cause(p.ctx)
	}
}

// fill reads until the block is full or the reader ends. Unlike io.ReadFull it keeps an end apart from a break.
func fill(r io.Reader, block []byte) (n int, err error) {
	for n < len(block) && err == nil {
		var more int
		more, err = r.Read(block[n:])
		n += more
	}
	if n == len(block) && errors.Is(err, io.EOF) {
		err = nil // the next call finds it again
	}
	return n, err
}

// Write implements io.Writer.
func (p *pipe) Write(data []byte) (int, error) {
	n, err := p.ReadFrom(bytes.NewReader(data))
	return int(n), err
}

func (p *pipe) closeWrite(err error) {
	p.err = err
	close(p.full)
}

// Read implements io.Reader.
func (p *pipe) Read(data []byte) (int, error) {
	if len(p.current) == 0 {
		if err := p.next(); err != nil {
			return 0, err
		}
	}
	n := copy(data, p.current)
	p.current = p.current[n:]
	return n, nil
}

// next waits for a full block and digests it.
func (p *pipe) next() error {
	if p.whole != nil {
		p.empty <- p.whole[:cap(p.whole)]
		p.whole = nil
	}
	began := time.Now()
	select {
	case block, more := <-p.full:
		p.waited += time.Since(began)
		if !more {
			if p.err != nil {
				return p.err
			}
			return io.EOF
		}
		p.current, p.whole = block, block
	case <-p.ctx.Done():
		return context.Cause(p.ctx)
	}
	p.digester.Write(p.current)
	p.bytes += int64(len(p.current))
	if p.bytes > p.limit {
		return fmt.Errorf("%w: it unpacks to more than %d bytes, beyond the whole disk", ErrOversize, p.limit)
	}
	return nil
}
