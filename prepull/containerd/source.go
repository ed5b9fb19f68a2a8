package containerd

import (
	"context"
	"errors"
	"io"
	"sync/atomic"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"headstart.dev/prepull/containerd/internal/layer"
	"headstart.dev/prepull/containerd/internal/registry"
	"headstart.dev/prepull/containerd/internal/tokens"
)

// source is where a layer's bytes come from, and where they go beside the snapshot.
type source struct {
	io.Reader
	bytes  atomic.Int64     // of the layer that are there, as progress was told
	remote *registry.Reader // nil when the content store has the layer
	local  io.Closer
	blob   *blobWriter // nil unless the node keeps blobs and has not this one
	kept   *partial    // nil where no bytes are kept for another attempt
}

func (e *directEngine) open(ctx context.Context, p *pull, desc ocispec.Descriptor, rank tokens.Rank, originOnly bool) (*source, error) {
	n := p.node
	local, err := n.localBlob(ctx, desc)
	if err != nil {
		return nil, err
	}
	s := &source{}
	done := func(n int64) {
		s.bytes.Add(n)
		p.progress.done(n)
	}
	if local != nil {
		s.Reader, s.local = &countingReader{Reader: local, count: done}, local
		return s, nil
	}
	repo, err := n.registry.Repository(ctx, p.source)
	if err != nil {
		return nil, err
	}
	if !n.found.DiscardLayers {
		if s.blob, err = e.openBlob(ctx, p, desc); err != nil {
			return nil, err
		}
	}
	options := registry.ReadOptions{Rank: rank, OriginOnly: originOnly, OnBytes: p.progress.fetched, OnNew: done}
	if s.kept = n.staging.partials.open(desc, n.registry.Chunk(), n.hasRoom(desc.Size+desc.Size/2), n.claim()); s.kept != nil {
		options.Partial = s.kept
	}
	s.remote = repo.Open(ctx, desc, options)
	s.Reader = s.remote
	if s.blob != nil {
		s.Reader = io.TeeReader(s.remote, s.blob)
	}
	return s, nil
}

// resumed reports whether bytes of an earlier attempt were among those that were read.
func (s *source) resumed() bool { return s.kept != nil && s.kept.found.Load() > 0 }

// settle ends the keeping of the layer's bytes, with what has become of the layer: they are for another attempt.
func (s *source) settle(err error) { s.kept.close(err != nil && mayResume(err)) }

// mayResume reports whether bytes that came before a layer failed are of use to another attempt.
func mayResume(err error) bool {
	return !ofContent(err) && !errors.Is(err, layer.ErrMemory) && !errors.Is(asNoRoom(err), ErrNoRoom)
}

// willKeep is how many bytes of a layer that failed are there for another attempt.
func (s *source) willKeep(err error) int64 {
	if s.kept == nil || s.kept.bare || s.kept.off.Load() || !mayResume(err) {
		return 0
	}
	return s.bytes.Load()
}

// finish closes all but settle's, and keeps the blob when the layer went well.
func (s *source) finish(ctx context.Context, err error) error {
	if s.local != nil {
		return s.local.Close()
	}
	if errors.Is(err, layer.ErrCorrupt) && !s.resumed() {
		s.remote.Quarantine()
	}
	closed := s.remote.Close()
	switch {
	case s.blob == nil:
	case err != nil:
		closed = errors.Join(closed, s.blob.abandon(ctx))
	default:
		closed = errors.Join(closed, s.blob.commit(ctx))
	}
	return closed
}
