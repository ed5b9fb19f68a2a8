package registry

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// readStream reads from a server that ignores ranges: one body, and after a failure the same again with what has been
// delivered skipped.
func (rd *Reader) readStream(p []byte) (int, error) {
	for failures := 0; ; {
		if rd.stream == nil {
			if err := rd.openStream(); err != nil {
				if failures++; Terminal(err) || failures >= rangeAttempts || rd.ctx.Err() != nil {
					return 0, rd.cause(err)
				}
				if err := pause(rd.ctx, failures, err); err != nil {
					return 0, err
				}
				continue
			}
		}
		n, err := rd.stream.Read(p[:min(int64(len(p)), rd.desc.Size-rd.offset)])
		if n > 0 {
			rd.count(n)
			rd.tell(n)
			rd.offset += int64(n)
			return n, nil
		}
		if err != nil {
			_ = rd.stream.Close()
			rd.stream = nil
			if failures++; failures >= rangeAttempts || rd.ctx.Err() != nil {
				return 0, rd.cause(fmt.Errorf("fetch blob %s: %w", rd.desc.Digest, unexpected(err)))
			}
		}
	}
}

func (rd *Reader) openStream() error {
	var errs []error
	for _, h := range rd.hosts {
		resp, err := rd.repo.send(rd.ctx, h, http.MethodGet, rd.repo.target(h, "blobs", rd.desc.Digest.String()), nil, originHeaderTimeout)
		if err == nil && resp.StatusCode != http.StatusOK {
			err = newStatusError(resp)
			_ = resp.Body.Close()
		}
		h.record(err, time.Now())
		if err != nil {
			errs = append(errs, err)
			continue
		}
		st := newStall(resp.Body, bodyStallTimeout)
		rd.stream = stallCloser{st}
		rd.mu.Lock()
		rd.served[h] = true
		rd.mu.Unlock()
		skipped, err := io.CopyN(io.Discard, st, rd.offset)
		rd.count(int(skipped))
		if err != nil {
			_ = rd.stream.Close()
			rd.stream = nil
			return fmt.Errorf("skip what was delivered: %w", unexpected(err))
		}
		return nil
	}
	return hostsError(errs)
}

func (rd *Reader) count(n int) {
	if rd.options.OnBytes != nil && n > 0 {
		rd.options.OnBytes(int64(n))
	}
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// stallCloser closes the body beneath a stall.
type stallCloser struct{ *stall }

func (s stallCloser) Close() error {
	s.stop()
	return s.body.Close()
}
