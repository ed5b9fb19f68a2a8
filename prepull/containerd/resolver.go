package containerd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"headstart.dev/prepull/containerd/internal/registry"
)

// fetchedResolver lets containerd's own client pull an image that has been resolved already, through our registry
// client: its retries, its ranges and its byte count.
type fetchedResolver struct {
	source   string
	image    *registry.Image
	client   *registry.Client
	progress *progress
	options  registry.ReadOptions
	room     func(compressed int64) error // asked before each layer

	mu    sync.Mutex
	begun []ocispec.Descriptor // blobs that containerd has asked for, each into an ingest that it has opened for us
}

var _ remotes.Resolver = (*fetchedResolver)(nil)

// Resolve implements remotes.Resolver.
func (f *fetchedResolver) Resolve(_ context.Context, ref string) (string, ocispec.Descriptor, error) {
	return ref, f.image.Target, nil
}

// Fetcher implements remotes.Resolver.
func (f *fetchedResolver) Fetcher(context.Context, string) (remotes.Fetcher, error) {
	return remotes.FetcherFunc(f.fetch), nil
}

// Pusher implements remotes.Resolver.
func (f *fetchedResolver) Pusher(context.Context, string) (remotes.Pusher, error) {
	return nil, fmt.Errorf("push: %w", errdefs.ErrNotImplemented)
}

func (f *fetchedResolver) fetch(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	for _, blob := range f.image.Blobs {
		if blob.Desc.Digest == desc.Digest {
			return io.NopCloser(bytes.NewReader(blob.Data)), nil
		}
	}
	f.mu.Lock()
	f.begun = append(f.begun, desc)
	f.mu.Unlock()
	if err := f.room(desc.Size); err != nil {
		return nil, err
	}
	repo, err := f.client.Repository(ctx, f.source)
	if err != nil {
		return nil, err
	}
	options := f.options
	options.OnBytes = f.progress.fetched
	return &seekingReader{ctx: ctx, repo: repo, desc: desc, options: options, done: f.progress.done}, nil
}

// abort removes the ingests that were begun and not finished. After most failures they stay for the next attempt, under
// the lease; on a full disk they are what keeps it full.
func (f *fetchedResolver) abort(ctx context.Context, store content.IngestManager) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
	defer cancel()
	f.mu.Lock()
	defer f.mu.Unlock()
	var errs []error
	for _, desc := range f.begun {
		if err := store.Abort(ctx, remotes.MakeRefKey(ctx, desc)); err != nil && !errdefs.IsNotFound(err) {
			errs = append(errs, fmt.Errorf("abort the blob %s: %w", desc.Digest, err))
		}
	}
	return errors.Join(errs...)
}

// seekingReader opens its blob at the first Read, at the offset that an ingest already has: containerd resumes by Seek.
type seekingReader struct {
	ctx     context.Context //nolint:containedctx // io.Reader has no other way
	repo    *registry.Repository
	desc    ocispec.Descriptor
	options registry.ReadOptions
	reader  *registry.Reader
	done    func(int64)
}

func (s *seekingReader) Read(p []byte) (int, error) {
	if s.reader == nil {
		s.done(s.options.Offset)
		s.reader = s.repo.Open(s.ctx, s.desc, s.options)
	}
	n, err := s.reader.Read(p)
	s.done(int64(n))
	return n, err
}

// Seek implements io.Seeker as far as containerd uses it: to an absolute offset.
func (s *seekingReader) Seek(offset int64, whence int) (int64, error) {
	if whence != io.SeekStart || offset < 0 || offset > s.desc.Size {
		return 0, fmt.Errorf("seek to %d (whence %d): %w", offset, whence, errdefs.ErrInvalidArgument)
	}
	if s.reader != nil {
		if err := s.reader.Close(); err != nil {
			return 0, fmt.Errorf("seek: %w", err)
		}
		s.reader = nil
	}
	s.options.Offset = offset
	return offset, nil
}

// Close implements io.Closer.
func (s *seekingReader) Close() error {
	if s.reader == nil {
		return nil
	}
	return s.reader.Close()
}
