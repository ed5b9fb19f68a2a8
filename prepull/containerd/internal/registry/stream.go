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
				if failures++; Terminal(err) || failures >= rangeAttempts || rd.ctx.Err() != nil || pause(rd.ctx, failures, err) != nil {
					return 0, rd.cause(fmt.Errorf("fetch blob %s: %w", rd.desc.Digest, rd.repo.fault(err)))
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
			if failures++; failures >= rangeAttempts || rd.ctx.Err() != nil || errors.Is(err, errDrip) {
				return 0, rd.cause(fmt.Errorf("fetch blob %s: %w", rd.desc.Digest, rd.repo.fault(unexpected(err))))
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
		plain, err := decoded(resp, st)
		if err != nil {
			_ = resp.Body.Close()
			errs = append(errs, err)
			continue
		}
		rd.stream = stallCloser{Reader: plain, stall: st}
		rd.mu.Lock()
		rd.served[h] = true
		rd.mu.Unlock()
		skipped, err := io.CopyN(io.Discard, plain, rd.offset)
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
type stallCloser struct {
	io.Reader
	stall *stall
}

func (s stallCloser) Close() error {
	s.stall.stop()
	return s.stall.body.Close()
}
