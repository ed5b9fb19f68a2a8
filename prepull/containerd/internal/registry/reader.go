package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"headstart.dev/prepull/containerd/internal/tokens"
)

// Reader delivers a blob in order while it fetches ranges of it in parallel. What fails is fetched again from where it
// stopped, so that a reset costs no byte twice. It does not verify: only the whole blob has a digest.
//
// One goroutine reads; Close may be called from any, and must be called.
type Reader struct {
	repo    *Repository
	desc    ocispec.Descriptor
	options ReadOptions
	hosts   []*host
	ctx     context.Context //nolint:containedctx // a Reader is one operation, like an http.Response's body
	cancel  context.CancelCauseFunc
	wg      sync.WaitGroup

	chunks  chan *chunk
	current *chunk
	offset  int64 // of the next byte that Read returns

	whole  atomic.Bool // the server ignores ranges: the blob comes in one stream
	stream io.ReadCloser

	mu       sync.Mutex
	redirect string // where the registry sent the last range to
	served   map[*host]bool
}

// ReadOptions tune one Reader.
type ReadOptions struct {
	// Rank of its ranges among those of all other Readers.
	Rank tokens.Rank
	// Offset to begin at.
	Offset int64
	// OriginOnly passes by all mirrors, because what they served was corrupt.
	OriginOnly bool
	// OnBytes is told of every byte that came over the network, from many goroutines.
	OnBytes func(n int64)
	// OnNew is told of every byte of the blob once, as soon as it is there, from many goroutines; less than 0 takes back.
	OnNew func(n int64)
	// Partial keeps what has come for another attempt; nil keeps nothing. It wants Offset to be 0.
	Partial Partial
}

// Partial keeps the bytes of a blob that has not come as a whole. Its methods are called from many goroutines, for each
// range from one.
type Partial interface {
	// Load fills data, which is the range at offset, with the bytes of its beginning that are kept, and returns how many.
	Load(offset int64, data []byte) int
	// Save takes the bytes of a range that follow those that it has.
	Save(offset int64, data []byte)
}

// chunk is one range on its way.
type chunk struct {
	offset int64
	data   []byte // the part of buffer that the range fills
	buffer []byte
	read   int
	told   int // how many of its bytes OnNew was told of
	err    error
	done   chan struct{}
}

// errNoRanges: the server answered a range with the whole blob.
var errNoRanges = errors.New("the server ignores ranges")

// Open begins to fetch a blob.
func (r *Repository) Open(ctx context.Context, desc ocispec.Descriptor, options ReadOptions) *Reader {
	ctx, cancel := context.WithCancelCause(ctx)
	rd := &Reader{
		repo: r, desc: desc, options: options, ctx: ctx, cancel: cancel,
		chunks: make(chan *chunk, r.client.cfg.Connections),
		offset: options.Offset, served: map[*host]bool{}, hosts: r.hosts,
	}
	if options.OriginOnly {
		rd.hosts = r.hosts[len(r.hosts)-1:]
	}
	rd.wg.Go(rd.schedule)
	return rd
}

// schedule requests range after range, as fast as buffers come free. Buffers are taken in the order of the blob, so the
// next range to be consumed always has one, and Readers cannot block each other for good.
func (rd *Reader) schedule() {
	defer close(rd.chunks)
	b := rd.repo.client.buffers
	for offset := rd.options.Offset; offset < rd.desc.Size && rd.ctx.Err() == nil && !rd.whole.Load(); {
		buffer, err := b.get(rd.ctx, rd.options.Rank)
		if err != nil {
			return
		}
		n := min(int64(len(buffer)), rd.desc.Size-offset)
		c := &chunk{offset: offset, data: buffer[:n], buffer: buffer, done: make(chan struct{})}
		rd.wg.Go(func() {
			defer close(c.done)
			c.err = rd.fetch(c)
		})
		select {
		case rd.chunks <- c:
		case <-rd.ctx.Done():
			<-c.done
			b.put(buffer)
			return
		}
		offset += n
	}
}

// Read implements io.Reader.
func (rd *Reader) Read(p []byte) (int, error) {
	for {
		if rd.offset >= rd.desc.Size {
			return 0, io.EOF
		}
		if rd.whole.Load() {
			return rd.readStream(p)
		}
		data, err := rd.next()
		if errors.Is(err, errNoRanges) {
			rd.whole.Store(true)
			rd.takeBack(rd.current)
			rd.release()
			rd.wg.Go(rd.drain)
			continue
		}
		if err != nil {
			return 0, err
		}
		n := copy(p, data)
		rd.advance(n)
		return n, nil
	}
}

// next returns what is left of the present range, waiting for it when need be.
func (rd *Reader) next() ([]byte, error) {
	if rd.current == nil {
		c, more := <-rd.chunks
		if !more {
			return nil, rd.cause(io.ErrUnexpectedEOF)
		}
		rd.current = c
		<-c.done
	}
	c := rd.current
	if c.err != nil {
		return nil, rd.cause(c.err)
	}
	return c.data[c.read:], nil
}

func (rd *Reader) advance(n int) {
	rd.offset += int64(n)
	if c := rd.current; c != nil {
		if c.read += n; c.read == len(c.data) {
			rd.release()
		}
	}
}

// release gives the current range's buffer back.
func (rd *Reader) release() {
	if c := rd.current; c != nil {
		rd.current = nil
		rd.repo.client.buffers.put(c.buffer)
	}
}

func (rd *Reader) cause(err error) error {
	if cause := context.Cause(rd.ctx); cause != nil {
		return cause
	}
	return err
}

// Close stops all requests and waits until they have ended.
func (rd *Reader) Close() error {
	rd.cancel(context.Canceled)
	rd.release()
	rd.drain()
	rd.wg.Wait()
	if rd.stream != nil {
		return rd.stream.Close()
	}
	return nil
}

// drain gives the buffers of all ranges back that nobody will read.
func (rd *Reader) drain() {
	for c := range rd.chunks {
		<-c.done
		if rd.whole.Load() {
			rd.takeBack(c)
		}
		rd.repo.client.buffers.put(c.buffer)
	}
}

// Quarantine leaves the mirrors that served this blob alone for a while: it was corrupt. It reports whether a mirror
// was among them, so that the origin is worth a try.
func (rd *Reader) Quarantine() bool {
	rd.mu.Lock()
	defer rd.mu.Unlock()
	mirror := false
	for h := range rd.served {
		if h != rd.repo.hosts[len(rd.repo.hosts)-1] {
			h.quarantine(time.Now())
			mirror = true
		}
	}
	return mirror
}

// fetch fills one chunk, from host to host and with retries.
func (rd *Reader) fetch(c *chunk) error {
	got := 0
	if rd.options.Partial != nil {
		got = rd.options.Partial.Load(c.offset, c.data)
		rd.isNew(c, got)
		if got == len(c.data) {
			return nil
		}
	}
	err := eachTurn(rd.ctx, rd.hosts, rangeAttempts, func(t turn) error {
		return rd.fetchFrom(t, c, &got)
	})
	if err == nil || rd.ctx.Err() != nil || errors.Is(err, errNoRanges) {
		return err
	}
	return fmt.Errorf("fetch blob %s of %s: %w", rd.desc.Digest, rd.repo.spec.Locator, rd.repo.fault(err))
}

// rangeAttempts is how many failures in a row without a new byte end a range, and with it this attempt at the image. At
// the origin they take about 15 seconds with their pauses.
const rangeAttempts = 7

func (rd *Reader) fetchFrom(t turn, c *chunk, got *int) error {
	h := t.host
	logins := 0
	for failures := 0; ; {
		auth := h.authorizer()
		l := &lane{offset: c.offset + int64(*got), data: c.data[*got:], reader: rd, chunk: c}
		redirect, err := rd.hedge(h, l, t.timeout)
		l.save(int(l.got.Load())) // of a second request too
		h.record(err, time.Now())
		if err == nil || rd.ctx.Err() != nil || errors.Is(err, errNoRanges) {
			return err
		}
		more := int(l.got.Load())
		*got += more
		if more > 0 && !errors.Is(err, errDrip) {
			failures = 0
		}
		switch {
		case Terminal(err) && redirect != "":
			rd.dropRedirect(redirect) // a signed URL has expired: ask the registry again
		case errors.Is(err, ErrUnauthorized) && logins < maxLogins:
			logins++
			if err := rd.repo.logInAgain(rd.ctx, h, auth, err); err != nil {
				return err
			}
			continue
		case Terminal(err):
			return rd.repo.lookups.explain(h.Host, err)
		}
		rd.repo.client.pace.failed(err)
		if failures++; failures >= t.attempts || !t.again(rd.ctx, failures, err) {
			return err
		}
	}
}

// again waits until the host may be asked again, and reports whether it is to be.
func (t turn) again(ctx context.Context, failures int, err error) bool {
	return !t.passOn(err) && pause(ctx, failures, err) == nil
}

// lane is one request on its way into memory: a range, or what is missing of it.
type lane struct {
	offset int64 // of data within the blob
	data   []byte
	got    atomic.Int64 // how much of data has come

	reader *Reader // nil for a second request: what it brings is the first's, should that lack it
	chunk  *chunk  // of which data is the rest
	saved  int     // how much of data save has taken
}

// save keeps and counts what has come of data up to its byte end.
func (l *lane) save(end int) {
	if l.reader == nil || end <= l.saved {
		return
	}
	if p := l.reader.options.Partial; p != nil {
		p.Save(l.offset+int64(l.saved), l.data[l.saved:end])
	}
	l.reader.isNew(l.chunk, end-l.saved)
	l.saved = end
}

// isNew tells of bytes of a chunk that are there now.
func (rd *Reader) isNew(c *chunk, n int) {
	c.told += n
	rd.tell(n)
}

// takeBack is for a chunk whose bytes the whole stream brings again.
func (rd *Reader) takeBack(c *chunk) { rd.tell(-c.told) }

func (rd *Reader) tell(n int) {
	if rd.options.OnNew != nil && n != 0 {
		rd.options.OnNew(int64(n))
	}
}

// request asks for a lane's bytes and reads them. It returns the redirect that it used again, "" when it asked the host
// itself.
func (rd *Reader) request(ctx context.Context, h *host, l *lane, timeout time.Duration) (redirect string, err error) {
	target := rd.repo.target(h, "blobs", rd.desc.Digest.String())
	rd.mu.Lock()
	if rd.redirect != "" && rd.served[h] {
		target, redirect = rd.redirect, rd.redirect
	}
	rd.mu.Unlock()
	lastByte := l.offset + int64(len(l.data)) - 1
	header := http.Header{"Range": {fmt.Sprintf("bytes=%d-%d", l.offset, lastByte)}}
	resp, err := rd.repo.send(ctx, h, http.MethodGet, target, header, timeout)
	if err != nil {
		return redirect, err
	}
	defer func() { _ = resp.Body.Close() }()
	switch {
	case redirect == "" && refusesRanges(resp):
		return redirect, errNoRanges
	case resp.StatusCode == http.StatusOK && l.offset == 0 && resp.ContentLength == int64(len(l.data)):
		// The whole blob is what was asked for.
	case resp.StatusCode == http.StatusOK:
		return redirect, errNoRanges
	case resp.StatusCode != http.StatusPartialContent:
		return redirect, newStatusError(resp)
	default:
		if err := checkContentRange(resp.Header.Get("Content-Range"), l.offset, lastByte, rd.desc.Size); err != nil {
			return redirect, fmt.Errorf("%s: %w", h.Host, err)
		}
	}
	rd.mu.Lock()
	if final := resp.Request.URL.String(); redirect == "" && final != target {
		rd.redirect = final
	}
	rd.served[h] = true
	rd.mu.Unlock()
	return redirect, rd.fill(ctx, resp.Body, l)
}

// refusesRanges reports whether it is the range that the server takes amiss, or a range of something else that it sends:
// the blob may come as a whole. Its length and digest are looked at then as well.
func refusesRanges(resp *http.Response) bool {
	switch resp.StatusCode {
	case http.StatusBadRequest, http.StatusMethodNotAllowed, http.StatusRequestedRangeNotSatisfiable, http.StatusNotImplemented:
		return true
	case http.StatusOK, http.StatusPartialContent:
		return len(encodings(resp)) > 0
	}
	return false
}

// dropRedirect forgets a redirect target, unless a newer one has taken its place.
func (rd *Reader) dropRedirect(used string) {
	rd.mu.Lock()
	defer rd.mu.Unlock()
	if rd.redirect == used {
		rd.redirect = ""
	}
}

// checkContentRange compares what the server says it sends with what was asked for.
func checkContentRange(value string, first, last, size int64) error {
	var gotFirst, gotLast, gotSize int64
	if _, err := fmt.Sscanf(value, "bytes %d-%d/%d", &gotFirst, &gotLast, &gotSize); err != nil {
		gotSize = size
		if _, err := fmt.Sscanf(value, "bytes %d-%d/*", &gotFirst, &gotLast); err != nil {
			return fmt.Errorf("content range %q cannot be read", value)
		}
	}
	if gotSize != size {
		return fmt.Errorf("the blob has %d bytes, the manifest declares %d: %w", gotSize, size, ErrRefused)
	}
	if gotFirst != first || gotLast != last {
		return fmt.Errorf("content range %q is not the bytes %d-%d that were asked for", value, first, last)
	}
	return nil
}
