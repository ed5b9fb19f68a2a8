//go:build isal && cgo

// Package isal reads gzip by Intel's ISA-L, which takes half the processor time of the Go reader beside it. It needs cgo and
// the library at build time (Debian: libisal-dev), so it is built by the tag isal alone. Start from NewReader.
package isal

/*
#cgo LDFLAGS: -lisal
#include <stdlib.h>
#include <isa-l/igzip_lib.h>

static struct inflate_state *headstart_new(void) {
	struct inflate_state *s = malloc(sizeof(*s));
	if (s != NULL) {
		isal_inflate_init(s);
		s->crc_flag = ISAL_GZIP;
	}
	return s;
}

static void headstart_reset(struct inflate_state *s) {
	isal_inflate_reset(s);
	s->crc_flag = ISAL_GZIP;
}

// headstart_step inflates what it can and keeps no pointer to the buffers.
static int headstart_step(struct inflate_state *s, void *in, uint32_t *in_left, void *out, uint32_t *out_left) {
	s->next_in = in;
	s->avail_in = *in_left;
	s->next_out = out;
	s->avail_out = *out_left;
	int ret = isal_inflate(s);
	*in_left = s->avail_in;
	*out_left = s->avail_out;
	s->next_in = NULL;
	s->next_out = NULL;
	return ret;
}

static int headstart_finished(struct inflate_state *s) { return s->block_state == ISAL_BLOCK_FINISH; }
*/
import "C"

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"unsafe"
)

// ErrCorrupt: the input is no valid gzip.
var ErrCorrupt = errors.New("corrupt gzip data")

const inputSize = 128 << 10

// Reader is an io.Reader of the data in a gzip stream of one or more members. It is not safe for concurrent use.
type Reader struct {
	source io.Reader
	state  *C.struct_inflate_state
	in     []byte
	left   []byte // of in, not yet used
	eof    bool
	began  bool // the present member has
	any    bool // there has been a member
	err    error
}

// NewReader returns a Reader. It reads ahead, and to the end of the last member.
func NewReader(source io.Reader) *Reader {
	r := &Reader{source: source, state: C.headstart_new(), in: make([]byte, inputSize)}
	if r.state == nil {
		r.err = errors.New("no memory for the inflater")
		return r
	}
	runtime.AddCleanup(r, func(state *C.struct_inflate_state) { C.free(unsafe.Pointer(state)) }, r.state)
	return r
}

// Read implements io.Reader.
func (r *Reader) Read(p []byte) (int, error) {
	for len(p) > 0 && r.err == nil {
		n, err := r.step(p)
		r.err = err
		if n > 0 {
			return n, nil
		}
	}
	if len(p) == 0 {
		return 0, nil
	}
	return 0, r.err
}

// step inflates once, or reads once when there is nothing to inflate.
func (r *Reader) step(p []byte) (int, error) {
	if len(r.left) == 0 && !r.eof {
		n, err := r.source.Read(r.in)
		r.left = r.in[:n]
		if errors.Is(err, io.EOF) {
			r.eof = true
		} else if err != nil {
			return 0, err
		}
	}
	if len(r.left) == 0 && r.eof && !r.began {
		if !r.any {
			return 0, io.ErrUnexpectedEOF
		}
		return 0, io.EOF
	}
	r.began, r.any = true, true
	inLeft, outLeft := C.uint32_t(len(r.left)), C.uint32_t(len(p))
	in := unsafe.Pointer(unsafe.SliceData(r.in))
	if len(r.left) > 0 {
		in = unsafe.Pointer(unsafe.SliceData(r.left))
	}
	ret := C.headstart_step(r.state, in, &inLeft, unsafe.Pointer(unsafe.SliceData(p)), &outLeft)
	used, made := len(r.left)-int(inLeft), len(p)-int(outLeft)
	r.left = r.left[used:]
	switch {
	case ret < 0:
		return made, fmt.Errorf("%w: ISA-L says %d", ErrCorrupt, int(ret))
	case C.headstart_finished(r.state) != 0:
		C.headstart_reset(r.state)
		r.began = false
	case used == 0 && made == 0 && r.eof && len(r.left) == 0:
		return 0, io.ErrUnexpectedEOF
	}
	return made, nil
}
