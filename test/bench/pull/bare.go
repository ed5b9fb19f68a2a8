package main

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/klauspost/compress/gzip"
	"golang.org/x/sync/errgroup"
)

// The bare limit fetches by as many ranges of the same size as the direct engine.
const (
	bareRanges = 16
	bareRange  = 8 << 20
)

// bare is what cannot be saved: fetch, inflate and write, with no digests, no containerd and no care.
func bare(ctx context.Context, host string, refs []string, dir string) error {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: bareRanges}}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.NumCPU() + 2)
	buffers := make(chan []byte, bareRanges)
	for range bareRanges {
		buffers <- make([]byte, bareRange)
	}
	seen := map[string]bool{}
	for _, ref := range refs {
		name := strings.TrimSuffix(strings.TrimPrefix(ref, host+"/"), ":v1")
		var manifest struct {
			Layers []struct {
				Digest string
				Size   int64
			}
		}
		body, err := get(ctx, client, fmt.Sprintf("http://%s/v2/%s/manifests/v1", host, name), "")
		if err != nil {
			return err
		}
		err = errors.Join(json.NewDecoder(body).Decode(&manifest), body.Close())
		if err != nil {
			return err
		}
		for _, l := range manifest.Layers {
			if seen[l.Digest] {
				continue
			}
			seen[l.Digest] = true
			group.Go(func() error {
				r := &rangeReader{ctx: ctx, client: client, url: fmt.Sprintf("http://%s/v2/%s/blobs/%s", host, name, l.Digest), size: l.Size, buffers: buffers}
				return extract(r, filepath.Join(dir, l.Digest[7:]))
			})
		}
	}
	return group.Wait()
}

func get(ctx context.Context, client *http.Client, url, span string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return nil, err
	}
	if span != "" {
		req.Header.Set("Range", span)
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode >= 300 {
		return nil, errors.Join(fmt.Errorf("%s: %s", url, resp.Status), resp.Body.Close())
	}
	return resp.Body, nil
}

// rangeReader reads a blob in order by ranges in flight.
type rangeReader struct {
	ctx     context.Context //nolint:containedctx // io.Reader has no other way
	client  *http.Client
	url     string
	size    int64
	buffers chan []byte

	started  bool
	pieces   chan chan piece
	now      piece
	consumed int
}

type piece struct {
	buffer, data []byte
	err          error
}

func (r *rangeReader) Read(p []byte) (int, error) {
	if !r.started {
		r.started = true
		r.pieces = make(chan chan piece, bareRanges)
		go r.schedule()
	}
	if r.consumed == len(r.now.data) {
		if r.now.buffer != nil {
			r.buffers <- r.now.buffer
			r.now = piece{}
		}
		next, more := <-r.pieces
		if !more {
			return 0, io.EOF
		}
		r.now, r.consumed = <-next, 0
		if r.now.err != nil {
			return 0, r.now.err
		}
	}
	n := copy(p, r.now.data[r.consumed:])
	r.consumed += n
	return n, nil
}

func (r *rangeReader) schedule() {
	defer close(r.pieces)
	for offset := int64(0); offset < r.size; offset += bareRange {
		buffer := <-r.buffers
		done := make(chan piece, 1)
		end := min(offset+bareRange, r.size)
		go func() {
			body, err := get(r.ctx, r.client, r.url, fmt.Sprintf("bytes=%d-%d", offset, end-1))
			if err == nil {
				_, err = io.ReadFull(body, buffer[:end-offset])
				err = errors.Join(err, body.Close())
			}
			done <- piece{buffer: buffer, data: buffer[:end-offset], err: err}
		}()
		r.pieces <- done
	}
}

// extract writes a layer's files with as few calls as it takes.
func extract(r io.Reader, dir string) error {
	zip, err := gzip.NewReader(r)
	if err != nil {
		return err
	}
	tr := tar.NewReader(zip)
	copyBuffer := make([]byte, 256<<10)
	for {
		header, err := tr.Next()
		if errors.Is(err, io.EOF) {
			_, err := io.Copy(io.Discard, zip)
			return err
		}
		if err != nil {
			return err
		}
		path := filepath.Join(dir, filepath.Clean("/"+header.Name))
		switch header.Typeflag {
		case tar.TypeDir:
			err = os.MkdirAll(path, 0o755)
		case tar.TypeSymlink:
			err = os.Symlink(header.Linkname, path)
		case tar.TypeReg:
			err = writeFile(path, tr, copyBuffer)
		}
		if err != nil {
			return err
		}
	}
}

func writeFile(path string, r io.Reader, copyBuffer []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o644)
	if errors.Is(err, os.ErrNotExist) {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		f, err = os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o644)
	}
	if err != nil {
		return err
	}
	_, err = io.CopyBuffer(struct{ io.Writer }{f}, r, copyBuffer)
	return errors.Join(err, f.Close())
}
