package containerd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// blobBlock is how much of a layer goes to containerd in one call: its content writer waits for an answer to each.
const blobBlock = 1 << 20

// localBlob opens a layer that the content store has already, nil when it has not.
func (n *node) localBlob(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	if n.client == nil {
		return nil, nil //nolint:nilnil // as below
	}
	reader, err := n.client.ContentStore().ReaderAt(ctx, desc)
	if errdefs.IsNotFound(err) {
		return nil, nil //nolint:nilnil // not being there is the usual case, and no error
	}
	if err != nil {
		return nil, fmt.Errorf("read the blob %s: %w", desc.Digest, err)
	}
	if reader.Size() != desc.Size {
		return nil, errors.Join(fmt.Errorf("the blob %s has %d bytes, its manifest says %d", desc.Digest, reader.Size(), desc.Size), reader.Close())
	}
	return readCloser{bufio.NewReaderSize(content.NewReader(reader), blobBlock), reader}, nil
}

type readCloser struct {
	io.Reader
	io.Closer
}

// blobWriter copies a layer into the content store while it is unpacked, for nodes that keep their layers' blobs.
type blobWriter struct {
	writer  content.Writer
	buffer  *bufio.Writer
	desc    ocispec.Descriptor
	abort   func(context.Context) error // removes what has been written
	release func()
}

// openBlob begins a blob; nil when the content store has it. An unfinished one of an earlier attempt begins anew, because
// the unpacking does as well.
func (e *directEngine) openBlob(ctx context.Context, p *pull, desc ocispec.Descriptor) (*blobWriter, error) {
	ref, store := remotes.MakeRefKey(ctx, desc), p.node.client.ContentStore()
	e.ours.Store(ref, struct{}{})
	held, end := outlive(ctx, abandonTime)
	release := func() {
		e.ours.Delete(ref)
		end()
	}
	writer, err := content.OpenWriter(held, store, content.WithRef(ref), content.WithDescriptor(desc))
	if err == nil {
		err = writer.Truncate(0)
	}
	if errdefs.IsAlreadyExists(err) {
		release()
		return nil, nil //nolint:nilnil // being there is as good
	}
	if err != nil {
		release()
		return nil, fmt.Errorf("begin the blob %s: %w", desc.Digest, err)
	}
	abort := func(ctx context.Context) error { return store.Abort(ctx, ref) }
	writes := p.node.claim()
	guarded := &guardedWriter{Writer: writer, claim: writes, written: &p.written}
	return &blobWriter{writer: writer, buffer: bufio.NewWriterSize(guarded, blobBlock), desc: desc, abort: abort, release: func() {
		writes.end()
		release()
	}}, nil
}

// guardedWriter asks for room before it writes.
type guardedWriter struct {
	io.Writer
	claim   *claim
	granted int64
	written *atomic.Int64
}

func (g *guardedWriter) Write(p []byte) (int, error) {
	if n := int64(len(p)); g.granted < n {
		granted, err := g.claim.grant(n, 0)
		if err != nil {
			return 0, err
		}
		g.granted = granted
	}
	g.granted -= int64(len(p))
	g.written.Add(int64(len(p)))
	return g.Writer.Write(p)
}

// abandonTime is what a cancelled pull has to remove what it has written of a blob.
const abandonTime = 3 * time.Second

// outlive returns a context that ends by end, or some time after its parent has. containerd gives the lock on a blob up
// together with the stream that has it: were that to end first, what is removed then might be somebody else's.
func outlive(parent context.Context, grace time.Duration) (ctx context.Context, end context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(parent))
	stop := context.AfterFunc(parent, func() {
		timer := time.AfterFunc(grace, cancel)
		context.AfterFunc(ctx, func() { timer.Stop() })
	})
	return ctx, func() {
		stop()
		cancel()
	}
}

func (b *blobWriter) Write(p []byte) (int, error) { return b.buffer.Write(p) }

// commit finishes the blob. Its digest has been verified twice then: here and by containerd.
func (b *blobWriter) commit(ctx context.Context) error {
	defer b.release()
	err := b.buffer.Flush()
	if err == nil {
		err = b.writer.Commit(ctx, b.desc.Size, b.desc.Digest)
	}
	if err != nil && !errdefs.IsAlreadyExists(err) {
		return fmt.Errorf("commit the blob %s: %w", b.desc.Digest, errors.Join(err, b.writer.Close()))
	}
	return b.writer.Close()
}

// abandon removes an unfinished blob: the next attempt begins anew, and what made this one fail may be a full disk. The
// writer is closed last, for until then nobody else can have begun the blob again.
func (b *blobWriter) abandon(ctx context.Context) error {
	defer b.release()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
	defer cancel()
	err := b.abort(ctx)
	if errdefs.IsNotFound(err) {
		err = nil
	}
	return errors.Join(err, b.writer.Close())
}
