package containerd

import (
	"context"
	"errors"
	"io"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"headstart.dev/prepull/containerd/internal/layer"
	"headstart.dev/prepull/containerd/internal/registry"
	"headstart.dev/prepull/containerd/internal/tokens"
)

// source is where a layer's bytes come from, and where they go beside the snapshot.
type source struct {
	io.Reader
	remote *registry.Reader // nil when the content store has the layer
	local  io.Closer
	blob   *blobWriter // nil unless the node keeps blobs and has not this one
}

func (e *directEngine) open(ctx context.Context, p *pull, desc ocispec.Descriptor, rank tokens.Rank, originOnly bool) (*source, error) {
	n := p.node
	local, err := n.localBlob(ctx, desc)
	if err != nil {
		return nil, err
	}
	if local != nil {
		return &source{Reader: local, local: local}, nil
	}
	repo, err := n.registry.Repository(ctx, p.source)
	if err != nil {
		return nil, err
	}
	s := &source{}
	if !n.found.DiscardLayers {
		if s.blob, err = e.openBlob(ctx, n, desc); err != nil {
			return nil, err
		}
	}
	s.remote = repo.Open(ctx, desc, registry.ReadOptions{Rank: rank, OriginOnly: originOnly, OnBytes: p.progress.fetched})
	s.Reader = s.remote
	if s.blob != nil {
		s.Reader = io.TeeReader(s.remote, s.blob)
	}
	return s, nil
}

// finish closes all, and keeps the blob when the layer went well.
func (s *source) finish(ctx context.Context, err error) error {
	if s.local != nil {
		return s.local.Close()
	}
	if errors.Is(err, layer.ErrCorrupt) {
		s.remote.Quarantine()
	}
	closed := s.remote.Close()
	switch {
	case s.blob == nil:
	case err != nil:
		s.blob.abandon()
	default:
		closed = errors.Join(closed, s.blob.commit(ctx))
	}
	return closed
}
